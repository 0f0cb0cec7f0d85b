"""The whole stack through nginx: nginx, supervisord, the server and its PostgreSQL, and the effects of killing one of them."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import uuid

import httpx
import pytest

import support
from support import BINARY_DIR, DEADLINE_SECONDS, PASSENGER, assert_problem, until


@pytest.fixture(scope="module")
def shared():
    """A stack shared by the tests that inject no fault."""
    with support.running_stack(TLS_SELF_SIGNED="true") as one:
        yield one


# --- the API through nginx ----------------------------------------------------------------------------------------

URLS = {
    "short": ("/postpassenger", "/getpassenger/", "/putpassenger/", "/deletepassenger/"),
    "canonical": ("/v1/passengers", "/v1/passengers/", "/v1/passengers/", "/v1/passengers/"),
}


@pytest.mark.parametrize("path, method, status", [
    ("/v1/passengers", "POST", 415),  # forwarded as it arrives
    ("/v1/passengers", "PUT", 405),
    ("/postpassenger", "POST", 415),  # read completely first
])
def test_a_refusal_reaches_its_client_however_large_the_body_is(shared, path, method, status):
    for size in [3_000] * 200 + [900_000] * 20:
        answer = shared.request(method, path, body=b"x" * size, headers={"content-type": "text/xml"})
        assert answer.status == status, answer


@pytest.mark.parametrize("form", URLS)
def test_a_passenger_is_created_read_replaced_and_deleted(shared, form):
    create, read, replace, delete = URLS[form]
    created = shared.request("POST", create, body=PASSENGER)
    assert created.status == 201, created
    identifier = created.json()["uuid"]
    assert created.headers["location"].endswith(identifier)
    assert created.json() == {"uuid": identifier, **PASSENGER}
    assert shared.request("GET", read + identifier).json() == created.json()
    changed = {**PASSENGER, "name": "Changed", "age": None}
    assert shared.request("PUT", replace + identifier, body=changed).json() == {"uuid": identifier, **changed}
    assert shared.request("DELETE", delete + identifier).status == 204
    assert_problem(shared.request("GET", read + identifier), 404, "not-found")


def test_a_fresh_stack_holds_the_891_passengers(stack):
    assert len(stack().request("GET", "/passengerlist").json()) == 891


def test_health_and_errors_come_through(shared):
    assert shared.request("GET", "/hello").json() == {"message": "ok"}
    assert shared.request("GET", "/livez").status == 200
    assert shared.request("GET", "/readyz").status == 200
    assert_problem(shared.request("GET", "/nowhere"), 404, "not-found")
    assert_problem(shared.request("GET", "/getpassenger/not-a-uuid"), 400, "invalid-uuid")
    assert_problem(shared.request("POST", "/postpassenger", body=b"{", headers={"content-type": "application/json"}), 400, "invalid-json")
    problem = assert_problem(shared.request("POST", "/postpassenger", body={**PASSENGER, "age": -1}), 422, "invalid-fields")
    assert [error["pointer"] for error in problem["errors"]] == ["/age"]


def test_a_head_request_has_the_headers_and_no_body(shared):
    answer = shared.request("HEAD", "/hello")
    assert (answer.status, answer.body) == (200, b"")


def test_the_body_limit_of_nginx_and_of_the_server_is_the_same(shared):
    at_limit = b'"' + b"a" * (1_048_576 - 2) + b'"'
    kind = {"content-type": "application/json"}
    # The server has read and validated this one; nginx rejects one byte more.
    assert shared.request("POST", "/postpassenger", body=at_limit, headers=kind).status in (400, 422)
    assert_problem(shared.request("POST", "/postpassenger", body=at_limit + b" ", headers=kind), 413, "body-too-large")


def test_https_and_http2_reach_the_server(shared):
    with httpx.Client(http2=True, verify=False, timeout=DEADLINE_SECONDS) as client:
        answer = client.get(f"https://localhost:{shared.https_port}/hello")
    assert (answer.http_version, answer.json()) == ("HTTP/2", {"message": "ok"})


def lines_of_a_request(one, path="/hello", count=1, **more):
    """The log lines with the id of a request; waits until there are as many as expected and a later request is logged."""
    found = []
    for identifier, path in ((uuid.uuid4().hex, path), (uuid.uuid4().hex, "/hello")):
        trace = uuid.uuid4().hex
        headers = {"x-request-id": identifier, "traceparent": f"00-{trace}-b7ad6b7169203331-01", **more}
        assert one.request("GET", path, headers=headers).headers["x-request-id"] == identifier
        found.append((identifier, trace))
    (identifier, trace), (later, _) = found
    until(lambda: [line for line in one.process.lines if later in line], "the later request is in the log")
    # Another worker of nginx may have logged the later request, and the server logs asynchronously.
    own = lambda: [line for line in one.process.lines if identifier in line]  # noqa: E731
    until(lambda: len(own()) >= count, f"{count} lines of the request")
    lines = own()
    assert all(trace in line for line in lines), lines
    return lines


def test_a_request_is_logged_once_and_a_successful_probe_not_at_all(shared):
    (line,) = lines_of_a_request(shared)
    assert line.startswith('{"time"')
    for probe in ("/livez", "/readyz", "/readyz?exclude=postgres"):
        assert lines_of_a_request(shared, probe, count=0) == []


def test_a_request_with_credentials_is_logged_once_too_with_whose_they_are(stack):
    one = stack(AUTH="on")
    create = [BINARY_DIR / "pycrudapi", "token", "create", "--name", "logged", "--scope", "*:read"]
    made = subprocess.run(create, env=one.environment, check=True, capture_output=True, text=True, timeout=60)
    owner = f"token:{made.stderr.split(' id ')[1].split(',')[0]}"
    bearer = {"authorization": f"Bearer {made.stdout.strip()}"}
    for path, headers, status, principal in [
        ("/v1/passengers?limit=1", bearer, 200, owner),
        (f"/v1/passengers/{uuid.uuid4()}", bearer, 404, owner),
        ("/v1/tokens", bearer, 403, owner),
        ("/v1/passengers?limit=1", {}, 401, ""),
        ("/v1/passengers?limit=1", {"authorization": "Bearer wrong"}, 401, ""),
    ]:
        answer = one.request("GET", path, headers=headers)
        assert (answer.status, answer.headers.get("x-principal")) == (status, None), "it is for the log alone"
        (line,) = lines_of_a_request(one, path, **headers)
        line = json.loads(line)
        assert (line["log"], line["status"], line["principal"]) == ("nginx.access", status, principal)


def test_one_request_id_and_trace_join_the_answer_nginx_and_the_server(stack):
    one = stack(LOG="info,access=info")
    lines = lines_of_a_request(one, count=2)
    assert len(lines) == 2 and sum(line.startswith('{"time"') for line in lines) == 1
    assert one.stop() == 0


def test_a_healthy_start_is_no_error_to_postgres(shared):
    log = next(shared.data_dir.glob("**/postgres.log")).read_text()
    assert "database system is ready" in log
    assert not [line for line in log.splitlines() if re.search(r"\b(ERROR|FATAL|PANIC|WARNING):", line)], log


def test_the_list_is_compressed_and_one_passenger_is_not(shared):
    wanted = {"accept-encoding": "gzip"}
    assert shared.request("GET", "/passengerlist", headers=wanted).headers["content-encoding"] == "gzip"
    one = shared.request("GET", "/passengerlist").json()[0]["uuid"]
    assert "content-encoding" not in shared.request("GET", f"/getpassenger/{one}", headers=wanted).headers


def test_metrics_are_not_served_to_the_public(shared):
    assert_problem(shared.request("GET", "/metrics"), 404, "not-found")
    connection = http.client.HTTPConnection("127.0.0.1", shared.metrics_port, timeout=DEADLINE_SECONDS)
    connection.request("GET", "/metrics")
    assert connection.getresponse().status == 200
    connection.close()


def test_healthcheck_asks_through_nginx(shared):
    done = subprocess.run(
        [BINARY_DIR / "pycrudapi", "healthcheck"], env=shared.environment, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done


# --- under load ---------------------------------------------------------------------------------------------------


class Load:
    """Light load: some readers and writers, each with one request at a time; all answers are recorded."""

    READERS, WRITERS = 4, 2

    def __init__(self, one):
        self.stack = one
        self.reads, self.writes, self.acknowledged, self.unanswered = [], [], [], []
        self._over = threading.Event()
        # Existing passengers, so that each read is a 200 or a failure visible to the client.
        self._known = [row["uuid"] for row in one.request("GET", "/passengerlist").json()[:50]]
        self._threads = [threading.Thread(target=self._read, args=(number,)) for number in range(self.READERS)]
        self._threads += [threading.Thread(target=self._write) for _ in range(self.WRITERS)]
        for thread in self._threads:
            thread.start()

    def _one(self, kept, method, path, body=None):
        started = time.monotonic()
        identifier = uuid.uuid4().hex
        try:
            answer = self.stack.request(method, path, body=body, headers={"x-request-id": identifier})
            kept.append((started, time.monotonic() - started, answer.status, answer))
        except (OSError, http.client.HTTPException) as error:
            self.unanswered.append((identifier, error))
            kept.append((started, time.monotonic() - started, 0, error))
            return None
        return answer

    def _read(self, number):
        turn = number
        while not self._over.is_set():
            self._one(self.reads, "GET", f"/getpassenger/{self._known[turn % len(self._known)]}")
            turn += 1

    def _write(self):
        while not self._over.is_set():
            answer = self._one(self.writes, "POST", "/postpassenger", {**PASSENGER, "name": f"Load {uuid.uuid4()}"})
            if answer is not None and answer.status == 201:
                self.acknowledged.append(answer.json())

    def wait_for(self, more=50):
        """Waits until readers and writers have had further successes."""
        reads, writes = self._succeeded()

        def enough():
            now = self._succeeded()
            return now[0] >= reads + more and now[1] >= writes + more

        until(enough, f"{more} more reads and writes; last: {self.reads[-3:]} {self.writes[-3:]}")

    def _succeeded(self):
        return sum(status == 200 for _, _, status, _ in self.reads), len(self.acknowledged)

    def stop(self):
        self._over.set()
        for thread in self._threads:
            thread.join()

    def failed_reads(self):
        return [read for read in self.reads if read[2] != 200]

    def failed_writes(self):
        return [write for write in self.writes if write[2] != 201]

    def assert_acknowledged_writes_are_there(self):
        stored = {row["uuid"]: row for row in self.stack.request("GET", "/passengerlist").json()}
        lost = [row for row in self.acknowledged if stored.get(row["uuid"]) != row]
        assert not lost, f"{len(lost)} of {len(self.acknowledged)} acknowledged writes are lost"
        names = [row["name"] for row in stored.values() if row["name"].startswith("Load ")]
        assert len(names) == len(set(names)), "a write was carried out twice"
        # A row without an acknowledgement can only be from a write that failed for its client.
        assert len(names) <= len(self.acknowledged) + len(self.failed_writes())


@pytest.fixture
def load():
    loads = []

    def start(one):
        loads.append(Load(one))
        return loads[-1]

    yield start
    for one in loads:
        one.stop()


def test_no_read_fails_and_no_acknowledged_write_is_lost_when_the_server_is_killed(stack, load):
    one = stack()
    busy = load(one)
    busy.wait_for()
    deaths = []
    for _ in range(2):
        victim = one.server_pid()
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        until(lambda victim=victim: victim not in one.processes(), "the server is gone")
        deaths.append((killed, time.monotonic()))
        busy.wait_for()
    busy.stop()
    assert busy.failed_reads() == []
    # A POST that was sent to the killed server must not be retried. Its connections close one by one, so several may fail,
    # and a request that used only such connections reached no server; no request may fail that began after nginx had time
    # to detect it.
    for started, took, status, answer in busy.failed_writes():
        assert_problem(answer, status, {502: "bad-gateway", 503: "unavailable"}[status])
        assert any(killed <= started + took and started <= gone + 1 for killed, gone in deaths), (started, took, deaths)
    busy.assert_acknowledged_writes_are_there()
    assert one.stop() == 0


def test_the_service_is_back_within_two_seconds_of_postgres(stack, load):
    one = stack()
    busy = load(one)
    busy.wait_for()
    victim, server = one.postmaster_pid(), one.server_pid()
    with _asking_what_needs_no_database(one) as noise:
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        until(lambda: _postgres_answers(one, other_than=victim), "postgres is back")
        back = time.monotonic()
        busy.wait_for()
        busy.stop()
    # The promise, plus twice the current latency that the machine adds to any request.
    bound = 2 + 2 * max(noise)
    assert one.server_pid() == server, "the server was restarted too"
    # Only between its kill and two seconds after its return, each answered quickly and with Retry-After. A write in progress
    # may have been applied.
    failed = [(read, ["unavailable"]) for read in busy.failed_reads()]
    failed += [(write, ["unavailable", "outcome-unknown"]) for write in busy.failed_writes()]
    for (started, took, status, answer), codes in failed:
        assert status == 503 and answer.json()["code"] in codes, answer
        assert_problem(answer, 503, answer.json()["code"])
        assert killed - bound < started < back + bound, f"{started - back:.1f} s after the return, {max(noise):.1f} s noise: {answer}"
        assert took < bound, f"{took:.1f} s, {max(noise):.1f} s noise: {answer}"
    busy.assert_acknowledged_writes_are_there()
    assert one.stop() == 0


@contextlib.contextmanager
def _asking_what_needs_no_database(one):
    """The durations of answers that need no database, during the block."""
    took, over = [], threading.Event()

    def ask():
        while not over.is_set():
            started = time.monotonic()
            assert one.request("GET", "/hello").status == 200
            took.append(time.monotonic() - started)
            over.wait(0.01)  # below RATE_LIMIT together with the load

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield took
    finally:
        over.set()
        asking.join()


def _postgres_answers(one, other_than):
    """PostgreSQL itself writes its status to this file when it is ready."""
    with contextlib.suppress(OSError):
        lines = (one.data_dir / "embedded" / "data" / "postmaster.pid").read_text().splitlines()
        return len(lines) >= 8 and lines[7].strip() == "ready" and int(lines[0]) != other_than


def test_data_is_kept_when_everything_is_killed_at_once(stack):
    one = stack()
    created = one.request("POST", "/postpassenger", body=PASSENGER).json()
    for pid in one.processes():
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    one.process.wait()
    until(lambda: not one.processes(), "everything is gone")
    one.start()
    assert one.request("GET", f"/getpassenger/{created['uuid']}").json() == created
    assert one.stop() == 0


# --- graceful stop ------------------------------------------------------------------------------------------------


def test_requests_in_flight_are_answered_while_the_stack_stops(stack):
    one = stack()
    body = json.dumps(PASSENGER).encode()
    head = (
        b"POST /postpassenger HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    with (
        socket.create_connection(("127.0.0.1", one.port), 30) as upload,
        socket.create_connection(("127.0.0.1", one.port), 30) as download,
    ):
        upload.sendall(head + body[:20])
        # A small receive window, so that most of the list is still in nginx and the server when the stop begins.
        download.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        download.sendall(b"GET /passengerlist HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        listed = http.client.HTTPResponse(download)
        listed.begin()
        one.request("GET", "/hello")  # when it is answered, nginx has also read the head of the upload
        one.process.signal(signal.SIGTERM)
        until(lambda: _refused(one.port), "nothing new is accepted")
        upload.sendall(body[20:])
        answer = http.client.HTTPResponse(upload)
        answer.begin()
        assert answer.status == 201
        created = json.loads(answer.read())["uuid"]
        assert listed.status == 200
        # A truncated answer is an error of read() or invalid JSON.
        assert len(json.loads(listed.read())) == 891
    assert one.process.wait() == 0
    one.assert_nothing_runs()
    one.start()
    assert one.request("GET", f"/getpassenger/{created}").status == 200
    assert one.stop() == 0


def _refused(port):
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return True


def test_a_stop_under_load_fails_no_request_that_was_accepted(stack, load):
    one = stack()
    busy = load(one)
    busy.wait_for()
    one.process.signal(signal.SIGTERM)
    assert one.process.wait() == 0
    busy.stop()
    # At the end connections are refused, and the kernel resets those that nginx has not accepted. Requests that nginx has
    # accepted are in its log, and must have been answered successfully.
    assert [answer for _, _, status, answer in busy.failed_reads() + busy.failed_writes() if status] == []
    log = one.process.output
    assert [error for identifier, error in busy.unanswered if identifier in log] == []
    one.assert_nothing_runs()
    one.start()
    busy.assert_acknowledged_writes_are_there()
    assert one.stop() == 0


# --- several ------------------------------------------------------------------------------------------------------


def test_requests_on_the_embedded_database_are_a_role_that_owns_nothing(stack):
    one = stack()
    assert one.request("POST", "/postpassenger", body=PASSENGER).status == 201
    socket_directory = (one.data_dir / "embedded" / "data" / "postmaster.pid").read_text().splitlines()[4]

    def ask(sql):
        command = ["psql", "--no-psqlrc", "--tuples-only", "--no-align", f"--host={socket_directory}", "--username=postgres"]
        return subprocess.run([*command, "--command", sql], capture_output=True, text=True, check=True).stdout.split()

    sessions = "select distinct usename from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
    until(lambda: ask(sessions) == ["pycrudapi"], "requests alone are connected")
    assert ask("select rolsuper from pg_roles where rolname = 'pycrudapi'") == ["f"]
    assert ask("select distinct tableowner from pg_tables where schemaname = 'public'") == ["pycrudapi_owner"]
    assert "cannot connect to postgres" not in one.process.output
    assert "superuser" not in one.process.output
    assert one.stop() == 0


def test_two_stacks_run_side_by_side_and_know_nothing_of_each_other(stack):
    first, second = stack(), stack()
    created = first.request("POST", "/postpassenger", body=PASSENGER).json()
    assert_problem(second.request("GET", f"/getpassenger/{created['uuid']}"), 404, "not-found")
    assert first.stop() == 0
    assert second.request("GET", "/readyz").status == 200
    assert second.stop() == 0


def test_a_second_stack_on_the_same_data_is_refused(stack):
    first = stack()
    second = stack(ready=False, DATA_DIR=first.data_dir)
    assert second.process.wait() == 1
    assert "server did not start" in second.process.output
    assert first.request("GET", "/readyz").status == 200
    assert first.stop() == 0


def test_a_wrong_setting_of_the_server_ends_the_stack_and_is_named(stack):
    one = stack(ready=False, POOL_SIZE="many")
    assert one.process.wait() == 1
    assert "pool-size" in one.process.output.lower() or "POOL_SIZE" in one.process.output
    one.assert_nothing_runs()


def test_probes_and_work_go_on_while_a_client_uploads_very_slowly(stack):
    one = stack(CLIENT_TIMEOUT_MS=60_000)
    slow = [socket.create_connection(("127.0.0.1", one.port), 30) for _ in range(50)]
    try:
        for connection in slow:
            connection.sendall(b"POST /postpassenger HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert one.request("GET", "/readyz").status == 200
        assert one.request("POST", "/postpassenger", body=PASSENGER).status == 201
    finally:
        for connection in slow:
            connection.close()
    assert one.stop() == 0
