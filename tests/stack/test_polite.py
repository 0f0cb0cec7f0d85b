"""Errors have the same form whether nginx or the server generates them, and answers are the same through nginx and without it."""

import json

import pytest

import support
from support import PASSENGER, assert_problem, reply

ORIGIN = "https://app.example"
MEMBERS = ["type", "title", "status", "code", "detail", "requestId"]
ALWAYS = {"content-type", "cache-control", "x-content-type-options", "x-request-id"}
# Headers specific to a kind of problem, to the logging of nginx or the server, or to the connection.
OTHERS = {"allow", "connection", "content-length", "date", "server", "server-timing", "traceparent", "vary"}


@pytest.fixture
def listed(stack):
    return stack(CORS_ALLOW_ORIGINS=f"https://other.example, {ORIGIN}", MAX_BODY_BYTES=4096)


def test_errors_of_nginx_and_of_the_server_have_the_same_members_and_headers(listed):
    missing = "/v1/passengers/0192d3c5-7a1e-7cc3-9a41-5f6b8e2d9c10"
    by_server = [
        (listed.request("GET", "/nowhere"), 404, "not-found"),
        (listed.request("GET", missing), 404, "not-found"),
        (listed.request("GET", "/v1/passengers/1"), 400, "invalid-uuid"),
        (listed.request("POST", "/hello"), 405, "method-not-allowed"),
        (listed.request("POST", "/v1/passengers", b"{", {"content-type": "application/json"}), 400, "invalid-json"),
    ]
    by_nginx = [
        (listed.request("GET", "/%zz"), 400, "bad-request"),
        (listed.request("TRACE", "/hello"), 405, "method-not-allowed"),
        (listed.request("GET", "/x?" + "q" * 9000), 414, "uri-too-long"),
        (listed.request("POST", "/v1/steps", b"x" * 5000), 413, "body-too-large"),
        (listed.request("GET", "/_problem/404"), 404, "not-found"),
    ]
    titles = {}
    for answer, status, code in by_server + by_nginx:
        problem = assert_problem(answer, status, code)
        assert list(problem) == MEMBERS, answer
        assert set(answer.headers) - OTHERS == ALWAYS, answer
        assert answer.headers["cache-control"] == "no-store"
        assert titles.setdefault(code, problem["title"]) == problem["title"]
    for answer, status, _ in by_server + by_nginx:
        assert ("allow" in answer.headers) == (status == 405), answer


def test_pages_of_listed_origins_may_read_answers_and_errors_whoever_makes_them(listed):
    too_large = b"x" * 5000
    for method, path, body, status in (
        ("GET", "/hello", None, 200),
        ("GET", "/nowhere", None, 404),
        ("TRACE", "/hello", None, 405),
        ("POST", "/v1/steps", too_large, 413),
    ):
        answer = listed.request(method, path, body, {"origin": ORIGIN})
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (status, ORIGIN)
        assert "retry-after" in answer.headers["access-control-expose-headers"]
        stranger = listed.request(method, path, body, {"origin": "https://evil.example"})
        assert stranger.status == status
        assert "access-control-allow-origin" not in stranger.headers
    preflight = {"origin": ORIGIN, "access-control-request-method": "PUT"}
    answer = listed.request("OPTIONS", "/v1/passengers", headers=preflight)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (204, ORIGIN)


def test_the_server_s_headers_reach_the_client_once(listed):
    created = listed.request("POST", "/postpassenger", PASSENGER, {"idempotency-key": "k", "x-request-id": "mine"})
    assert created.status == 201, created
    again = listed.request("POST", "/postpassenger", PASSENGER, {"idempotency-key": "k"})
    assert (again.status, again.body, again.headers["idempotency-replayed"]) == (201, created.body, "true")
    for answer in (created, again):
        assert answer.headers["etag"] == created.headers["etag"]
        assert answer.headers["location"] == created.headers["location"]
        assert answer.headers["link"] == '</v1/passengers>; rel="canonical"'
        assert answer.headers["server-timing"].startswith("app;dur=")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "," not in answer.headers["x-request-id"]
    assert created.headers["x-request-id"] == "mine"


@pytest.mark.parametrize("origins", ["*", ORIGIN, ""])
def test_a_429_says_when_to_come_back_and_allowed_pages_may_read_it(nginx, origins):
    server = nginx(lambda connection, _head: reply(connection), RATE_LIMIT=1, CORS_ALLOW_ORIGINS=origins)
    answer = support.first_refused(lambda: server.request("GET", "/x", headers={"origin": ORIGIN}))
    assert answer.status == 429 and json.loads(answer.body)["code"] == "too-many-requests"
    assert answer.headers["retry-after"] == "1"
    assert answer.headers.get("access-control-allow-origin", "") == origins
