"""Request heads through nginx: targets in all forms that clients use, and problem documents for what the server cannot parse."""

import json
import re
import socket

import pytest

import support
from support import PASSENGER, assert_problem


@pytest.fixture(scope="module")
def shared():
    """A stack shared by the tests that inject no fault."""
    with support.running_stack() as one:
        yield one


def head(target, more=b"", method=b"GET"):
    return method + b" " + target + b" HTTP/1.1\r\nHost: localhost\r\n" + more + b"\r\n"


def named(stack, name):
    body = {**PASSENGER, "name": name}
    created = stack.request("POST", "/v1/passengers", body=body)
    assert created.status == 201, created
    return created.json()["uuid"]


@pytest.mark.parametrize("target, names", [
    (b'/v1/passengers?name=in.("Head,%20One","Head%20<Two>")&select=name&order=name', ["Head <Two>", "Head, One"]),
    (b'/passengerlist?name=eq.Head%20<Two>&select=name', ["Head <Two>"]),
    ('/v1/passengers?name=eq.Heäd`#&select=name'.encode(), ["Heäd`#"]),
])
def test_a_query_is_taken_as_it_is_written(shared, target, names):
    for name in names:
        named(shared, name)
    answer = support.raw(shared.port, head(target))
    assert answer.status == 200, answer
    assert sorted({row["name"] for row in answer.json()}) == names


def test_bodies_are_left_alone_between_such_queries(shared):
    name = 'GET /"<>`# HTTP/1.1\r\n\r\n"é'
    body = json.dumps({**PASSENGER, "name": name}).encode()
    typed = b"Content-Type: application/json\r\n"
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:20], body[20:])) + b"0\r\n\r\n"
    requests = []
    for _ in range(20):
        requests.append(head(b"/v1/passengers", typed + b"Content-Length: %d\r\n" % len(body), b"POST") + body)
        requests.append(head(b'/v1/passengers?name=like.*"<>`*&select=name&limit=1'))
        requests.append(head(b"/v1/passengers", typed + b"Transfer-Encoding: chunked\r\n", b"POST") + chunks)
        requests.append(head(b'/v1/passengers?name=like.*"<>`*&select=name&limit=1'))
    with socket.create_connection(("127.0.0.1", shared.port), support.DEADLINE_SECONDS) as connection:
        for number, request in enumerate(requests):
            connection.sendall(request)
            response = support.http.client.HTTPResponse(connection)
            response.begin()
            answer = support.Answer(response)
            row = answer.json() if number % 2 == 0 else answer.json()[0]
            assert row["name"] == name, answer


@pytest.mark.parametrize("request_head, status, code, says", [
    (head(b"/hello", b"X-One: a\x01b\r\n"), 400, "bad-request", "header X-One contains a control character"),
    (head(b"/hello", b"".join(b"X%d: a\r\n" % number for number in range(120))), 431, "headers-too-large", "100 header"),
    (head(b"/v1/passengers?name=eq.\xff"), 400, "invalid-query", "name is not percent-encoded UTF-8"),
    (head(b"/v1/steps?owner=\xc3"), 400, "invalid-query", "owner is not percent-encoded UTF-8"),
    (head(b"/v1/passengers/%FF"), 400, "invalid-uuid", "uuid"),
    (head(b"/<>`\xff"), 404, "not-found", "nothing is served"),
])
def test_what_the_server_refuses_is_a_problem_that_names_the_cause(shared, request_head, status, code, says):
    for _ in range(20):
        problem = assert_problem(support.raw(shared.port, request_head), status, code)
        assert says in problem["detail"]


def test_a_refusal_reaches_its_client_behind_a_body_of_any_size(shared):
    for size in [10] * 50 + [15_000] * 50 + [900_000] * 20:
        more = b"X-One: a\x01b\r\nContent-Length: %d\r\n" % size
        for method in (b"POST", b"PUT"):
            answer = support.raw(shared.port, head(b"/v1/passengers", more, method) + b"x" * size)
            problem = assert_problem(answer, 400, "bad-request")
            assert re.search("X-One", problem["detail"])
