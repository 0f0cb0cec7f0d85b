"""One id from a client through nginx's log, the server's, its answer, its span and PostgreSQL, under load and through a restart."""

import collections
import http.client
import http.server
import json
import re
import shutil
import signal
import subprocess
import threading
import uuid

import pytest

from support import free_port, until

CLIENTS = 8
EACH = 400


# --- a receiver of traces -----------------------------------------------------------------------------------------


def fields(message):
    """(number, value) of a message of Protocol Buffers: numbers as they are, the rest as bytes."""
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
    """What a span says (opentelemetry/proto/trace/v1/trace.proto)."""

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
        self.spans = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                for resource in all_of(body, 1):
                    for scope in all_of(resource, 2):
                        receiver.spans += [Span(span) for span in all_of(scope, 2)]
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", free_port()), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver():
    one = Receiver()
    yield one
    one.server.shutdown()


# --- clients ------------------------------------------------------------------------------------------------------


class Asked:
    def __init__(self, path, sent, status, identity, traceparent):
        self.path, self.sent, self.status, self.identity, self.traceparent = path, sent, status, identity, traceparent


def ask(port, paths, number, asked):
    """Asks again and again, under ids of nginx's, of its own, and in traces of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for turn in range(EACH):
        path = paths[turn % len(paths)]
        headers, sent = {}, None
        if turn % 3 == 1:
            headers["x-request-id"] = sent = f"client-{number}-{turn}"
        elif turn % 3 == 2:
            sent = uuid.uuid4().hex
            headers["traceparent"] = f"00-{sent}-00f067aa0ba902b7-01"
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        answer.read()
        asked.append(
            Asked(path, sent, answer.status, answer.headers["x-request-id"], answer.headers.get("traceparent"))
        )
        if answer.headers.get("connection") == "close":
            connection.close()


def logged(stack, beginning, name):
    """Lines of the log by their request's id."""
    found = collections.defaultdict(list)
    for line in stack.process.lines:
        if line.startswith(beginning):
            line = json.loads(line)
            if name(line):
                found[line["request_id"]].append(line)
    return found


def test_one_id_leads_through_everything_also_while_the_server_restarts(stack, receiver):
    here = stack(
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        OTEL_BSP_MAX_QUEUE_SIZE=100000,
        OTEL_BSP_SCHEDULE_DELAY=200,
        LOG_FORMAT="json",
        LOG="info,access=info",
        RATE_LIMIT="off",
        CONN_LIMIT="off",
    )
    key = json.loads(here.request("GET", "/v1/passengers?limit=1").body)
    key = (key["passengers"] if isinstance(key, dict) and "passengers" in key else key)[0]["uuid"]
    paths = [f"/v1/passengers/{key}", "/v1/passengers?limit=2", f"/v1/passengers/{uuid.uuid4()}"]
    asked = []
    clients = [
        threading.Thread(target=ask, args=(here.port, paths, number, asked)) for number in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    until(lambda: len(asked) > CLIENTS * EACH // 4, "a quarter is asked", 120)
    before = here.server_pid()
    subprocess.run(["kill", str(before)], check=True)
    until(lambda: here.server_pid() != before if here.is_ready() else None, "the server is back", 60)
    for client in clients:
        client.join()
    assert len(asked) == CLIENTS * EACH
    assert collections.Counter(one.status for one in asked if one.status not in (200, 404)) == {}

    in_nginx = lambda: logged(here, '{"time"', lambda line: line.get("log") == "nginx.access")  # noqa: E731
    in_server = lambda: logged(here, '{"timestamp"', lambda line: line.get("target") == "access")  # noqa: E731
    ids = {one.identity for one in asked}
    assert len(ids) == len(asked), "an id was given twice"
    until(lambda: ids <= in_nginx().keys() and ids <= in_server().keys(), "every request is in both logs", 60)
    spans = lambda: {span.request_id(): span for span in list(receiver.spans) if span.kind == SERVER}  # noqa: E731
    until(lambda: ids <= spans().keys(), "every request has a span", 60)
    of_nginx, of_server, found = in_nginx(), in_server(), spans()
    linked = collections.defaultdict(set)
    for span in list(receiver.spans):
        for link in span.links:
            linked[link].add(span.name)
    for one in asked:
        span = found[one.identity]
        assert one.traceparent == f"00-{span.trace}-{span.id}-01"
        assert of_nginx[one.identity][-1]["traceparent"] == one.traceparent
        # A request that the end of a server broke off was tried again, in the same trace.
        assert {line["trace_id"] for line in of_server[one.identity]} >= {span.trace}
        if one.sent is None:
            assert one.identity == span.trace, "nginx's id is the trace's"
        elif one.sent.startswith("client-"):
            assert one.identity == one.sent
        else:
            assert one.sent == span.trace
        assert of_server[one.identity][-1]["http.status"] == one.status
        expected = "list passengers" if "limit" in one.path else "get passengers"
        assert linked[span.id] == {expected}, (one.path, linked[span.id])


@pytest.mark.skipif(shutil.which("psql") is None, reason="psql is not installed")
def test_postgres_is_told_the_trace_of_a_client(stack, receiver):
    here = stack(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_BSP_SCHEDULE_DELAY=100, POOL_SIZE=3, LIST_POOL_SIZE=1)
    trace = uuid.uuid4().hex
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    missing = here.request("GET", f"/v1/passengers/{uuid.uuid4()}", headers=headers)
    assert (missing.status, missing.headers["content-type"]) == (404, "application/problem+json")
    told = subprocess.run(
        ["psql", "-XAtq", "-h", here.data_dir / "embedded" / "run", "-U", "postgres", "postgres", "-c",
         "select query from pg_stat_activity where query like '%traceparent%' and pid <> pg_backend_pid()"],
        check=True, capture_output=True, text=True, timeout=30,
    ).stdout  # fmt: skip
    commented = re.findall(rf"traceparent='00-{trace}-([0-9a-f]{{16}})-01'", told)
    until(lambda: any(span.trace == trace and span.kind == CLIENT for span in list(receiver.spans)), "a span", 30)
    assert commented == [span.id for span in receiver.spans if span.trace == trace and span.kind == CLIENT]
    assert here.stop(signal.SIGTERM) == 0
