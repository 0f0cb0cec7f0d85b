"""Unread lists, histories and single rows of half a megabyte each, within the memory limit of a container."""

import contextlib
import select
import socket

import pytest

import crowd
from support import PASSENGER, until

CLIENTS = 64
ROWS = 200
COLUMNS, LENGTH = 50, 10_000

DESCRIPTION = """
name = "notes"
title = "Notes"
operations = ["list", "read", "create", "patch"]
history = true
[urls]
list = "/all-notes"
[[column]]
name = "size"
type = "integer"
""" + "".join(f'[[column]]\nname = "t{column}"\ntype = "string"\nmaxLength = {LENGTH}\n' for column in range(COLUMNS))


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    resources = tmp_path_factory.mktemp("resources")
    (resources / "notes.toml").write_text(DESCRIPTION)
    with contextlib.ExitStack() as opened:
        try:
            one = opened.enter_context(crowd.stack_in_a_container(rows=10, RESOURCES_DIR=str(resources)))
        except crowd.NoControlGroup as error:
            pytest.skip(str(error))
        yield one


def test_nothing_is_killed_and_others_are_answered(stack):
    urls = [accepted(stack, "POST", "/v1/notes", note(size, LENGTH)).headers["location"] for size in range(ROWS)]
    short = accepted(stack, "POST", "/v1/notes", note(ROWS, 10)).headers["location"]
    for size in range(20):
        accepted(stack, "PATCH", urls[0], {"size": size})
    before = (stack.server_pid(), stack.nginx_pid())
    for attempt in range(2):
        paths = [
            path
            for number in range(CLIENTS)
            for path in (
                f"/all-notes?size=neq.{1000 * attempt + number + 100}",
                urls[number % ROWS],
                f"/v1/notes?limit={900 - number}&order=size.desc",
                f"{urls[0]}/history?limit={900 - number}",
            )
        ]
        with unread(stack.port, paths):
            for _ in range(10):
                created = stack.request("POST", "/v1/passengers", PASSENGER)
                assert created.status == 201, created
                assert stack.request("GET", created.headers["location"]).status == 200
                for path in (short, urls[1]):
                    answer = stack.request("GET", path)
                    assert answer.status in (200, 503), answer
                    assert answer.status == 200 or int(answer.headers["retry-after"]) > 0, answer
    print(f"at most {crowd.most_used(stack.group)} MiB in use")
    assert crowd.killed(stack.group) == 0
    assert (stack.server_pid(), stack.nginx_pid()) == before, stack.process.output[-3000:]
    # The memory is available again.
    for url in urls:
        assert accepted(stack, "GET", url).json()["t0"] == "x" * LENGTH
    whole = accepted(stack, "GET", "/all-notes").json()
    assert sorted(row["size"] for row in whole) == sorted([19, *range(1, ROWS + 1)])


def note(size, length):
    return {"size": size, **{f"t{column}": "x" * length for column in range(COLUMNS)}}


def accepted(stack, method, path, body=None):
    """The answer, once it is not 503 or 429 any more."""

    def attempt():
        answer = stack.request(method, path, body)
        return None if answer.status in (429, 503) else answer

    answer = until(attempt, f"{method} {path} is answered")
    assert answer.status in (200, 201), answer
    return answer


@contextlib.contextmanager
def unread(port, paths):
    """Requests whose responses have begun and are not read, each from an address of its own."""
    with contextlib.ExitStack() as opened:
        poll = select.poll()
        for number, path in enumerate(paths):
            one = opened.enter_context(socket.socket())
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.bind((f"127.0.{1 + number // 200}.{1 + number % 200}", 0))
            one.connect(("127.0.0.1", port))
            one.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            poll.register(one, select.POLLIN)
        until(lambda: len(poll.poll(0)) == len(paths), "all responses have begun")
        yield
