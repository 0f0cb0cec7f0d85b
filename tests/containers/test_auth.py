"""The demonstration of signing in: `docker-compose -f docker-compose.yml -f docker-compose.auth.yml up`."""

import pytest

from containers import PASSENGER, inspect
from provider import Client
from support import assert_problem, free_port, until


@pytest.fixture(scope="module")
def trial(project):
    trial = project("pycrudapi-test-auth", "docker-compose.yml", "docker-compose.auth.yml")
    trial.settings["IDENTITY_PORT"] = free_port()
    trial.up("--build")
    trial.wait_healthy("identity")
    return trial


@pytest.fixture
def provider(trial):
    """Signs in like the page whose URL is registered."""
    return Client(trial.settings["IDENTITY_PORT"], f"http://localhost:{trial.http}/")


def bearer(token):
    return {"authorization": f"Bearer {token}"}


def test_nobody_reads_without_a_token_and_the_page_knows_where_to_sign_in(trial, provider):
    assert_problem(trial.request("GET", "/v1/passengers"), 401, "unauthenticated")
    signs_in = trial.request("GET", "/v1/principal").json()["signIn"]
    assert (signs_in["issuer"], signs_in["clientId"]) == (provider.issuer, "page")
    page = trial.request("GET", "/", headers={"accept": "text/html"})
    assert f"connect-src 'self' {provider.issuer};" in page.headers["content-security-policy"]
    returned = trial.request("GET", "/?code=a&state=b", headers={"accept": "text/html"})
    assert returned.status == 200 and b"signed-in.js" in returned.body


def test_a_job_may_do_what_its_token_says(trial, provider):
    token = provider.job_token("*:read passengers:create")
    # The provider starts concurrently with the service, so the keys are read once it is available.
    until(lambda: trial.request("GET", "/v1/passengers?limit=1", headers=bearer(token)).status == 200, "the token is taken")
    created = trial.request("POST", "/v1/passengers", PASSENGER, bearer(token))
    assert created.status == 201, created
    path = f"/v1/passengers/{created.json()['uuid']}"
    assert_problem(trial.request("DELETE", path, headers=bearer(token)), 403, "insufficient-scope")


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_somebody_signs_in_at_each_address_of_the_page(trial, provider, tls):
    if tls:
        provider.redirect = f"https://localhost:{trial.https}/"
    answer = provider.sign_in("alice", "passengers:read passengers:create")
    shown = trial.request("GET", "/v1/principal", headers=bearer(answer["access_token"]), tls=tls)
    assert shown.status == 200, shown
    assert shown.json()["principal"] == f"{provider.issuer} alice"
    created = trial.request("POST", "/v1/passengers", PASSENGER, bearer(answer["access_token"]), tls=tls)
    assert created.status == 201, created
    (change,) = trial.request(
        "GET", f"/v1/passengers/{created.json()['uuid']}/history", headers=bearer(answer["access_token"]), tls=tls
    ).json()
    assert change["changedBy"] == f"{provider.issuer} alice"


def test_the_provider_is_confined_like_the_others(trial):
    host = inspect(trial.container("identity"))["HostConfig"]
    assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and "no-new-privileges:true" in host["SecurityOpt"]
    # It is published on loopback only, through the container of the service.
    bindings = inspect(trial.container("pycrudapi"))["NetworkSettings"]["Ports"][f"{trial.settings['IDENTITY_PORT']}/tcp"]
    assert {each["HostIp"] for each in bindings} == {"127.0.0.1"}
