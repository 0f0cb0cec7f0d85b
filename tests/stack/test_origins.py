"""Host names and origins through nginx: over HTTP/1.1, HTTP/2 and TLS the server receives those of the client."""

import http.client
import json

import httpx
import pytest

from support import DEADLINE_SECONDS, PASSENGER, Answer, assert_problem, raw, request

EVIL = "evil.example"


@pytest.fixture
def named(stack):
    return stack(ALLOWED_HOSTS="api.example.com,*.shop.example", TLS_SELF_SIGNED="true")


def post_from(stack, origin, **headers):
    return stack.request("POST", "/v1/passengers", PASSENGER, {"origin": origin, **headers})


def test_only_names_of_the_service_are_answered(named):
    for host, status in (
        ("localhost", 200), (f"127.0.0.1:{named.port}", 200), ("[::1]:80", 200), ("pycrudapi", 200),
        ("api.example.com:8443", 200), ("API.example.com.", 200), ("a.shop.example", 200),
        (EVIL, 421), (f"{EVIL}:{named.port}", 421), ("shop.example", 421), ("localhost.evil.example", 421),
    ):  # fmt: skip
        for path in ("/hello", "/", "/readyz", "/v1/passengers?limit=1"):
            answer = named.request("GET", path, headers={"host": host})
            assert answer.status == status, (host, path, answer)
    problem = assert_problem(named.request("POST", "/v1/passengers", PASSENGER, {"host": EVIL}), 421, "misdirected-request")
    assert "ALLOWED_HOSTS" in problem["detail"] and EVIL in problem["detail"]
    assert_problem(request(named.metrics_port, "GET", "/metrics", headers={"host": EVIL}), 421, "misdirected-request")


def test_a_target_in_absolute_form_counts_and_two_hosts_are_refused(named):
    for target, host, status in (
        (f"http://{EVIL}/hello", "localhost", 421),
        (f"http://{EVIL}:80?x", "localhost", 421),
        ("http://localhost/hello", "localhost", 200),
    ):
        answer = raw(named.port, f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert answer.status == status, (target, host, answer)
    both = raw(named.port, f"GET /hello HTTP/1.1\r\nHost: localhost\r\nHost: {EVIL}\r\n\r\n".encode())
    assert_problem(both, 400, "bad-request")


@pytest.mark.parametrize("http2", [True, False])
def test_names_and_origins_over_tls(named, http2):
    own = f"https://localhost:{named.https_port}"
    with httpx.Client(http2=http2, verify=False, base_url=own, timeout=DEADLINE_SECONDS) as client:
        assert client.get("/hello").status_code == 200
        assert client.get("/hello", headers={"host": "api.example.com"}).status_code == 200
        answer = client.get("/hello", headers={"host": EVIL})
        assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        assert (answer.status_code, answer.json()["code"]) == (421, "misdirected-request")
        for origin, status in (
            (own, 201),
            (f"http://localhost:{named.https_port}", 403),
            ("https://localhost", 403),
            (f"https://{EVIL}", 403),
            ("null", 403),
        ):
            answer = client.post("/v1/passengers", json=PASSENGER, headers={"origin": origin})
            assert answer.status_code == status, (origin, answer.text)


def test_pages_of_the_service_write_through_nginx_and_others_do_not(named):
    own = f"http://127.0.0.1:{named.port}"
    assert post_from(named, own).status == 201
    assert post_from(named, own, **{"sec-fetch-site": "same-origin"}).status == 201
    assert named.request("POST", "/v1/passengers", PASSENGER).status == 201
    for answer in (
        post_from(named, f"https://{EVIL}"),
        post_from(named, f"http://localhost:{named.port}"),
        post_from(named, own, **{"sec-fetch-site": "same-site"}),
        named.request("DELETE", "/v1/passengers/0192d3c5-7a1e-7cc3-9a41-5f6b8e2d9c10", headers={"sec-fetch-site": "cross-site"}),
    ):
        assert "CORS_ALLOW_ORIGINS" in assert_problem(answer, 403, "foreign-origin")["detail"]
    body = json.dumps(PASSENGER).encode()
    assert_problem(named.request("POST", "/v1/passengers", body, {"origin": own}), 415, "unsupported-media-type")
    assert named.request("POST", "/v1/passengers", body).status == 201


def test_http_1_0_without_a_host_is_no_browser_and_answered(named):
    answer = raw(named.port, b"GET /livez HTTP/1.0\r\n\r\n")
    assert isinstance(answer, Answer) and answer.status == http.client.OK
