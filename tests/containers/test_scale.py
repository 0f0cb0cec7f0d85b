"""The scaled variant: three containers with the server, one with nginx, from the same image and files."""

import itertools
import json

import pytest

from containers import PASSENGER, Load, docker, inspect, kill_from_outside, wait_restarted
from support import until

APIS = ["api1", "api2", "api3"]


@pytest.fixture(scope="module")
def scaled(project):
    scaled = project("pycrudapi-test-scale", "docker-compose.yml", "docker-compose.scale.yml")
    # All load comes from one address.
    scaled.settings["RATE_LIMIT"] = "off"
    return scaled.up("--build")


def answered(scaled, api):
    """The number of requests that this container has answered, according to its metrics."""
    text = docker("exec", scaled.container(api), "python3", "-c",
                  "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9464/metrics').read().decode())")  # fmt: skip
    counts = [line for line in text.splitlines() if line.startswith("http_server_request_duration_seconds_count{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in counts)


def test_requests_are_balanced_over_three_containers(scaled):
    before = {api: answered(scaled, api) for api in APIS}
    with Load(scaled, lambda: ("GET", "/hello", None, 200)) as load:
        load.more(600)
    assert not load.failures
    shares = {api: (answered(scaled, api) - before[api]) / load.answered for api in APIS}
    assert all(share > 0.2 for share in shares.values()), shares


def test_what_one_wrote_another_reads(scaled):
    uuid = scaled.request("POST", "/v1/passengers", PASSENGER, tls=True).json()["uuid"]
    for _ in range(6):
        assert scaled.request("GET", f"/v1/passengers/{uuid}", tls=True).status == 200


def test_the_balancer_runs_only_nginx_and_the_servers_only_the_server(scaled):
    # The program that counts the connections of nginx (src/nginx/connections).
    for service, expected in {"pycrudapi": {"nginx", "pycrudapi"}, **{api: {"pycrudapi"} for api in APIS}}.items():
        running = lambda: {line.split()[1] for line in docker("top", scaled.container(service), "-eo", "pid,comm").splitlines()[1:]}  # noqa: B023, E731
        # The process of a health check has another name until the engine has entered the container.
        until(lambda: running() == expected, f"{expected} run in {service}, not {running()}")  # noqa: B023
    assert len({inspect(scaled.container(service))["Image"] for service in ["pycrudapi", *APIS]}) == 1


def test_replacing_the_servers_one_by_one_fails_no_request(scaled):
    """Only for reads: nginx retries them on the next server if a keep-alive connection is closed. A change sent at that moment is
    answered 502 with an unknown outcome, because a retry could overwrite later changes."""
    uuid = scaled.request("POST", "/v1/passengers", PASSENGER).json()["uuid"]
    body = json.dumps(PASSENGER)
    turn = itertools.count()

    def work():
        return ("PUT", f"/v1/passengers/{uuid}", body, 200) if next(turn) % 5 == 0 else ("GET", "/v1/passengers", None, 200)

    with Load(scaled, work) as load:
        load.more(100)
        for api in APIS:
            scaled("stop", api)
            assert scaled.state(api)["ExitCode"] == 0
            load.more(100)
            scaled("start", api)
            scaled.wait_healthy(api)
            load.more(100)
    failures = [failure for failure in load.failures if not failure.startswith("PUT 502 ")]
    assert not failures, f"{len(failures)} of {load.answered}: {failures[:5]}"


def test_a_killed_server_fails_no_read_and_comes_back(scaled):
    container = scaled.container("api2")
    with Load(scaled, lambda: ("GET", "/v1/passengers", None, 200)) as load:
        load.more(100)
        restarts = inspect(container)["RestartCount"]
        kill_from_outside(container)
        wait_restarted(container, restarts)
        scaled.wait_healthy("api2")
        load.more(100)
    assert not load.failures, f"{len(load.failures)} of {load.answered}: {load.failures[:5]}"
    # The counter of the new process started at zero.
    with Load(scaled, lambda: ("GET", "/hello", None, 200)) as load:
        until(lambda: answered(scaled, "api2") > 100, "it takes its share again")
