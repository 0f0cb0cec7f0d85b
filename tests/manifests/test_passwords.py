"""No password is on a command line, because command lines are visible to every user of the machine."""

import os
import re
import subprocess

import pytest
import yaml

from conftest import ROOT
from ports import free_port
from test_manifests import containers, main_container, named, workloads

PASSWORD = "it's \"one\" $HOME `id` \\n #1"
# The syntax with which Kubernetes substitutes the value of a variable.
REFERENCE = re.compile(r"(?<!\$)\$\((\w+)\)")


def compose_services():
    with open(ROOT / "docker-compose.yml", encoding="utf-8") as file:
        return yaml.safe_load(file)["services"]


def words(service):
    return [*service.get("entrypoint", []), *service.get("command", [])]


def test_no_container_of_the_manifests_has_a_secret_on_its_command_line(overlay):
    for workload in workloads(overlay):
        for container in containers(workload):
            secrets = {each["name"] for each in container.get("env", []) if "secretKeyRef" in each.get("valueFrom", {})}
            line = " ".join(container.get("command", []) + container.get("args", []))
            assert not secrets & set(REFERENCE.findall(line)), (container["name"], line)


def test_no_service_of_compose_has_a_password_on_its_command_line():
    for name, service in compose_services().items():
        # Compose substitutes $NAME; $$NAME is left to the shell of the container.
        assert not re.search(r"(?<!\$)\$\{?\w*PASSWORD", " ".join(words(service))), name


def redis_commands(overlay):
    container = main_container(named(overlay, "Deployment", "redis"))
    return [container["args"], [word.replace("$$", "$") for word in words(compose_services()["redis"])]]


def test_redis_asks_for_the_password_and_shows_it_to_nobody(overlay):
    if not any(each["metadata"]["name"] == "redis" for each in workloads(overlay)):
        pytest.skip("this overlay has no Redis")
    for command in redis_commands(overlay):
        port = str(free_port())
        environment = {"PATH": os.environ["PATH"], "REDISCLI_AUTH": PASSWORD}
        redis = subprocess.Popen([*command, "--port", port], env=environment, stdout=subprocess.PIPE, text=True)
        try:
            for line in redis.stdout:
                if "Ready to accept connections" in line:
                    break

            def ping(password):
                arguments = ["redis-cli", "-p", port, "ping"]
                return subprocess.run(arguments, env=environment | {"REDISCLI_AUTH": password}, capture_output=True, text=True, timeout=30).stdout

            assert ping(PASSWORD) == "PONG\n"
            assert "NOAUTH" in ping("wrong")
            with open(f"/proc/{redis.pid}/cmdline", encoding="utf-8") as file:
                shown = file.read()
            assert "redis-server" in shown and PASSWORD not in shown
        finally:
            redis.terminate()
            redis.wait(30)
            redis.stdout.close()
