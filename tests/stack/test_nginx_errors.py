"""Every error that nginx generates is problem+json with the form and codes of the server."""

import itertools
import json
import socket
import ssl
import threading

import h2.config
import h2.connection
import h2.events
import pytest

import support
from support import assert_problem, free_port, reply, request, until


def ok(connection, _head):
    reply(connection)


HOST = b"\r\nHost: x\r\n"
CHUNKED = b"POST / HTTP/1.1" + HOST + b"Transfer-Encoding: chunked\r\n"
FIELD = "a header field is malformed"

# (what is sent, what the problem mentions)
MALFORMED = {
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "use an http:// URL"),
    "a request line that is none": (b"NONSENSE\r\n\r\n", "a method, a target and a version"),
    "a method in small letters": (b"get / HTTP/1.1" + HOST + b"\r\n", "a method in capital letters"),
    "CONNECT": (b"CONNECT x:80 HTTP/1.1" + HOST + b"\r\n", "CONNECT"),
    "no such version": (b"GET / HTTP/one" + HOST + b"\r\n", "HTTP/1.1"),
    "a blank in the path": (b"GET /a b HTTP/1.1" + HOST + b"\r\n", "%20"),
    "blanks in the query": (b"GET /a?name=like.*b c d* HTTP/1.1" + HOST + b"\r\n", "%20"),
    "a tab in the path": (b"GET /a\tb HTTP/1.1" + HOST + b"\r\n", "a control character; percent-encode it"),
    "no slash": (b"GET passengers HTTP/1.1" + HOST + b"\r\n", "begin with /"),
    "no host in the target": (b"GET http:///x HTTP/1.1" + HOST + b"\r\n", "begin with /"),
    "bad percent encoding": (b"GET /%zz HTTP/1.1" + HOST + b"\r\n", "%25"),
    "a percent sign at the end": (b"GET /a% HTTP/1.1" + HOST + b"\r\n", "%25"),
    "a null byte in the path": (b"GET /%00 HTTP/1.1" + HOST + b"\r\n", "%00"),
    "a path above the root": (b"GET /../x HTTP/1.1" + HOST + b"\r\n", "above the root"),
    "a path above the root, encoded": (b"GET /a/%2e%2E/.%2e HTTP/1.1" + HOST + b"\r\n", "above the root"),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", "no Host header"),
    "an empty host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", "Host header"),
    "a host with a path": (b"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", "the Host header must be"),
    "two hosts": (b"GET / HTTP/1.1" + HOST + b"Host: y\r\n\r\n", FIELD),
    "a blank before the colon": (b"GET /%41?a=% HTTP/1.1" + HOST + b"X-A : b\r\n\r\n", FIELD),
    "a header on two lines": (b"GET / HTTP/1.1" + HOST + b"X-A: b\r\n c: d\r\n\r\n", FIELD),
    "a null byte in a header": (b"GET / HTTP/1.1" + HOST + b"X-A: b\0\r\n\r\n", FIELD),
    "two lengths": (b"POST / HTTP/1.1" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", "given once"),
    "two equal lengths": (b"POST / HTTP/1.1" + HOST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na", "given once"),
    "a length with a sign": (b"POST / HTTP/1.1" + HOST + b"Content-Length: +1\r\n\r\na", "one whole number"),
    "chunks in HTTP/1.0": (CHUNKED.replace(b"1.1", b"1.0") + b"\r\n0\r\n\r\n", "requires HTTP/1.1"),
    "a chunk size of 16 digits": (CHUNKED + b"\r\nffffffffffffffff\r\na", "not chunked"),
    "two transfer codings": (CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n", "is duplicated"),
    "a length and chunks": (CHUNKED + b"Content-Length: 1\r\n\r\n", "not be given together"),
    "a chunk that is none": (CHUNKED + b"\r\nzz\r\n", "not chunked"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_answers_400_and_says_what_is_wrong(nginx, name):
    server = nginx(ok)
    sent, named = MALFORMED[name]
    assert named in assert_problem(server.raw(sent), 400, "bad-request")["detail"]
    assert server.stand_in.requests == []


def over_http2(port, fields):
    """The status and body of the answer to these header fields, which are sent unchanged."""
    context = ssl._create_unverified_context()  # noqa: S323 - a certificate of its own
    context.set_alpn_protocols(["h2"])
    as_they_are = h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
    two = h2.connection.H2Connection(as_they_are)
    two.initiate_connection()
    two.send_headers(1, fields, end_stream=True)
    status, body = None, b""
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 30), server_hostname="localhost") as connection:
        connection.sendall(two.data_to_send())
        while True:
            for event in two.receive_data(connection.recv(65536)):
                if isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers)[b":status"])
                elif isinstance(event, h2.events.DataReceived):
                    body += event.data
                elif isinstance(event, h2.events.StreamEnded):
                    return status, json.loads(body)
                assert not isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated), event


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({":path": "/a b"}, ":path must begin with /"),
        ({":path": "a"}, ":path must begin with /"),
        ({":path": "/%zz"}, "% itself as %25"),
        ({":path": "/../x"}, "above the root"),
        ({":method": "get"}, ":method must be in capital letters"),
        ({":authority": "a/b"}, ":authority must be a host name"),
        ({":authority": None}, ":authority in HTTP/2"),
        ({"host": "other"}, "no header field host"),
    ],
)  # fmt: skip
def test_a_malformed_request_over_http2_answers_400_and_says_what_is_wrong(nginx, changed, named):
    server = nginx(ok, TLS_SELF_SIGNED="true")
    good = {":method": "GET", ":scheme": "https", ":authority": "localhost", ":path": "/x"}
    fields = [(name, value) for name, value in {**good, **changed}.items() if value is not None]
    status, problem = over_http2(server.https_port, fields)
    assert (status, problem["code"]) == (400, "bad-request")
    assert named in problem["detail"]
    assert server.stand_in.requests == []


def test_the_internal_error_pages_cannot_be_asked_for(nginx):
    assert_problem(nginx(ok).request("GET", "/_problem/502"), 404, "not-found")


def test_trace_answers_405_with_allow(nginx):
    answer = nginx(ok).request("TRACE", "/hello")
    assert_problem(answer, 405, "method-not-allowed")
    assert "GET" in answer.headers["allow"]


def test_a_body_over_the_limit_answers_413_however_it_is_sent(nginx):
    server = nginx(ok, MAX_BODY_BYTES=1024)
    assert server.request("POST", "/x", body=b"a" * 1024).status == 200
    assert_problem(server.request("POST", "/x", body=b"a" * 1025), 413, "body-too-large")
    chunks = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"400\r\n" + b"a" * 1024 + b"\r\n"
    assert server.raw(chunks + b"0\r\n\r\n").status == 200
    assert_problem(server.raw(chunks + b"1\r\na\r\n0\r\n\r\n"), 413, "body-too-large")


def test_a_body_over_the_limit_is_refused_before_it_is_sent(nginx):
    server = nginx(ok, MAX_BODY_BYTES=1024)
    head = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1025\r\nExpect: 100-continue\r\n\r\n"
    assert_problem(server.raw(head), 413, "body-too-large")


def test_a_body_within_the_limit_is_invited_when_the_client_asks_first(nginx):
    server = nginx(ok)
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        connection.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"{}")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_a_long_request_line_answers_414(nginx):
    server = nginx(ok)
    assert server.request("GET", "/x?" + "q" * 8000).status == 200
    assert_problem(server.request("GET", "/x?" + "q" * 9000), 414, "uri-too-long")


def test_a_long_header_answers_431(nginx):
    server = nginx(ok)
    assert_problem(server.request("GET", "/x", headers={"x-long": "h" * 9000}), 431, "headers-too-large")


def test_many_headers_answer_431(nginx):
    headers = {f"x-header-{number}": "h" * 4000 for number in range(10)}
    assert_problem(nginx(ok).request("GET", "/x", headers=headers), 431, "headers-too-large")


@pytest.mark.parametrize("coding", [b"brotli", b"gzip, chunked", b"identity"])
def test_an_unknown_transfer_coding_answers_501(nginx, coding):
    head = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: %s\r\n\r\n" % coding
    assert_problem(nginx(ok).raw(head), 501, "not-implemented")


def test_an_unknown_http_version_answers_505(nginx):
    assert_problem(nginx(ok).raw(b"GET / HTTP/3.0\r\nHost: x\r\n\r\n"), 505, "version-not-supported")


def test_plain_http_on_the_tls_port_answers_400(nginx):
    server = nginx(ok, TLS_SELF_SIGNED="true")
    problem = assert_problem(request(server.https_port, "GET", "/"), 400, "bad-request")
    assert "https://" in problem["detail"]


def test_requests_over_the_rate_answer_429_and_probes_are_not_counted(nginx):
    server = nginx(ok, RATE_LIMIT=5)
    assert server.request("GET", "/x").status == 200
    assert_problem(support.first_refused(lambda: server.request("GET", "/x")), 429, "too-many-requests")
    for probe in ("/livez", "/readyz"):
        assert [server.request("GET", probe).status for _ in range(20)] == 20 * [200]


def test_the_rate_is_restored_after_retry_after(nginx):
    server = nginx(ok, RATE_LIMIT=5)
    assert support.first_refused(lambda: server.request("GET", "/x")).status == 429
    until(lambda: server.request("GET", "/x").status == 200, "requests are answered again")


def test_connections_over_the_limit_answer_429(nginx):
    release = threading.Event()

    def hold(connection, _head):
        release.wait(30)
        reply(connection)

    server = nginx(hold, CONN_LIMIT=2)
    held = []
    try:
        for _ in range(2):
            held.append(socket.create_connection(("127.0.0.1", server.port), 30))
            held[-1].sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: len(server.stand_in.requests) == 2, "two requests are held")
        assert_problem(server.request("GET", "/x"), 429, "too-many-requests")
        release.set()
        for connection in held:
            assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        until(lambda: server.request("GET", "/x").status == 200, "a connection is free again")
    finally:
        release.set()
        for connection in held:
            connection.close()


def test_limits_that_are_off_refuse_nothing(nginx):
    server = nginx(ok, RATE_LIMIT="off", CONN_LIMIT="off")
    assert {server.request("GET", "/x").status for _ in range(300)} == {200}


def test_limits_count_the_forwarded_address_behind_a_trusted_proxy_only(nginx):
    numbers = itertools.count()

    def ask(server):
        number = next(numbers)
        return server.request("GET", "/x", headers={"x-forwarded-for": f"192.0.{number // 256 % 256}.{number % 256}"})

    server = nginx(ok, RATE_LIMIT=5, TRUSTED_PROXIES="127.0.0.0/8")
    assert {ask(server).status for _ in range(30)} == {200}
    server = nginx(ok, RATE_LIMIT=5, TRUSTED_PROXIES="10.0.0.0/8")
    assert support.first_refused(lambda: ask(server)).status == 429


def test_limits_count_an_ipv6_client_by_its_64_bits(nginx):
    numbers = itertools.count()

    def ask(server, address):
        return server.request("GET", "/x", headers={"x-forwarded-for": address.format(f"{next(numbers):x}")})

    server = nginx(ok, RATE_LIMIT=5, TRUSTED_PROXIES="127.0.0.0/8")
    for network in ("2001:db8::{}", "2001:db8:0:7:8:9:a:{}", "2001:db8:1:2::{}"):
        assert support.first_refused(lambda network=network: ask(server, network)).status == 429
    assert {ask(server, "2001:db8:2:{}::1").status for _ in range(30)} == {200}


def test_a_server_that_is_not_there_answers_502(nginx):
    server = nginx()
    assert_problem(server.request("GET", "/x"), 502, "bad-gateway")


def test_a_server_that_breaks_off_answers_502(nginx):
    server = nginx(lambda _connection, _head: "close")
    assert_problem(server.request("GET", "/x"), 502, "bad-gateway")


def test_a_server_that_takes_too_long_answers_504_and_is_not_asked_twice(nginx):
    release = threading.Event()
    server = nginx(lambda _connection, _head: release.wait(30), UPSTREAM_TIMEOUT_MS=300)
    assert_problem(server.request("POST", "/x", body=b"{}"), 504, "gateway-timeout")
    # nginx may have given up before the stand-in has read the request.
    until(lambda: server.stand_in.requests, "the server has the request")
    assert len(server.stand_in.requests) == 1
    release.set()


def test_a_host_that_is_not_there_answers_502_for_tcp_too(nginx):
    server = nginx(UPSTREAM=f"127.0.0.1:{free_port()}")
    assert_problem(server.request("GET", "/x"), 502, "bad-gateway")


def test_an_error_answer_to_head_has_no_body(nginx):
    answer = nginx().request("HEAD", "/x")
    assert answer.status == 502
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.body == b""


def test_the_servers_own_errors_pass_through(nginx):
    def not_found(connection, _head):
        reply(connection, b'{"mine":true}', "404 Not Found", ["Content-Type: application/problem+json"])

    answer = nginx(not_found).request("GET", "/x")
    assert (answer.status, answer.body) == (404, b'{"mine":true}')


def test_a_client_that_sends_its_header_too_slowly_is_cut_off(nginx):
    server = nginx(ok, CLIENT_TIMEOUT_MS=1000)
    assert server.raw(b"GET /x HTTP/1.1\r\nHost:") is None
    assert server.stand_in.requests == []


def test_a_client_that_sends_its_body_too_slowly_is_cut_off_and_logged_as_408(nginx):
    server = nginx(ok, CLIENT_TIMEOUT_MS=1000)
    # nginx has a 408 but never sends it: it resets the connection. The server never receives the request.
    assert server.raw(b"POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc") is None
    assert server.access_log("/slow")[0]["status"] == 408
    assert server.stand_in.requests == []


def test_a_client_that_reads_too_slowly_is_cut_off(nginx):
    def endless(connection, _head):
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    server = nginx(endless, CLIENT_TIMEOUT_MS=1000)
    with socket.create_connection(("127.0.0.1", server.port), 30) as connection:
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(10) == b"HTTP/1.1 2"
        # The client stops reading: only nginx's deadline ends this.
        assert server.access_log("/endless")[0]["status"] == 200
    assert "temporary file" not in server.process.output
