"""How nginx processes requests and answers: identity, retries, compression, streaming, logs."""

import contextlib
import gzip
import os
import pathlib
import pwd
import re
import signal
import socket
import subprocess
import threading

import pytest

import support
from support import PROGRAM, assert_problem, clean_environment, open_to_all, raw, reply, until


def ok(connection, _head):
    reply(connection)


def sent_header(head, name):
    """The values of a header that the server received."""
    return [
        line.partition(":")[2].strip() for line in head.split("\r\n")[1:] if line.lower().startswith(name + ":")
    ]


# --- identity -----------------------------------------------------------------------------------------------------


def test_a_request_id_is_passed_through_to_the_server_the_answer_and_the_log(nginx):
    server = nginx(ok)
    answer = server.request("GET", "/id", headers={"x-request-id": "abc-123"})
    assert answer.headers["x-request-id"] == "abc-123"
    assert sent_header(server.stand_in.requests[0], "x-request-id") == ["abc-123"]
    assert server.access_log("/id")[0]["request_id"] == "abc-123"


@pytest.mark.parametrize("unsafe", ["", "a b", 'quote"', "x" * 129, "semi;colon"])
def test_a_request_id_that_is_not_plain_is_replaced(nginx, unsafe):
    server = nginx(ok)
    made = server.request("GET", "/id", headers={"x-request-id": unsafe}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert sent_header(server.stand_in.requests[0], "x-request-id") == [made]


def test_the_servers_own_request_id_header_is_not_doubled(nginx):
    def with_id(connection, head):
        identifier = sent_header(head, "x-request-id")[0]
        reply(connection, headers=[f"X-Request-Id: {identifier}", "X-Content-Type-Options: nosniff"])

    headers = nginx(with_id).request("GET", "/id", headers={"x-request-id": "one"}).headers
    assert (headers["x-request-id"], headers["x-content-type-options"]) == ("one", "nosniff")


def test_errors_made_by_nginx_carry_the_request_id_too(nginx):
    assert nginx().request("GET", "/", headers={"x-request-id": "mine"}).headers["x-request-id"] == "mine"


def test_the_trace_of_the_client_reaches_the_server_and_the_log(nginx):
    server = nginx(ok)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    server.request("GET", "/trace", headers={"traceparent": trace})
    assert sent_header(server.stand_in.requests[0], "traceparent") == [trace]
    assert server.access_log("/trace")[0]["traceparent"] == trace


def test_a_trace_begun_by_the_server_is_logged(nginx):
    server = nginx(lambda connection, _head: reply(connection, headers=["traceparent: 00-aa-bb-01"]))
    server.request("GET", "/trace")
    assert server.access_log("/trace")[0]["traceparent"] == "00-aa-bb-01"


def test_a_client_cannot_forge_its_address_or_scheme(nginx):
    server = nginx(ok)
    server.request("GET", "/", headers={"x-forwarded-for": "192.0.2.1", "x-forwarded-proto": "https"})
    assert sent_header(server.stand_in.requests[0], "x-forwarded-for") == ["127.0.0.1"]
    assert sent_header(server.stand_in.requests[0], "x-forwarded-proto") == ["http"]


def test_a_trusted_proxy_forwards_address_and_scheme(nginx):
    server = nginx(ok, TRUSTED_PROXIES="127.0.0.1, 10.0.0.0/8")
    forwarded = {"x-forwarded-for": "203.0.113.9, 192.0.2.1, 10.1.1.1", "x-forwarded-proto": "https"}
    server.request("GET", "/", headers=forwarded)
    # From the right, past the trusted ones; any client may have written the addresses further left.
    assert sent_header(server.stand_in.requests[0], "x-forwarded-for") == ["192.0.2.1"]
    assert sent_header(server.stand_in.requests[0], "x-forwarded-proto") == ["https"]


def test_the_host_and_the_path_reach_the_server_as_sent(nginx):
    server = nginx(ok)
    server.raw(b"GET /a%2Fb//c?q=%20 HTTP/1.1\r\nHost: example.org:8080\r\n\r\n")
    assert server.stand_in.requests[0].startswith("GET /a%2Fb//c?q=%20 HTTP/1.1\r\n")
    assert sent_header(server.stand_in.requests[0], "host") == ["example.org:8080"]


def test_connections_to_the_server_are_kept(nginx):
    server = nginx(ok, NGINX_WORKERS=1)
    for _ in range(20):
        server.request("GET", "/")
    assert len(server.stand_in._connections) == 1


# --- retries ------------------------------------------------------------------------------------------------------


def breaks_first(connection, head, broken):
    """Breaks the connection of the first request for each path, as a killed server does."""
    path = head.split()[1]
    if path not in broken:
        broken.add(path)
        return "close"
    reply(connection, headers=["Content-Type: text/plain"])
    return None


@pytest.mark.parametrize("method", ("GET", "HEAD", "OPTIONS"))
def test_a_request_that_only_reads_survives_the_death_of_the_server(nginx, method):
    broken = set()
    server = nginx(lambda connection, head: breaks_first(connection, head, broken))
    assert server.request(method, "/x").status == 200
    assert [head.split()[0] for head in server.stand_in.requests] == [method, method]
    assert server.access_log("/x")[0]["upstream_status"] == "502, 200"


def test_a_request_survives_when_every_kept_connection_is_dead(nginx):
    """The second attempt must not use another keep-alive connection to the server that has just been killed."""
    together = threading.Barrier(8)

    def meet(connection, head):
        if "/fill" in head:
            together.wait(30)
        reply(connection)

    server = nginx(meet, NGINX_WORKERS=1)
    path = server.stand_in.path

    def fill():
        threads = [threading.Thread(target=server.request, args=("GET", "/fill")) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    for _ in range(5):
        fill()
        os.kill(server.process.pid, 0)
        server.stand_in.close()
        server.stand_in = support.StandIn(path, meet)
        assert server.request("GET", "/x").status == 200
    server.stand_in.close()


def test_several_upstreams_share_the_load_and_an_unreachable_one_is_skipped(nginx, directory):
    names = ("a", "b", "c")
    servers = {
        name: support.StandIn(directory / f"{name}.sock", lambda connection, _head, name=name: reply(connection, name.encode()))
        for name in names
    }
    front = nginx(UPSTREAM=",".join(f"unix:{directory}/{name}.sock" for name in names), NGINX_WORKERS=1)
    assert {front.request("GET", "/").body for _ in range(12)} == {b"a", b"b", b"c"}
    servers["b"].close()
    assert {front.request("GET", "/").body for _ in range(12)} == {b"a", b"c"}
    # Nothing of these was sent to the unreachable server, so they may be sent to the next.
    assert {front.request("POST", "/", body=b"{}").body for _ in range(12)} == {b"a", b"c"}
    for one in servers.values():
        one.close()


# --- compression --------------------------------------------------------------------------------------------------

ACCEPT = {"accept-encoding": "gzip"}


@pytest.mark.parametrize("kind", ["application/json", "text/csv", "application/x-ndjson", "application/problem+json"])
def test_a_streamed_list_is_compressed(nginx, kind):
    server = nginx(lambda connection, _head: reply(connection, b"[1,2,3]" * 1000, headers=[f"Content-Type: {kind}"], length=False))
    answer = server.request("GET", "/list", headers=ACCEPT)
    assert answer.headers["content-encoding"] == "gzip"
    assert "accept-encoding" in answer.headers["vary"].lower()
    assert gzip.decompress(answer.body) == b"[1,2,3]" * 1000
    assert "content-encoding" not in server.request("GET", "/list").headers


def test_a_single_resource_keeps_its_strong_etag_even_at_its_largest(nginx):
    # 150 characters that JSON escapes with six bytes each, and the longest numbers.
    largest = b'{"name":"' + 150 * rb"\u0001" + b'"' + b" " * 400 + b"}"

    def one(connection, _head):
        reply(connection, largest, headers=["Content-Type: application/json", 'ETag: "v1"'])

    answer = nginx(one).request("GET", "/v1/passengers/x", headers=ACCEPT)
    assert "content-encoding" not in answer.headers
    assert answer.headers["etag"] == '"v1"'
    assert answer.body == largest


def test_the_etag_of_a_compressed_list_becomes_weak(nginx):
    def many(connection, _head):
        reply(connection, b"[1]" * 1000, headers=["Content-Type: application/json", 'ETag: "v1"'], length=False)

    assert nginx(many).request("GET", "/list", headers=ACCEPT).headers["etag"] == 'W/"v1"'


# --- streaming ----------------------------------------------------------------------------------------------------


def test_a_slow_reader_of_a_big_list_holds_the_server_back_and_fills_no_file(nginx):
    total, sent = 64 << 20, [0]

    def big(connection, _head):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent[0] < total:
            sent[0] += connection.send(b"x" * 65536)

    server = nginx(big)
    with socket.create_connection(("127.0.0.1", server.port), 30) as client:
        client.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        seen = [-1]

        def stands_still():
            seen.append(sent[0])
            return len(seen) > 20 and len(set(seen[-20:])) == 1 and seen[-1] > 0

        until(stands_still, "the server is held back")
        assert sent[0] < 16 << 20
        received = 0
        while chunk := client.recv(1 << 20):
            received += len(chunk)
    assert received > total
    files = [file for file in (server.run_dir / "nginx").rglob("*") if file.parent.name in ("proxy", "body")]
    assert files == []


def test_an_upload_reaches_the_server_only_when_it_is_whole(nginx):
    server = nginx(ok)
    with socket.create_connection(("127.0.0.1", server.port), 30) as client:
        client.sendall(b"PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n12345")
        # A later request overtakes it: if the first were forwarded at once, the stand-in would have received it by then.
        assert server.request("GET", "/y").status == 200
        assert [head.split()[1] for head in server.stand_in.requests] == ["/y"]
        client.sendall(b"67890")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    assert [head.split()[1] for head in server.stand_in.requests] == ["/y", "/x"]


# --- logs, users, files -------------------------------------------------------------------------------------------


def test_each_request_is_one_line_of_json_with_times_and_sizes(nginx):
    server = nginx(ok)
    server.request("POST", "/log?a=%22", body=b"12345", headers={"user-agent": 'a "quoted" agent'})
    line = server.access_log("/log?a=%22")[0]
    assert (line["method"], line["status"], line["client"], line["upstream_status"]) == ("POST", 200, "127.0.0.1", "200")
    assert line["bytes_sent"] > 0 and line["bytes_received"] > 5
    assert 0 <= float(line["upstream_duration_s"]) <= line["duration_s"] + 0.01
    assert line["user_agent"] == 'a "quoted" agent'


def test_bytes_that_are_no_utf8_do_not_spoil_the_log(nginx):
    server = nginx(ok)
    server.raw(b"GET /caf\xc3\xa9 HTTP/1.1\r\nHost: x\r\nUser-Agent: \xe9\r\ntraceparent: \xe9\r\n\r\n")
    server.raw(b"GET /caf\xe9 HTTP/1.1\r\nHost: x\r\n\r\n")
    line = server.access_log("/caf\u00e9")[0]
    assert (line["user_agent"], line["traceparent"]) == ("(not ASCII)", "")
    assert server.access_log("(not UTF-8)")[0]["status"] == 200


def test_the_log_names_the_method_of_a_request_that_failed_too(nginx):
    server = nginx()
    server.request("POST", "/failed", body=b"{}")
    assert server.access_log("/failed")[0]["method"] == "POST"


def test_probes_are_logged_only_when_they_fail(nginx):
    healthy = [True]

    def probe(connection, _head):
        reply(connection, status="200 OK" if healthy[0] else "503 Service Unavailable")

    server = nginx(probe)
    server.request("GET", "/readyz", headers={"user-agent": "calm"})
    healthy[0] = False
    server.request("GET", "/readyz")
    assert [line["status"] for line in server.access_log("/readyz")] == [503]
    assert server.access_log("/readyz")[0]["user_agent"] == ""


def test_the_access_log_can_be_switched_off(nginx):
    server = nginx(ok, ACCESS_LOG="off")
    server.request("GET", "/quiet")
    server.stop()
    assert "/quiet" not in server.process.output


def test_a_clean_start_and_stop_print_nothing(nginx):
    server = nginx(ok)
    server.stop()
    assert [line for line in server.process.lines if not _is_expected(line)] == []


def test_the_version_of_nginx_is_not_told(nginx):
    assert nginx(ok).request("GET", "/").headers["server"] == "nginx"


def test_it_listens_on_ipv6_where_there_is_any(nginx):
    server = nginx(ok)
    try:
        with socket.create_connection(("::1", server.port), 10) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert b" 200 " in connection.recv(100)
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")


def test_an_ordinary_user_can_run_it_and_only_run_dir_is_written(directory):
    if os.geteuid() != 0:
        pytest.skip("the other tests of this run are by an ordinary user already")
    nobody = pwd.getpwnam("nobody")
    # A copy, because the checkout may be readable only by root.
    subprocess.run(["cp", PROGRAM, directory], check=True)
    run_dir = directory / "run"
    run_dir.mkdir(mode=0o700)
    os.chown(run_dir, nobody.pw_uid, nobody.pw_gid)
    open_to_all(directory)
    port = support.free_port()
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*") if run_dir not in (path, *path.parents)}
    process = support.Process(
        [directory / "pycrudapi", "nginx"],
        clean_environment(RUN_DIR=run_dir, HTTP_PORT=port),
        user=nobody,
    )
    try:
        answer = until(lambda: not process.running or _answer(port), "nginx as nobody answers")
        assert process.running, process.output
        assert_problem(answer, 502, "bad-gateway")
        owners = {os.stat(f"/proc/{pid}").st_uid for pid in support.processes_of(process.pid, run_dir)}
        assert owners == {nobody.pw_uid}
        written = set()
        for pid in support.processes_of(process.pid, run_dir):
            for descriptor in pathlib.Path(f"/proc/{pid}/fd").iterdir():
                target = ""
                with contextlib.suppress(FileNotFoundError):  # the connection of the request, which has been closed meanwhile
                    target = os.readlink(descriptor)
                if target.startswith("/") and not target.startswith(("/dev/", "/proc/", str(run_dir))):
                    written.add(target)
        assert written == set()
    finally:
        process.signal(15)
        process.wait()
    after = {path: path.stat().st_mtime_ns for path in directory.rglob("*") if run_dir not in (path, *path.parents)}
    assert after == before
    # Nothing is logged about a user or a file.
    assert [line for line in process.lines if not _is_expected(line)] == []


def _is_expected(line):
    """Whether a log line is expected: failed attempts without a server, and notices about inherited sockets at the start."""
    return line.startswith("{") or "connect() to unix" in line or "using inherited sockets" in line


def _answer(port):
    try:
        return raw(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", timeout=5)
    except OSError:
        return None


# --- settings -----------------------------------------------------------------------------------------------------

WRONG = [
    ("RATE_LIMIT", "fast"),
    ("RATE_LIMIT", "0"),
    ("RATE_LIMIT", "-1"),
    ("RATE_LIMIT", "\u0661"),
    ("CONN_LIMIT", "1e3"),
    ("CONN_LIMIT", "65536"),
    ("HTTP_PORT", "0"),
    ("HTTP_PORT", "65536"),
    ("HTTP_PORT", "8080; return 200"),
    ("MAX_BODY_BYTES", "1m"),
    ("MAX_BODY_BYTES", "1023"),
    ("CORS_ALLOW_ORIGINS", "https://app.example/"),
    ("CORS_ALLOW_ORIGINS", 'https://app.example"; return 200'),
    ("CLIENT_TIMEOUT_MS", "10s"),
    ("UPSTREAM_TIMEOUT_MS", "never"),
    ("DRAIN_TIMEOUT_MS", "30001"),
    ("NGINX_WORKERS", "many"),
    ("DRAIN_TIMEOUT_MS", "-1"),
    ("PARENT_PID", "0"),
    ("TLS_DIR", "relative"),
    ("BULK_TIMEOUT_MS", "1"),
    ("ACCESS_LOG", "yes"),
    ("ACCESS_LOG", b"\xff"),
    ("UPSTREAM", "one\ntwo"),
    ("UPSTREAM", "localhost"),
    ("UPSTREAM", "host:0"),
    ("UPSTREAM", "host:99999"),
    ("UPSTREAM", "unix:relative.sock"),
    ("UPSTREAM", "a:80;,b:80"),
    ("UPSTREAM", "unix:/" + "x" * 110),
    ("TRUSTED_PROXIES", "10.0.0.0/33"),
    ("TRUSTED_PROXIES", "example.org"),
    ("TLS_SELF_SIGNED", "yes"),
    ("TLS_CERT", "/nowhere/tls.crt"),
    ("RUN_DIR", "relative"),
    ("RUN_DIR", "/tmp/with $dollar"),
    ("RUN_DIR", "/tmp/" + "x" * 110),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_setting_stops_the_start_and_is_named(directory, name, value):
    environment = clean_environment(**{"RUN_DIR": directory / "run", "TLS_KEY": __file__ if name == "TLS_CERT" else ""})
    environment[name] = value
    done = subprocess.run(
        [PROGRAM, "nginx"], env=environment, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(name), done.stderr
    assert f"example: {name}=" in done.stderr


def test_an_empty_variable_is_an_unset_one(directory):
    """Compose files and manifests set unused variables to an empty string."""
    explained = subprocess.run([PROGRAM, "nginx", "--help"], capture_output=True, text=True, check=True).stdout
    names = set(re.findall(r"\[env: (\w+)\]", explained)) - {"RUN_DIR"}
    assert {"UPSTREAM", "TLS_DIR", "DRAIN_TIMEOUT_MS", "CORS_ALLOW_ORIGINS"} <= names
    rendered = []
    for settings in ({}, dict.fromkeys(names, "")):
        environment = clean_environment(RUN_DIR=directory / "run", **settings)
        subprocess.run([PROGRAM, "nginx", "check"], env=environment, check=True)
        files = (directory / "run" / "nginx").glob("*.conf")
        rendered.append({file.name: file.read_text() for file in files})
    assert rendered[0] == rendered[1]


def test_a_drain_of_no_time_waits_for_no_answer(nginx):
    """The server accepts 0, too; for nginx it would mean no limit."""
    server = nginx(lambda _connection, _head: None, DRAIN_TIMEOUT_MS=0, UPSTREAM_TIMEOUT_MS=3_600_000)
    with socket.create_connection(("127.0.0.1", server.port), 30) as waiting:
        waiting.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: server.stand_in.requests, "the request is with the server")
        assert server.stop(signal.SIGQUIT) == 0
        assert not waiting.recv(1000).startswith(b"HTTP/1.1 200")


def test_half_a_certificate_is_named(directory):
    environment = clean_environment(RUN_DIR=directory / "run", TLS_CERT=__file__)
    done = subprocess.run(
        [PROGRAM, "nginx"], env=environment, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr.startswith("TLS_KEY:")) == (2, True), done


def test_a_newer_nginx_gets_http2_as_a_directive_of_its_own(directory):
    """Debian 13's nginx warns about the old form and Debian 12's does not support the new one."""
    for version, old_form in (("1.22.1", True), ("1.26.3", False)):
        fake = directory / "bin" / "nginx"
        fake.parent.mkdir(exist_ok=True)
        fake.write_text(f'#!/bin/sh\n[ "$1" = -v ] && echo "nginx version: nginx/{version}" >&2\nexit 0\n')
        fake.chmod(0o755)
        environment = clean_environment(
            RUN_DIR=directory / "run", TLS_SELF_SIGNED="true", PATH=f"{fake.parent}:{os.environ['PATH']}"
        )
        subprocess.run([PROGRAM, "nginx", "check"], env=environment, check=True)
        rendered = (directory / "run" / "nginx" / "tls.conf").read_text()
        assert ("ssl http2 default_server" in rendered) is old_form
        assert ("\nhttp2 on;" in rendered) is not old_form


def test_headers_as_long_as_those_of_a_page_are_handed_on(nginx):
    """Two links of 8,000 bytes, the maximum length that the server generates (src/http/link.rs)."""
    link = ", ".join(f'<{"x" * 8000}>; rel="{relation}"' for relation in ("next", "prev"))
    server = nginx(lambda connection, _head: reply(connection, headers=[f"Link: {link}"]))
    answer = server.request("GET", "/v1/passengers")
    assert (answer.status, answer.headers["link"]) == (200, link)
