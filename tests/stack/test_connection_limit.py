"""Very many clients that occupy nginx: silent connections, and bodies that do not end."""

import contextlib
import http.client
import resource
import socket
import threading

import pytest

import support
from support import Nginx, StandIn, reply, until

# With this descriptor limit nginx accepts 4,000 connections.
FEW_DESCRIPTORS = ["prlimit", "--nofile=4128"]
SILENT = 6000

# linux/in.h. Otherwise an address has its 28,000 ports only once for the whole machine.
IP_BIND_ADDRESS_NO_PORT = 24

BEGUN = b"GET / HTTP/1.1\r\nHost: loc"


@pytest.fixture
def directory():
    with support.short_directory() as one:
        yield one


@pytest.fixture(autouse=True)
def descriptors():
    """Raises the descriptor limit, because this process holds the client ends of the connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def silent_connections(port, addresses, part, family=socket.AF_INET):
    """A burst of connections from several local addresses, each of which sends part of a header or nothing."""
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(socket.socket(family)) for _ in range(SILENT)]
        for number, one in enumerate(clients):
            one.setblocking(False)
            if family == socket.AF_INET:
                one.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
                one.bind((f"127.0.0.{2 + number % addresses}", 0))
        place = ("127.0.0.1" if family == socket.AF_INET else "::1", port)
        for one in clients:
            one.connect_ex(place)
            with contextlib.suppress(OSError):  # a refused connection is never established
                one.send(part)
        yield


@contextlib.contextmanager
def answers(nginx):
    """The answers to a client with another address: statuses, and errors as text."""
    seen, ended = [], threading.Event()

    def ask():
        while not ended.is_set():
            try:
                seen.append(nginx.request("GET", "/hello").status)
            except (OSError, http.client.HTTPException) as error:
                seen.append(repr(error))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield seen
    finally:
        ended.set()
        asking.join()


@contextlib.contextmanager
def limited_nginx(directory, **settings):
    """nginx with few connections in front of a server that answers."""
    server = StandIn(directory / "run" / "pycrudapi.sock", lambda connection, head: reply(connection))
    nginx = Nginx(directory, FEW_DESCRIPTORS, **{"NGINX_WORKERS": 1, **settings})
    try:
        yield nginx
    finally:
        nginx.stop()
        server.close()


def attack(nginx, *arguments):
    """Sends requests while silent connections are opened and held, and asserts that they are answered."""
    with answers(nginx) as seen, silent_connections(*arguments):
        before = len(seen)
        until(lambda: len(seen) > before + 100, "answers beside silent connections")
        until(lambda: "dropping new connections" in nginx.process.output, "the kernel drops more of them")
    assert set(seen) == {200}
    assert "[alert]" not in nginx.process.output


@pytest.mark.parametrize("part", [b"", BEGUN], ids=["nothing", "half a header"])
@pytest.mark.parametrize("addresses", [1, 5, 200])
def test_silent_connections_break_no_request_of_others(directory, addresses, part):
    with limited_nginx(directory) as nginx:
        attack(nginx, nginx.port, addresses, part)
        # Refused clients are served again when there are few connections.
        with socket.create_connection(("127.0.0.1", nginx.port), 30, ("127.0.0.2", 0)) as again:
            again.sendall(b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert again.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize("part", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "half a handshake"])
def test_silent_connections_to_the_port_of_tls_break_no_request_of_others(directory, part):
    with limited_nginx(directory, TLS_SELF_SIGNED="true") as nginx:
        attack(nginx, nginx.https_port, 1, part)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_silent_connections_over_ipv6_break_no_request_of_others(directory):
    with limited_nginx(directory) as nginx:
        attack(nginx, nginx.port, 1, BEGUN, socket.AF_INET6)


def test_a_trusted_proxy_is_never_refused(directory):
    with limited_nginx(directory, TRUSTED_PROXIES="127.0.0.2") as nginx:
        with silent_connections(nginx.port, 1, b""):
            until(lambda: "reusing connections" in nginx.process.output, "nginx closes silent ones")
            assert nginx.request("GET", "/hello").status == 200
        assert "dropping new connections" not in nginx.process.output


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
                # nginx handles connections in the order of their arrival.
                connection, _ = server.accept()
                with connection:
                    assert connection.recv(3).decode() == (method[:3] if first != "GET" else "GET")
        finally:
            nginx.stop()
