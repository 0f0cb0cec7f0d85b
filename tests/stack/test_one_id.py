"""The id of a request in nginx's log, the server's log, the answer, its problem document, the span, PostgreSQL and the history, under load
and during a restart."""

import collections
import http.client
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import uuid

import pytest

from support import assert_problem, free_port, until

# More requests find rarer faults; `ONE_ID_REQUESTS=200000` takes some minutes.
REQUESTS = int(os.environ.get("ONE_ID_REQUESTS", "10000"))
CLIENTS = 8
EACH = REQUESTS // CLIENTS


# --- a receiver of traces -----------------------------------------------------------------------------------------


def fields(message):
    """(field number, value) of a Protocol Buffers message: integers as numbers, other types as bytes."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
        else:
            length = {1: 8, 2: None, 5: 4}[kind]
            length = varint() if length is None else length
            yield key >> 3, message[at : at + length]
            at += length


def one(message, number):
    return next((value for found, value in fields(message) if found == number), b"")


def all_of(message, number):
    return [value for found, value in fields(message) if found == number]


class Span:
    """The fields of a span (opentelemetry/proto/trace/v1/trace.proto)."""

    def __init__(self, message):
        self.trace, self.id, self.name = one(message, 1).hex(), one(message, 2).hex(), one(message, 5).decode()
        self.kind = one(message, 6)
        self.links = [one(link, 2).hex() for link in all_of(message, 13)]
        self.attributes = {one(pair, 1).decode(): one(pair, 2) for pair in all_of(message, 9)}

    def request_id(self):
        return one(one(one(self.attributes["http.response.header.x-request-id"], 5), 1), 1).decode()


SERVER, CLIENT = 2, 3


class Receiver:
    def __init__(self):
        self._bodies, self._spans = [], []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                # Decoded later: a stopping server waits only two seconds for the delivery of its remaining spans.
                receiver._bodies.append(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def spans(self):
        """All received spans."""
        while self._bodies:
            for resource in all_of(self._bodies.pop(0), 1):
                for scope in all_of(resource, 2):
                    self._spans += [Span(span) for span in all_of(scope, 2)]
        return self._spans


@pytest.fixture
def receiver():
    one = Receiver()
    yield one
    one.server.shutdown()


# --- clients ------------------------------------------------------------------------------------------------------

PASSENGER = {
    "survived": True, "passengerClass": 2, "name": "One", "sex": "male", "age": 27.0,
    "siblingsOrSpousesAboard": 0, "parentsOrChildrenAboard": 0, "fare": 13.0,
}  # fmt: skip
JSON, PATCH = "application/json", "application/merge-patch+json"


class Kind:
    """Requests of one kind, their expected answers, and the database query for one of them."""

    def __init__(self, method, path, status, statement, body=None, media_type=JSON):
        self.method, self.path, self.status, self.statement = method, path, status, statement
        self.body = None if body is None else json.dumps(body).encode()
        self.headers = {} if body is None else {"content-type": media_type}
        self.operation = {"POST": "create", "PATCH": "patch"}.get(method) if status < 400 else None


class Asked:
    def __init__(self, kind, sent, answer):
        self.kind, self.sent, self.status = kind, sent, answer.status
        self.identity, self.traceparent = answer.headers["x-request-id"], answer.headers.get("traceparent")
        body = answer.read()
        is_problem = answer.headers["content-type"] == "application/problem+json"
        self.told = json.loads(body)["requestId"] if is_problem else None


def ask(port, kinds, number, asked):
    """Sends requests repeatedly: with ids of nginx, with its own ids, and in its own traces."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for turn in range(EACH):
        kind = kinds[turn % len(kinds)]
        headers, sent = dict(kind.headers), None
        if turn % 3 == 1:
            headers["x-request-id"] = sent = f"client-{number}-{turn}"
        elif turn % 3 == 2:
            sent = uuid.uuid4().hex
            headers["traceparent"] = f"00-{sent}-00f067aa0ba902b7-01"
        connection.request(kind.method, kind.path, kind.body, headers)
        answer = connection.getresponse()
        asked.append(Asked(kind, sent, answer))
        if answer.headers.get("connection") == "close":
            connection.close()


def psql(stack, sql):
    command = ["psql", "-XAtq", "-F", " ", "-h", stack.data_dir / "embedded" / "run", "-U", "postgres", "postgres"]
    command += [part for one in sql for part in ("-c", one)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def logged(stack, beginning, name):
    """The log lines by request id."""
    found = collections.defaultdict(list)
    for line in stack.process.lines:
        if line.startswith(beginning):
            line = json.loads(line)
            if name(line):
                found[line["request_id"]].append(line)
    return found


@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed")
def test_one_id_leads_through_everything_also_while_the_server_restarts(stack, receiver):
    here = stack(
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        OTEL_BSP_MAX_QUEUE_SIZE=10 * REQUESTS,
        OTEL_BSP_SCHEDULE_DELAY=200,
        LOG_FORMAT="json",
        LOG="info,access=info",
        RATE_LIMIT="off",
        CONN_LIMIT="off",
    )
    psql(here, ["alter system set log_statement = 'all'", "select pg_reload_conf()"])
    # When a later session is logged, all earlier ones have been logged, too.
    until(lambda: psql(here, ["show log_statement"]).strip() == "all", "statements are logged")
    keys = [row["uuid"] for row in here.request("GET", "/v1/passengers?limit=2").json()]
    one = f"/v1/passengers/{keys[0]}"
    kinds = [
        Kind("GET", one, 200, "get passengers"),
        Kind("GET", "/v1/passengers?limit=2", 200, "list passengers"),
        Kind("POST", "/v1/passengers", 201, "create passengers", PASSENGER),
        Kind("GET", f"/v1/passengers/{uuid.uuid4()}", 404, "get passengers"),
        Kind("PATCH", f"/v1/passengers/{keys[1]}", 200, "patch passengers", {"age": 30}, PATCH),
        Kind("POST", "/v1/passengers", 422, None, {**PASSENGER, "age": -1}),
        Kind("GET", f"{one}/nothing", 404, None),
    ]
    asked = []
    clients = [threading.Thread(target=ask, args=(here.port, kinds, number, asked)) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    until(lambda: len(asked) > REQUESTS // 4, "a quarter is asked", 600)
    before = here.server_pid()
    subprocess.run(["kill", str(before)], check=True)
    until(lambda: before not in here.processes() and here.is_ready(), "the server is back")
    for client in clients:
        client.join()
    assert len(asked) == CLIENTS * EACH
    assert collections.Counter(one.status for one in asked if one.status != one.kind.status) == {}

    in_nginx = lambda: logged(here, '{"time"', lambda line: line.get("log") == "nginx.access")  # noqa: E731
    in_server = lambda: logged(here, '{"timestamp"', lambda line: line.get("target") == "access")  # noqa: E731
    ids = {one.identity for one in asked}
    assert len(ids) == len(asked), "an id was given twice"
    until(lambda: ids <= in_nginx().keys() and ids <= in_server().keys(), "every request is in both logs")
    spans = lambda: {span.request_id(): span for span in receiver.spans if span.kind == SERVER}  # noqa: E731
    until(lambda: ids <= spans().keys(), "every request has a span")
    of_nginx, of_server, found = in_nginx(), in_server(), spans()
    linked = collections.defaultdict(set)
    for span in receiver.spans:
        for link in span.links:
            linked[link].add(span)
    # PostgreSQL was restarted with the server, and starts a new log then.
    log = "".join(one.read_text(errors="replace") for one in (here.data_dir / "embedded").glob("postgres.log*"))
    commented = set(re.findall(r"traceparent='00-[0-9a-f]{32}-([0-9a-f]{16})-01'", log))
    entries = collections.defaultdict(list)
    for line in psql(here, ["select operation, request_id from passengers_history where request_id is not null"]).split("\n"):
        if line:
            operation, _, identity = line.partition(" ")
            entries[identity].append(operation)
    for one in asked:
        span = found[one.identity]
        assert one.traceparent == f"00-{span.trace}-{span.id}-01"
        assert of_nginx[one.identity][-1]["traceparent"] == one.traceparent
        # A request interrupted by the exit of a server was retried, in the same trace.
        assert {line["trace_id"] for line in of_server[one.identity]} >= {span.trace}
        if one.sent is None:
            assert one.identity == span.trace, "nginx's id is the trace's"
        elif one.sent.startswith("client-"):
            assert one.identity == one.sent
        else:
            assert one.sent == span.trace
        assert of_server[one.identity][-1]["http.status"] == one.status
        statements = linked[span.id]
        assert {statement.name for statement in statements} == ({one.kind.statement} - {None}), one.kind.path
        assert {statement.id for statement in statements} <= commented, "PostgreSQL was told whose it is"
        assert entries.pop(one.identity, []) == ([one.kind.operation] if one.kind.operation else [])
        assert one.told == (one.identity if one.status >= 400 else None)
    assert not entries, "nobody else's id is in the history"
    (change,) = here.request("GET", f"/v1/passengers/{keys[1]}/history?limit=1").json()
    assert change["requestId"] in ids
    # A problem document of nginx has the id that is in nginx's log.
    refused = here.request("TRACE", "/v1/passengers")
    assert_problem(refused, 405, "method-not-allowed")
    until(lambda: refused.headers["x-request-id"] in in_nginx(), "it is in nginx's log")


@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed")
def test_postgres_is_told_the_trace_of_a_client(stack, receiver):
    here = stack(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_BSP_SCHEDULE_DELAY=100, POOL_SIZE=3, LIST_POOL_SIZE=1)
    trace = uuid.uuid4().hex
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    missing = here.request("GET", f"/v1/passengers/{uuid.uuid4()}", headers=headers)
    assert (missing.status, missing.headers["content-type"]) == (404, "application/problem+json")
    told = psql(here, ["select query from pg_stat_activity where query like '%traceparent%' and pid <> pg_backend_pid()"])
    commented = re.findall(rf"traceparent='00-{trace}-([0-9a-f]{{16}})-01'", told)
    until(lambda: any(span.trace == trace and span.kind == CLIENT for span in receiver.spans), "a span")
    assert commented == [span.id for span in receiver.spans if span.trace == trace and span.kind == CLIENT]
    assert here.stop(signal.SIGTERM) == 0
