"""Access tokens of a certified OpenID provider, through nginx, during key rotation and while the provider is unavailable."""

import threading

import pytest

from support import PASSENGER, assert_problem, request, until

LIST = "/v1/passengers?limit=1"


def bearer(token):
    return {"authorization": f"Bearer {token}"}


def read(stack, token):
    return stack.request("GET", LIST, headers=bearer(token))


def metric(stack, name):
    """The value of a metric; zero if it does not exist."""
    answer = request(stack.metrics_port, "GET", "/metrics")
    lines = [line for line in answer.body.decode().splitlines() if line.startswith(f"{name} ")]
    return float(lines[0].rpartition(" ")[2]) if lines else 0.0


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_a_token_of_each_algorithm_may_do_what_its_scopes_say(provider, guarded, algorithm):
    issuer = provider(ALGORITHM=algorithm).start()
    stack = guarded(issuer)
    token = issuer.job_token("passengers:read passengers:create")
    assert read(stack, token).status == 200
    created = stack.request("POST", "/v1/passengers", PASSENGER, bearer(token))
    assert created.status == 201, created
    path = f"/v1/passengers/{created.json()['uuid']}"
    assert stack.request("GET", path, headers=bearer(token)).status == 200
    assert_problem(stack.request("DELETE", path, headers=bearer(token)), 403, "insufficient-scope")
    assert_problem(stack.request("GET", LIST), 401, "unauthenticated")
    assert stack.request("DELETE", path, headers=bearer(issuer.job_token("passengers:*"))).status == 204


def test_somebody_who_signed_in_uses_the_access_token_and_not_the_id_token(provider, guarded):
    issuer = provider().start()
    stack = guarded(issuer)
    lenient = guarded(issuer, AUTH_TOKEN_TYPE="jwt", AUTH_AUDIENCE="page")
    answer = issuer.sign_in("alice", "passengers:read")
    assert read(stack, answer["access_token"]).status == 200
    assert_problem(read(stack, answer["id_token"]), 401, "unauthenticated")
    # Even if the type is not checked and the audience is that of the client.
    assert_problem(read(lenient, answer["id_token"]), 401, "unauthenticated")
    until(lambda: f"{issuer.issuer} alice" in stack.process.output, "the log says who it was")
    assert answer["access_token"] not in stack.process.output
    assert answer["access_token"].split(".")[2] not in stack.process.output


def test_tokens_of_others_are_refused(provider, guarded):
    issuer, other = provider().start(), provider().start()
    elsewhere = provider(AUDIENCE="urn:another-service").start()
    stack = guarded(issuer)
    assert read(stack, issuer.job_token("*:read")).status == 200
    for token in (other.job_token("*:read"), elsewhere.job_token("*:read"), "opaque", "a.b.c"):
        answer = read(stack, token)
        assert_problem(answer, 401, "unauthenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer"), answer
        assert 'error="invalid_token"' in answer.headers["www-authenticate"], answer


def test_rotated_keys_are_accepted_at_once_and_old_ones_are_rejected(provider, guarded):
    issuer = provider().start()
    stack = guarded(issuer)
    old = issuer.job_token("*:read")
    assert read(stack, old).status == 200
    for _ in range(2):
        issuer.rotate()
        new = issuer.job_token("*:read")
        until(lambda: read(stack, new).status == 200, "a token with the new key is taken")
        until(lambda: read(stack, old).status == 401, "a token with a key that is gone is refused")
        assert read(stack, new).status == 200
        old = new


def test_while_the_provider_is_down_tokens_with_a_known_key_are_accepted(provider, guarded):
    issuer = provider().start()
    stack = guarded(issuer)
    tokens = [issuer.job_token("*:read") for _ in range(40)]
    assert read(stack, tokens[0]).status == 200
    failures, done = [], threading.Event()

    def ask():
        number = 0
        while not done.is_set():
            answer = read(stack, tokens[number % len(tokens)])
            number += 1
            if answer.status != 200:
                failures.append(answer)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        issuer.stop()
        until(lambda: metric(stack, 'auth_key_fetches_total{result="failed"}') >= 2, "the server has noticed")
        # An unknown key: whether the token is valid cannot be determined.
        stranger = provider(ISSUER=issuer.issuer).start()
        unknown = stranger.job_token("*:read")
        assert_problem(read(stack, unknown), 503, "unavailable")
        issuer.start()
        until(lambda: read(stack, unknown).status == 401, "the provider says that it has no such key")
    finally:
        done.set()
        asking.join()
    assert not failures, failures[:3]


def test_a_server_started_before_its_provider_accepts_tokens_once_that_runs(provider, guarded):
    issuer = provider().start()
    token = issuer.job_token("*:read")
    issuer.stop()
    stack = guarded(issuer)
    assert read(stack, token).status == 503
    assert stack.request("GET", "/readyz").status == 200
    issuer.start()
    until(lambda: read(stack, token).status == 200, "the token is taken")
