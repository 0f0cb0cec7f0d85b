"""Hundreds of concurrent slow readers and unfinished bodies within the memory limit of a container."""

import contextlib
import socket

import pytest

import crowd
from support import PASSENGER, Nginx, StandIn, reply, until

# An eighth of the memory limit, divided by the kernel's default socket buffer.
LONG_BODIES = 157


@pytest.fixture(scope="module")
def stack():
    with contextlib.ExitStack() as opened:
        try:
            one = opened.enter_context(crowd.stack_in_a_container())
        except crowd.NoControlGroup as error:
            pytest.skip(str(error))
        yield one


@pytest.mark.parametrize("addresses", [1, 200])
def test_nothing_is_killed_and_others_are_answered(stack, addresses):
    before, used = (stack.server_pid(), stack.nginx_pid()), 0
    for _ in range(3):
        with crowd.attack(stack.port, addresses) as opened:
            for _ in range(20):
                created = stack.request("POST", "/v1/passengers", PASSENGER)
                assert created.status == 201, created
                assert stack.request("GET", created.headers["location"]).status == 200
                # On a busy machine a list may wait for a session longer than CHECKOUT_TIMEOUT_MS.
                page = until(lambda: answered(stack, "/v1/passengers?limit=10"), "a page is answered")
                assert page.status == 200 and len(page.json()) == 10, page
                # The bodies continue as far as they are read.
                for one in opened:
                    with contextlib.suppress(OSError):
                        one.send(b" ")
            used = max(used, crowd.anonymous(stack.group))
    print(f"at most {crowd.most_used(stack.group)} MiB in use")
    assert crowd.killed(stack.group) == 0
    assert used <= crowd.ANONYMOUS, used
    assert (stack.server_pid(), stack.nginx_pid()) == before, stack.process.output[-3000:]


@pytest.mark.parametrize(("addresses", "handed_on"), [(1, LONG_BODIES // 4), (20, LONG_BODIES)])
def test_so_many_long_bodies_are_handed_on_and_more_are_refused(directory, addresses, handed_on):
    sent = 2 * LONG_BODIES
    head = b"POST /v1/passengers HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\nContent-Length: 100000\r\n\r\n"
    with contextlib.ExitStack() as opened:
        try:
            _, prefix = opened.enter_context(crowd.memory_group())
        except crowd.NoControlGroup as error:
            pytest.skip(str(error))
        server = StandIn(directory / "run" / "pycrudapi.sock", lambda connection, head: reply(connection))
        opened.callback(server.close)
        nginx = Nginx(directory, prefix, RATE_LIMIT="off")
        opened.callback(nginx.stop)
        clients = []
        for number in range(sent):
            one = opened.enter_context(socket.create_connection(("127.0.0.1", nginx.port), 30, (f"127.0.0.{2 + number % addresses}", 0)))
            one.sendall(head)
            one.setblocking(False)
            clients.append(one)

        def refused():
            return sum(one.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 429" for one in clients if has_answer(one))

        until(lambda: refused() == sent - handed_on, f"{sent - handed_on} are refused, not {refused()}")
        # A short body is not counted.
        assert nginx.request("POST", "/v1/passengers", PASSENGER).status == 200
        # A finished upload makes room for another one.
        for one in clients:
            if not has_answer(one):
                one.close()
                break
        assert until(lambda: nginx.request("POST", "/v1/passengers", b" " * 100_000).status == 200, "a place is left")


def answered(stack, path):
    """The answer; None if it is 503 with Retry-After."""
    answer = stack.request("GET", path)
    if answer.status != 503:
        return answer
    assert int(answer.headers["retry-after"]) > 0, answer
    return None


def has_answer(one):
    try:
        return bool(one.fileno() >= 0 and one.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
