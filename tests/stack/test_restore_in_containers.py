"""The commands of docs/operations.md that restore a backup in Compose and in a cluster, on a PostgreSQL of this machine.

Each command of a container is run with the settings that the Compose file or the manifest gives that container.
"""

import re
import shlex
import subprocess

import pytest
import yaml

from postgres import Cluster
from support import PROGRAM, REPOSITORY, clean_environment

OPERATIONS = REPOSITORY / "docs" / "operations.md"
SECRETS = {"requests-user": "pycrudapi", "requests-password": "local-only", "postgres-password": "local-only"}
FILES = {"/etc/pycrudapi/secrets/requests-password": "requests-password", "/etc/pycrudapi/administrator/postgres-password": "postgres-password"}


class Place:
    """A PostgreSQL with the roles of a container's, and a folder of backups."""

    def __init__(self, cluster, directory):
        self.cluster, self.directory = cluster, directory
        for name in FILES.values():
            (directory / name).write_text(SECRETS[name])

    def run(self, command, **settings):
        environment = clean_environment(PGHOST="127.0.0.1", PGPORT=self.cluster.port, **settings)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def program(self, words, given):
        """A container's command with its settings, moved to this machine."""
        settings = {name: value for name, value in given.items() if value != ""}
        for name, value in settings.items():
            value = re.sub(r"\$\((\w+)\)", lambda found: settings[found[1]], value)
            value = re.sub(r"@postgres0?:5432/", f"@127.0.0.1:{self.cluster.port}/", value)
            settings[name] = str(self.directory / FILES[value]) if value in FILES else value
        if "POSTGRES_HOST" in settings:
            settings |= {"POSTGRES_HOST": "127.0.0.1", "POSTGRES_PORT": self.cluster.port}
        settings |= {"BACKUP_DIR": self.directory / "backups", "RESOURCES_DIR": REPOSITORY / "resources"}
        assert words[0] == "pycrudapi", words
        return self.run([PROGRAM, *words[1:]], **settings)

    def passengers(self):
        # As the role for requests, which must be able to read them.
        url = f"postgres://pycrudapi@127.0.0.1:{self.cluster.port}/postgres"
        return self.run(["psql", "-XqAt", "-c", "select name from passengers", url]).split()


def in_compose(name):
    """The command and the settings of a service, with the defaults of its variables."""
    services = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    services |= yaml.safe_load((REPOSITORY / "docker-compose.backup.yml").read_text())["services"]
    service = services[name]
    plain = lambda value: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))  # noqa: E731
    return service.get("command", []), {setting: plain(value) for setting, value in service["environment"].items()}


def in_cluster(name):
    objects = list(yaml.safe_load_all((REPOSITORY / "kustomize/components/backup/backup.yaml").read_text()))
    (job,) = [one for one in objects if one["kind"] == "CronJob" and one["metadata"]["name"] == name]
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    value = lambda one: one["value"] if "value" in one else SECRETS[one["valueFrom"]["secretKeyRef"]["key"]]  # noqa: E731
    return container["command"], {one["name"]: value(one) for one in container["env"]}


def commands(section):
    (text,) = re.findall(rf"(?ms)^### {section}\n(.*?)(?=^##)", OPERATIONS.read_text())
    return [line.strip() for line in re.search(r"(?m)(^    .*\n)+", text)[0].splitlines()]


def carried_out(place, line):
    """Runs a line of the documentation; returns what was done."""
    words = shlex.split(line)
    match words:
        case ["export", _] | ["kubectl", "config" | "wait", *_]:
            return None
        case ["docker-compose", "run", "--rm", service, *instead]:
            command, settings = in_compose(service)
            place.program(instead or command, settings)
            return service
        case ["kubectl", "create", "job", _, source]:
            place.program(*in_cluster(source.removeprefix("--from=cronjob/")))
            return source
        case ["docker-compose", "exec", "postgres", *command] | ["kubectl", "exec", "statefulset/postgres0", "--", *command]:
            return place.run(command)
        case ["docker-compose", "stop", "pycrudapi"] | ["kubectl", "scale", "deployment/pycrudapi", "--replicas=0"]:
            return "stopped"
        case ["docker-compose", "up", "-d"] | ["kubectl", "scale", "deployment/pycrudapi", _]:
            # What a start does first.
            place.program(["pycrudapi", "migrate"], in_compose("migrate")[1])
            return "started"
    raise AssertionError(f"unknown command: {line}")


@pytest.mark.parametrize(("section", "of"), [("Restore in Compose", in_compose), ("Restore in a cluster", in_cluster)])
def test_the_commands_of_the_documentation_bring_a_backup_back(directory, section, of):
    insert = "insert into passengers (uuid, survived, passenger_class, name, sex, siblings_or_spouses_aboard, parents_or_children_aboard, fare) values (gen_random_uuid(), true, 1, '{}', 'male', 0, 0, 1)"
    with Cluster() as cluster:
        place = Place(cluster, directory)
        place.program(["pycrudapi", "migrate"], in_compose("migrate")[1])
        cluster.psql("postgres", insert.format("before"))
        place.program(*of("backup"))
        cluster.psql("postgres", insert.format("after"))
        done = [carried_out(place, line) for line in commands(section)]
        assert "stopped" in done and "started" in done, done
        assert place.passengers() == ["before"]
        assert cluster.psql("before_restore", "select count(*) from passengers") == "2"
