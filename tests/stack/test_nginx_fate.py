"""A change reaches at most one server, and the answer states what is known about its outcome."""

import concurrent.futures
import contextlib
import itertools
import socket
import struct
import threading

import httpx
import pytest

import support
from support import assert_problem, free_port, reply, request, until

SAFE = ("GET", "HEAD", "OPTIONS")
UNSAFE = ("POST", "PUT", "PATCH", "DELETE", "PURGE")
PATHS = ("/v1/passengers", "/v1/passengers/x", "/putpassenger/x", "/v1/steps")
BODIES = {"no body": None, "a small body": b"{}", "a large body": b"x" * 300_000}
UPSTREAMS = ("one unix", "one tcp", "three unix", "three tcp")


def ok(connection, _head):
    reply(connection)


def dies(_connection, _head):
    """Reads the whole request and closes without an answer."""
    return "close"


def resets(connection, _head):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return "close"


def begins_to_answer(connection, _head):
    connection.sendall(b"HTTP/1.1 200")
    return "close"


class Front:
    """nginx in front of stand-ins with the given handlers; None is an address on which no server listens."""

    def __init__(self, nginx, directory, kind, handlers, **settings):
        self.places, self.stand_ins, upstream = [], [], []
        for number, handler in enumerate(handlers):
            if kind == "tcp":
                place = free_port()
                upstream.append(f"127.0.0.1:{place}")
            else:
                place = directory / f"{number}.sock"
                upstream.append(f"unix:{place}")
            self.places.append(place)
            if handler is not None:
                self.stand_ins.append(support.StandIn(place, handler))
        self.nginx = nginx(
            UPSTREAM=",".join(upstream), NGINX_WORKERS=1, TLS_SELF_SIGNED="true", RATE_LIMIT="off", **settings
        )

    def seen(self, path):
        """How often a server received the request with this path."""
        heads = itertools.chain.from_iterable(one.requests for one in self.stand_ins)
        return sum(head.split()[1] == path for head in heads)

    def ask(self, protocol, method, path, body=None):
        if protocol == "HTTP/1.1":
            return self.nginx.request(method, path, body=body)
        with httpx.Client(http2=True, verify=False, timeout=30) as client:
            answer = client.request(method, f"https://localhost:{self.nginx.https_port}{path}", content=body)
            assert answer.http_version == protocol
            answer.status, answer.body = answer.status_code, answer.content
            return answer


@pytest.fixture
def front(nginx, directory):
    made = []

    def start(upstream, *handlers, **settings):
        count, kind = upstream.split()
        handlers = handlers if len(handlers) > 1 else handlers * {"one": 1, "three": 3}[count]
        made.append(Front(nginx, directory, kind, handlers, **settings))
        return made[-1]

    yield start
    for one in made:
        for stand_in in one.stand_ins:
            stand_in.close()


def assert_fate_unknown(answer, status=502, code="bad-gateway"):
    detail = assert_problem(answer, status, code)["detail"]
    assert "may or may not have been made" in detail and "GET" in detail and "Idempotency-Key" in detail


def assert_not_carried_out(answer):
    assert "was not carried out" in assert_problem(answer, 503, "unavailable")["detail"]


@pytest.mark.parametrize("protocol", ("HTTP/1.1", "HTTP/2"))
@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_a_change_is_sent_to_one_server_once(front, upstream, protocol):
    behaviour = [ok]
    one = front(upstream, lambda connection, head: behaviour[0](connection, head))
    requests = list(itertools.product((dies, resets, begins_to_answer), UNSAFE, PATHS, BODIES.values()))
    if upstream.startswith("three"):
        requests = requests[:: len(requests) // 10]  # after each failure nginx skips the server for up to two seconds
    for number, (death, method, path, body) in enumerate(requests):
        # On a keep-alive connection, as nearly all requests are.
        behaviour[0] = ok
        until(lambda: one.ask("HTTP/1.1", "GET", "/kept").status == 200, "a server is asked")
        behaviour[0] = death
        path = f"{path}?{number}"
        assert_fate_unknown(one.ask(protocol, method, path, body))
        assert one.seen(path) == 1, (death, method, path)


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("method", SAFE)
def test_a_read_is_retried_on_the_next_server(front, upstream, method):
    broken = set()

    def dies_once(connection, head):
        path = head.split()[1]
        if path in broken:
            return ok(connection, head)
        broken.add(path)
        return "close"

    one = front(upstream, dies_once)
    for path in PATHS:
        assert one.ask("HTTP/1.1", method, path).status == 200
        assert one.seen(path) == 2


@pytest.mark.parametrize("upstream", ("one unix", "three tcp"))
@pytest.mark.parametrize("method", UNSAFE)
def test_a_server_that_answers_too_late_is_the_only_one_asked(front, upstream, method):
    release = threading.Event()
    one = front(upstream, lambda _connection, _head: release.wait(30), UPSTREAM_TIMEOUT_MS=300)
    try:
        assert_fate_unknown(one.ask("HTTP/1.1", method, "/x", b"{}"), 504, "gateway-timeout")
        # nginx may have given up before a stand-in has read the request.
        until(lambda: one.seen("/x"), "a server has the request")
        assert one.seen("/x") == 1
    finally:
        release.set()


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_without_any_server_the_answer_states_that_nothing_was_done(front, upstream):
    one = front(upstream, None)
    for protocol, method, path in itertools.product(("HTTP/1.1", "HTTP/2"), UNSAFE, PATHS):
        answer = one.ask(protocol, method, path, b"{}")
        assert_not_carried_out(answer)
    for method in ("GET", "OPTIONS"):
        assert_problem(one.ask("HTTP/1.1", method, "/x"), 502, "bad-gateway")


@pytest.mark.parametrize("kind", ("unix", "tcp"))
def test_unreachable_servers_cost_no_request_if_one_answers(front, kind):
    one = front(f"three {kind}", None, None, ok)
    methods, numbers = itertools.cycle(UNSAFE), itertools.count()

    def ask(_turn):
        path = f"/x?{next(numbers)}"
        answer = one.ask("HTTP/1.1", next(methods), path, b"{}")
        return answer.status, one.seen(path)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert set(pool.map(ask, range(400))) == {(200, 1)}


@pytest.mark.parametrize("kind", ("unix", "tcp"))
def test_servers_that_all_failed_are_asked_again_as_soon_as_one_is_back(front, kind):
    one = front(f"three {kind}", None, None, None)
    for _ in range(4):
        assert one.ask("HTTP/1.1", "GET", "/x").status == 502
    one.stand_ins.append(support.StandIn(one.places[1], ok))
    for method in (*SAFE, *UNSAFE):
        assert one.ask("HTTP/1.1", method, "/back", b"{}").status == 200
    assert one.seen("/back") == len((*SAFE, *UNSAFE))


@pytest.mark.parametrize("method", UNSAFE)
def test_a_change_that_reached_the_second_server_is_not_sent_to_a_third(front, method):
    """The first is unreachable, so the second receives the request; it fails, and the third must not receive it."""
    one = front("three unix", None, dies, dies)
    answers = [one.ask("HTTP/1.1", method, f"/x?{number}", b"{}") for number in range(3)]
    assert_fate_unknown(answers[0])
    for number, answer in enumerate(answers):
        # For later requests all three may be skipped.
        assert one.seen(f"/x?{number}") == (1 if answer.status == 502 else 0), answer


@pytest.mark.parametrize("method", ("PUT", "DELETE"))
def test_dead_kept_connections_cost_no_request(nginx, method):
    """Nothing can be sent on them, so no request was applied."""
    together = threading.Barrier(8)

    def meet(connection, head):
        if "/fill" in head:
            together.wait(30)
        reply(connection)

    server = nginx(meet, NGINX_WORKERS=1)
    for _ in range(5):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: server.request("GET", "/fill"), range(8)))
        server.stand_in.close()
        server.stand_in = support.StandIn(server.stand_in.path, meet)
        assert server.request(method, "/x", body=b"{}").status == 200
        assert len(server.stand_in.requests) == 1
    server.stand_in.close()


def test_a_body_that_arrives_slowly_reaches_the_server_that_is_there_whole(front):
    bodies = []

    def keeps(connection, head):
        bodies.append(head)
        reply(connection)

    one = front("three unix", None, None, keeps)
    for number in range(4):
        with socket.create_connection(("127.0.0.1", one.nginx.port), 30) as client:
            head = f"PUT /x?{number} HTTP/1.1\r\nHost: x\r\nContent-Length: 8000\r\nExpect: 100-continue\r\n\r\n"
            client.sendall(head.encode())
            assert client.recv(100).startswith(b"HTTP/1.1 100 ")
            for _ in range(8):
                client.sendall(b"x" * 1000)
                # A later request overtakes it.
                assert request(one.nginx.port, "GET", "/y").status == 200
            assert client.recv(100).startswith(b"HTTP/1.1 200 ")
        assert one.seen(f"/x?{number}") == 1


def test_the_answers_of_the_server_pass_through(front):
    one = front("one unix", lambda connection, _head: reply(connection, b"mine", "418 I am a teapot"))
    for method in ("GET", "POST", "PUT", "DELETE"):
        answer = one.ask("HTTP/1.1", method, "/x")
        assert (answer.status, answer.body) == (418, b"mine")


def test_the_request_of_a_disconnected_client_is_not_retried(front):
    seen = threading.Event()

    def hangs(_connection, _head):
        seen.set()
        left.wait(30)
        return "close"

    left = threading.Event()
    one = front("one unix", hangs)
    with contextlib.closing(socket.create_connection(("127.0.0.1", one.nginx.port), 30)) as client:
        client.sendall(b"DELETE /x HTTP/1.1\r\nHost: x\r\n\r\n")
        assert seen.wait(30)
    left.set()
    assert one.nginx.access_log("/x")[0]["status"] in (499, 502)
    assert one.seen("/x") == 1
