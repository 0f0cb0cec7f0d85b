"""What very many clients hold of nginx: connections that say nothing, and bodies that do not end."""

import contextlib
import socket
import threading

import pytest

import support
from support import Nginx, StandIn, reply, until

# With so few descriptors nginx has room for a thousand connections.
FEW_DESCRIPTORS = ["prlimit", "--nofile=1200"]
SILENT = 2500

BEGUN = b"GET / HTTP/1.1\r\nHost: loc"


@pytest.fixture
def directory():
    with support.short_directory() as one:
        yield one


@contextlib.contextmanager
def silent_connections(port, addresses, part):
    """Connections of some addresses of this machine, of which each has sent a part of a header or nothing."""
    opened = []
    try:
        for number in range(SILENT):
            one = socket.socket()
            one.setblocking(False)
            one.bind((f"127.0.0.{2 + number % addresses}", 0))
            with contextlib.suppress(BlockingIOError):
                one.connect(("127.0.0.1", port))
            opened.append(one)
            with contextlib.suppress(OSError):  # one that is kept out never becomes a connection
                one.send(part)
        yield
    finally:
        for one in opened:
            one.close()


@pytest.mark.parametrize("part", [b"", BEGUN])
@pytest.mark.parametrize("addresses", [1, 5])
def test_silent_connections_break_no_request_of_others(directory, addresses, part):
    server = StandIn(directory / "run" / "pycrudapi.sock", lambda connection, head: reply(connection))
    nginx = Nginx(directory, FEW_DESCRIPTORS, NGINX_WORKERS=1)
    statuses, ended = [], threading.Event()

    def ask():
        while not ended.is_set():
            try:
                statuses.append(nginx.request("GET", "/hello").status)
            except OSError as error:
                statuses.append(repr(error))

    asking = threading.Thread(target=ask)
    try:
        asking.start()
        with silent_connections(nginx.port, addresses, part):
            before = len(statuses)
            until(lambda: len(statuses) > before + 100, "answers beside silent connections")
            until(lambda: "get no more" in nginx.process.output, "the kernel keeps them out")
        ended.set()
        asking.join()
        assert set(statuses) == {200}
        # Whoever was kept out is let in again when there is room.
        with socket.create_connection(("127.0.0.1", nginx.port), 30, ("127.0.0.2", 0)) as again:
            again.sendall(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert again.recv(12) == b"HTTP/1.1 200"
        assert "[alert]" not in nginx.process.output
    finally:
        ended.set()
        nginx.stop()
        server.close()


def test_a_trusted_proxy_is_never_kept_out(directory):
    server = StandIn(directory / "run" / "pycrudapi.sock", lambda connection, head: reply(connection))
    nginx = Nginx(directory, FEW_DESCRIPTORS, NGINX_WORKERS=1, TRUSTED_PROXIES="127.0.0.2")
    try:
        with silent_connections(nginx.port, 1, b""):
            until(lambda: "reusing connections" in nginx.process.output, "nginx closes silent ones")
            assert nginx.request("GET", "/hello").status == 200
        assert "get no more" not in nginx.process.output
    finally:
        nginx.stop()
        server.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize(("length", "first"), [(15_000, "GET"), (200_000, "the body's")])
def test_a_short_body_is_handed_on_whole_and_a_long_one_as_it_arrives(directory, method, length, first):
    path = directory / "run" / "pycrudapi.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.settimeout(support.DEADLINE_SECONDS)
        server.bind(str(path))
        path.chmod(0o666)
        support.open_to_all(path.parent)
        server.listen()
        nginx = Nginx(directory, NGINX_WORKERS=1)
        try:
            with (
                socket.create_connection(("127.0.0.1", nginx.port)) as begun,
                socket.create_connection(("127.0.0.1", nginx.port)) as whole,
            ):
                head = f"{method} /v1/passengers/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
                begun.sendall(head.encode() + b" " * 1000)
                whole.sendall(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
                # nginx works in the order in which they came.
                connection, _ = server.accept()
                with connection:
                    assert connection.recv(3).decode() == (method[:3] if first != "GET" else "GET")
        finally:
            nginx.stop()
