"""The status page of nginx for a metrics exporter: on loopback only, on its own port."""

import re
import socket

import support
from support import reply, request, until


def ok(connection, _head):
    reply(connection)


def listeners(port):
    """The addresses that have a listener on a port, in the format of the kernel."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(table) as lines:
            for fields in map(str.split, list(lines)[1:]):
                address, _, number = fields[1].partition(":")
                if fields[3] == "0A" and int(number, 16) == port:
                    found.append(address)
    return found


def with_status(nginx):
    """nginx with a status page, and its port. nginx inherits the public ports, and opens this one a moment later."""
    port = support.free_port()
    server = nginx(ok, NGINX_STATUS_PORT=port)
    until(lambda: listeners(port), f"somebody listens:\n{server.process.output}")
    return server, port


def test_the_status_counts_connections_and_requests(nginx):
    server, port = with_status(nginx)
    before = int(re.search(r"\n\s*\d+ \d+ (\d+)", request(port, "GET", "/stub_status").body.decode())[1])
    for _ in range(5):
        server.request("GET", "/")
    said = request(port, "GET", "/stub_status").body.decode()
    assert said.startswith("Active connections: "), said
    # This request counts, too.
    assert int(re.search(r"\n\s*\d+ \d+ (\d+)", said)[1]) == before + 6, said


def test_the_status_is_on_this_machine_alone(nginx):
    server, port = with_status(nginx)
    assert listeners(port) == [f"{int.from_bytes(socket.inet_aton('127.0.0.1'), 'little'):08X}"]
    assert request(port, "GET", "/").status == 404
    # The public port forwards the path to the server, regardless of the host name.
    for name in ("127.0.0.1", f"127.0.0.1:{port}", "localhost"):
        assert server.request("GET", "/stub_status", headers={"host": name}).body == b"ok"


def test_there_is_no_status_unless_it_is_wanted(nginx):
    server = nginx(ok)
    configuration = (server.run_dir / "nginx" / "nginx.conf").read_text()
    assert "include status.conf" not in configuration
