"""The pods of install/pycrudapi.yaml, run by the Docker engine as a cluster would: the same image references, arguments,
users, limits, volumes and probes, with file systems as a kubelet prepares them.

A cluster is not available everywhere; these tests find pods that cannot start, write or answer their probes.
"""

import base64
import http.client
import json
import re
import socket
import subprocess
import urllib.error
import urllib.request

import pytest
import yaml

from containers import IMAGE, PASSENGER, UP_SECONDS, VERSION, address, docker, inspect, logs
from support import REPOSITORY, Answer, until

MANIFEST = list(yaml.safe_load_all((REPOSITORY / "install" / "pycrudapi.yaml").read_text()))


def workload(name):
    (found,) = [each for each in MANIFEST if each["kind"] in ("Deployment", "StatefulSet") and each["metadata"]["name"] == name]
    return found


def secret(name):
    (found,) = [each for each in MANIFEST if each["kind"] == "Secret" and each["metadata"]["name"] == name]
    return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}


def value_of(variable, environment):
    """The value of an environment variable, as the kubelet resolves it."""
    source = variable.get("valueFrom", {})
    if "secretKeyRef" in source:
        return secret(source["secretKeyRef"]["name"])[source["secretKeyRef"]["key"]]
    if "fieldRef" in source:
        assert source["fieldRef"]["fieldPath"] == "metadata.namespace"
        return MANIFEST[0]["metadata"]["name"]
    return expand(variable["value"], environment)


def expand(text, environment):
    """Expands $(NAME), as the kubelet does in arguments and later variables."""
    return re.sub(r"\$\((\w+)\)", lambda name: environment.get(name[1], name[0]), text)


def volume_of(path, options):
    """A tmpfs volume mounted with exactly these options: --tmpfs would take the mode of the directory in the image."""
    return (
        f"--mount=type=volume,dst={path},volume-nocopy,volume-opt=type=tmpfs,volume-opt=device=tmpfs,"
        f'"volume-opt=o={options}"'
    )


class Pod:
    """The container of a workload's pod, and its init containers, which run before it."""

    def __init__(self, name, network, directory):
        self.name, self.network, self.directory = name, network, directory
        self.spec = workload(name)["spec"]["template"]["spec"]
        (self.container,) = self.spec["containers"]
        self.init = [self.run(each) for each in self.spec.get("initContainers", [])]
        self.id = None if self.init else self.run(self.container)

    def run(self, container):
        """Starts one container of the pod; returns its id."""
        environment = {}
        for variable in container["env"]:
            environment[variable["name"]] = value_of(variable, environment)

        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] and context["capabilities"] == {"drop": ["ALL"]}
        user, group = self.spec["securityContext"]["runAsUser"], self.spec["securityContext"]["fsGroup"]
        limits = container["resources"]["limits"]
        options = [
            "--detach", f"--network={self.network}", "--read-only", "--cap-drop=ALL",
            "--security-opt=no-new-privileges", f"--user={user}:{self.spec['securityContext']['runAsGroup']}",
            f"--group-add={group}", f"--memory={limits['memory'].removesuffix('i')}", f"--cpus={limits['cpu'].replace('500m', '0.5')}",
            "--no-healthcheck",
        ]  # fmt: skip
        if container is self.container:
            options.append(f"--network-alias={self.name}")
        options += [f"--env={each}={value}" for each, value in environment.items()]
        volumes = {volume["name"]: volume for volume in self.spec["volumes"]}
        for mount in container["volumeMounts"]:
            options.append(self.mount(mount, volumes.get(mount["name"], {}), group))
        image = {"pycrudapi": f"{IMAGE}:{VERSION}"}.get(self.name, container["image"])
        command = [expand(each, environment) for each in [*container.get("command", []), *container.get("args", [])]]
        return docker("run", *options, image, *command)

    def mount(self, mount, volume, group):
        path = mount["mountPath"]
        if "emptyDir" in volume:
            # As a kubelet creates it: owned by root and the group, writable for all.
            size = volume["emptyDir"]["sizeLimit"].removesuffix("i").lower()
            if path == "/dev/shm":
                return f"--shm-size={size}"
            return volume_of(path, f"uid=0,gid={group},mode=2777,size={size}")
        if "secret" in volume:
            folder = self.directory / volume["name"]
            folder.mkdir(exist_ok=True)
            for item in volume["secret"]["items"]:
                (folder / item["path"]).write_text(secret(volume["secret"]["secretName"])[item["key"]])
            return f"--volume={folder}:{path}:ro"
        # A claim: an empty file system owned by root, until fsGroup changes its group.
        return volume_of(path, f"uid=0,gid={group},mode=2770,size=512m")

    def passes(self, probe):
        """Whether the container currently passes this probe."""
        probe = self.container[f"{probe}Probe"]
        ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        timeout = probe["timeoutSeconds"]
        if "exec" in probe:
            command = ["docker", "exec", self.id, *probe["exec"]["command"]]
            try:
                return subprocess.run(command, capture_output=True, timeout=timeout).returncode == 0
            except subprocess.TimeoutExpired:
                return False
        kind = probe.get("httpGet") or probe["tcpSocket"]
        try:
            if "httpGet" in probe:
                url = f"http://{address(self.id)}:{ports[kind['port']]}{kind['path']}"
                return urllib.request.urlopen(url, timeout=timeout).status == 200
            socket.create_connection((address(self.id), ports[kind["port"]]), timeout=timeout).close()
            return True
        except (OSError, urllib.error.HTTPError):
            return False

    def started(self):
        for each in self.init:
            until(lambda: not inspect(each)["State"]["Running"], f"ended: {logs(each)[-2000:]}", UP_SECONDS)
            assert inspect(each)["State"]["ExitCode"] == 0, logs(each)
        self.id = self.id or self.run(self.container)
        probe = self.container["startupProbe"]
        until(lambda: self.passes("startup"), f"started: {logs(self.id)[-2000:]}", probe["timeoutSeconds"])

    def ready(self):
        until(lambda: self.passes("readiness") and self.passes("liveness"), f"ready: {logs(self.id)[-2000:]}")

    def request(self, method, path, body=None):
        connection = http.client.HTTPConnection(address(self.id), 8080, timeout=30)
        connection.request(method, path, body=json.dumps(body) if body else None,
                           headers={"content-type": "application/json"} if body else {})  # fmt: skip
        return Answer(connection.getresponse())

    def stop(self):
        """Stops with TERM or the signal of the image, and the grace period of the pod; returns the exit status."""
        docker("stop", "--time", self.spec["terminationGracePeriodSeconds"], self.id)
        return inspect(self.id)["State"]["ExitCode"]


@pytest.fixture
def pod(image, network, tmp_path):
    tmp_path.chmod(0o755)

    def run(name):
        folder = tmp_path / name
        folder.mkdir()
        return Pod(name, network, folder)

    return run


def test_the_pods_become_ready_in_any_order_and_serve(pod):
    # The API first, while no dependency is running or even resolvable.
    api = pod("pycrudapi")
    (migrate,) = api.init
    until(lambda: "waiting for postgres" in logs(migrate), "it waits")
    assert inspect(migrate)["State"]["Running"]

    redis, postgres = pod("redis"), pod("postgres0")
    for each in [redis, postgres, api]:
        each.started()
        each.ready()
    assert inspect(api.id)["RestartCount"] == 0

    created = api.request("POST", "/v1/passengers", PASSENGER)
    assert created.status == 201
    assert api.request("GET", f"/v1/passengers/{created.json()['uuid']}").status == 200
    assert len(api.request("GET", "/passengerlist").json()) == 892
    # Redis requires the password of the Secret.
    assert docker("exec", redis.id, "redis-cli", "ping") == "PONG"
    assert "NOAUTH" in docker("exec", "--env=REDISCLI_AUTH=", redis.id, "redis-cli", "ping", check=False)

    assert [each.stop() for each in [api, redis, postgres]] == [0, 0, 0]


def test_a_pod_stays_ready_while_its_database_is_down_and_serves_again_after_its_return(pod):
    postgres, api = pod("postgres0"), pod("pycrudapi")
    for each in [postgres, api]:
        each.started()
        each.ready()
    # Disconnected and not stopped, because its volume is in memory.
    docker("network", "disconnect", postgres.network, postgres.id)
    until(lambda: api.request("GET", "/readyz").status == 503, "it says so to people")
    assert api.passes("readiness") and api.passes("liveness")
    answer = api.request("GET", "/passengerlist")
    assert (answer.status, answer.headers.get("retry-after")) == (503, "1")
    assert api.request("GET", "/hello").status == 200
    # Killed and restarted as by the kubelet, without its init container.
    docker("restart", api.id)
    until(lambda: api.passes("startup") and api.passes("readiness"), "ready without its database")
    docker("network", "connect", "--alias", "postgres0", postgres.network, postgres.id)
    until(lambda: api.request("GET", "/passengerlist").status == 200, "served again")


def test_requests_use_the_unprivileged_role_and_the_server_has_no_other_password(pod):
    postgres, api = pod("postgres0"), pod("pycrudapi")
    for each in [postgres, api]:
        each.started()
        each.ready()
    ask = ["exec", postgres.id, "psql", "--quiet", "--username=postgres", "--tuples-only", "--no-align", "--command"]
    users = "select distinct usename from pg_stat_activity where client_addr is not null"
    until(lambda: docker(*ask, users) == "pycrudapi", "requests alone are connected")
    assert docker(*ask, "select rolsuper from pg_roles where rolname = 'pycrudapi'") == "f"
    assert docker(*ask, "select distinct tableowner from pg_tables where schemaname = 'public'") == "pycrudapi_owner"
    told = docker("exec", api.id, "python3", "-c", "import os; print(sorted(os.environ), os.listdir('/etc/pycrudapi/secrets'))")
    assert "MIGRATE_" not in told and "postgres-password" not in told


def test_liveness_notices_a_dead_nginx_and_a_dead_server(pod):
    postgres, api = pod("postgres0"), pod("pycrudapi")
    for each in [postgres, api]:
        each.started()
    for program in ["nginx", "server"]:
        control = ["exec", api.id, "supervisorctl", "-c", "/etc/pycrudapi/supervisord.conf"]
        docker(*control, "stop", program)
        assert not api.passes("liveness"), program
        docker(*control, "start", program)
        until(lambda: api.passes("liveness"), "alive again")


def test_five_pods_at_once_migrate_and_seed_once(pod, network, tmp_path):
    postgres = pod("postgres0")
    apis = []
    for number in range(5):
        folder = tmp_path / str(number)
        folder.mkdir()
        apis.append(Pod("pycrudapi", network, folder))
    for each in [postgres, *apis]:
        each.started()
        each.ready()
    assert {len(each.request("GET", "/passengerlist").json()) for each in apis} == {891}
    for seed in ("with passengers", "with synthetic air quality"):
        assert sum(logs(each.id).count(f"seeded the database {seed}") for each in apis) == 1, seed


def test_the_titanic_table_of_python_crud_api_is_carried_over_with_its_keys(pod):
    """The upgrade of docs/upgrading.md: the old table as CSV through `pycrudapi import`, instead of the bundled rows."""
    api, postgres = pod("pycrudapi"), pod("postgres0")
    for each in [postgres, api]:
        each.started()
        each.ready()
    psql = ["exec", postgres.id, "psql", "--quiet", "--username=postgres"]
    # The table as created by initdb.sql of that project.
    docker(*psql, "--command", "create database titanicdb")
    docker(*psql, "--dbname=titanicdb", "--command", """
        create table titanic (uuid uuid default gen_random_uuid() primary key, survived bool, "passengerClass" int,
            name varchar(150), sex varchar(6), age float, "siblingsOrSpousesAboard" int, "parentsOrChildrenAboard" int,
            fare float);
        insert into titanic (survived, "passengerClass", name, sex, age, "siblingsOrSpousesAboard",
            "parentsOrChildrenAboard", fare)
        values (true, 1, 'Astor, Mrs. John Jacob', 'female', 18, 1, 0, 227.525), (false, 3, 'O''Dwyer, Miss. "Nellie"', 'female', null, 0, 0, 7.8792)
    """)  # fmt: skip
    columns = (
        # Cast to text a boolean is true or false; in CSV it would be t or f.
        'uuid, survived::text, "passengerClass", name, sex, age, "siblingsOrSpousesAboard", "parentsOrChildrenAboard", fare'
    )
    rows = docker(*psql, "--dbname=titanicdb", "--command", f"\\copy (select {columns} from titanic) to stdout csv header")

    docker(*psql, "--command", "truncate passengers")
    docker("exec", "--interactive", api.id, "pycrudapi", "import", "-", input=rows + "\n")
    listed = {each["uuid"]: each["name"] for each in api.request("GET", "/passengerlist").json()}
    kept = docker(*psql, "--dbname=titanicdb", "--tuples-only", "--no-align", "--command", "select uuid from titanic")
    assert listed.keys() == set(kept.split())
    assert sorted(listed.values()) == ["Astor, Mrs. John Jacob", 'O\'Dwyer, Miss. "Nellie"']
