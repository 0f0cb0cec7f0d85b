"""`make stack-deploy` on a real Swarm of one node: replicas, secrets, a rolling update, and a failed update that is rolled back."""

import http.client
import json
import os
import pathlib
import subprocess

import pytest

from containers import IMAGE, PASSENGER, VERSION, docker, inspect
from support import REPOSITORY, Answer, clean_environment, free_port, until

STACK = "pycrudapi-test-swarm"
SERVICE = f"{STACK}_pycrudapi"
REPLICAS = 2
CHOSEN = "a-password-that-somebody-chose"


class Swarm:
    def __init__(self, directory):
        empty = directory / "empty.env"
        empty.touch()
        self.http = free_port()
        self.settings = {"IMAGE": IMAGE, "VERSION": VERSION, "HTTP_PORT": self.http, "HTTPS_PORT": free_port(), "POSTGRES_PASSWORD": CHOSEN}
        self.make = ["make", "--silent", "stack-deploy", f"STACK={STACK}", f"REPLICAS={REPLICAS}", f"ENV_FILE={empty}"]

    def deploy(self):
        done = subprocess.run(self.make, cwd=REPOSITORY, env=clean_environment(**self.settings), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def healthy(self):
        """The healthy containers of the service."""
        return docker("ps", "--quiet", "--filter", f"label=com.docker.swarm.service.name={SERVICE}", "--filter", "health=healthy").split()

    def request(self, container, method, path, body=None):
        """Sends a request to one task, by its address on the bridge: Swarm's load balancer requires a kernel module."""
        endpoints = json.loads(docker("network", "inspect", "docker_gwbridge"))[0]["Containers"].values()
        sandbox = inspect(container)["NetworkSettings"]["SandboxID"][:12]
        [address] = [end["IPv4Address"].partition("/")[0] for end in endpoints if end["Name"] == f"gateway_{sandbox}"]
        return ask(address, 8080, method, path, body)

    def answers(self, container, path="/hello"):
        """Whether a task answers; False if it is draining or has been removed."""
        try:
            return self.request(container, "GET", path).status == 200
        except (OSError, ValueError, AssertionError):
            return False


def ask(host, port, method, path, body=None):
    connection = http.client.HTTPConnection(host, port, timeout=30)
    headers = {"Content-Type": "application/json"} if body else {}
    try:
        connection.request(method, path, json.dumps(body) if body else None, headers)
        return Answer(connection.getresponse())
    finally:
        connection.close()


@pytest.fixture(scope="module")
def swarm(image, tmp_path_factory):
    was_active = docker("info", "--format", "{{.Swarm.LocalNodeState}}") == "active"
    if not was_active:
        docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    stack = Swarm(tmp_path_factory.mktemp("swarm"))
    try:
        stack.deploy()
        # Servers that wait for their database are healthy, too.
        until(lambda: sum(stack.answers(task, "/readyz") for task in stack.healthy()) == REPLICAS, "every replica is ready", deadline=180)
        yield stack
    finally:
        docker("stack", "rm", STACK, check=False)
        until(lambda: not docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.stack.namespace={STACK}"), "its tasks are gone", deadline=180)
        for kind in ["secret", "volume"]:
            for name in docker(kind, "ls", "--quiet", "--filter", f"name={STACK}").split():
                docker(kind, "rm", name, check=False)
        if not was_active:
            docker("swarm", "leave", "--force", check=False)


def test_what_one_replica_wrote_another_reads(swarm):
    first, second = swarm.healthy()
    created = swarm.request(first, "POST", "/v1/passengers", PASSENGER)
    assert created.status == 201, created
    uuid = created.json()["uuid"]
    assert swarm.request(second, "GET", f"/v1/passengers/{uuid}").json() == created.json()
    assert swarm.request(second, "GET", "/v1/air-quality").status == 200


def test_the_published_port_answers_by_any_node(swarm):
    if not os.path.exists("/proc/net/ip_vs"):
        pytest.skip("this kernel has no ip_vs, which Swarm's balancer is made of")
    until(lambda: ask("127.0.0.1", swarm.http, "GET", "/hello").status == 200, "the port answers")


def test_no_password_is_in_a_definition_or_a_variable(swarm):
    services = [docker("service", "inspect", name) for name in docker("stack", "services", "--quiet", STACK).split()]
    assert len(services) == 4
    for shown in [*services, *(docker("exec", task, "env") for task in swarm.healthy())]:
        assert CHOSEN not in shown
        assert "local-only" not in shown


def test_metrics_are_not_published(swarm):
    ports = json.loads(docker("service", "inspect", SERVICE))[0]["Endpoint"]["Spec"]["Ports"]
    assert {port["TargetPort"] for port in ports} == {8080, 8443}


def test_limits_are_those_of_compose(swarm):
    for task in swarm.healthy():
        host = inspect(task)["HostConfig"]
        assert (host["Memory"], host["PidsLimit"], host["ReadonlyRootfs"], host["CapDrop"]) == (256 << 20, 256, True, ["ALL"])


def test_the_number_of_serving_tasks_does_not_decrease_during_an_update(swarm):
    before = set(swarm.healthy())
    fewest = []

    def replaced():
        now = set(swarm.healthy())
        answering = sum(swarm.answers(task) for task in now)
        # A task that was already queried may have been replaced by a new one.
        if set(swarm.healthy()) == now:
            fewest.append(answering)
        return not before & now and len(now) == REPLICAS

    docker("service", "update", "--detach", "--env-add", "LOG=debug", SERVICE)
    until(replaced, "both tasks are other ones", deadline=240)
    assert min(fewest) >= REPLICAS


def test_an_update_that_cannot_start_is_rolled_back(swarm):
    before = set(swarm.healthy())
    docker("service", "update", "--detach", "--args", "pycrudapi no-such-command", SERVICE)

    def state():
        return (json.loads(docker("service", "inspect", SERVICE))[0].get("UpdateStatus") or {}).get("State")

    until(lambda: state() == "rollback_completed", "the update is rolled back", deadline=240)
    assert set(swarm.healthy()) >= before


def test_the_stack_file_says_what_it_cannot_read():
    done = subprocess.run([pathlib.Path(REPOSITORY, "scripts/stack"), "name"], input="", capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "standard input is empty; usage: docker-compose config | scripts/stack NAME\n"
