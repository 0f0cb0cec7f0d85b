"""`docker-compose up` on a real engine: what it starts, how it is confined, and which failures it survives."""

import json
import re
import socket
import subprocess
import urllib.request

import pytest

from containers import PASSENGER, Load, address, docker, inspect, kill_from_outside, logs, wait_restarted
from support import until

SERVICES = ["pycrudapi", "postgres", "redis"]


@pytest.fixture(scope="module")
def stack(project):
    """The service, started without existing containers, volumes or .env."""
    return project("pycrudapi-test-compose", "docker-compose.yml").up("--build")


# --- what it starts ---


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_passengers_are_created_read_changed_and_deleted(stack, tls):
    created = stack.request("POST", "/postpassenger", PASSENGER, tls=tls)
    assert created.status == 201, created
    uuid = created.json()["uuid"]
    assert created.json() == {"uuid": uuid, **PASSENGER}
    changed = {**PASSENGER, "age": None, "name": "Put-Test-Name"}
    assert stack.request("PUT", f"/putpassenger/{uuid}", changed, tls=tls).status == 200
    assert stack.request("GET", f"/v1/passengers/{uuid}", tls=tls).json() == {"uuid": uuid, **changed}
    assert stack.request("DELETE", f"/deletepassenger/{uuid}", tls=tls).status == 204
    assert stack.request("GET", f"/getpassenger/{uuid}", tls=tls).status == 404


def test_a_fresh_database_holds_the_real_passengers(stack):
    assert len(stack.request("GET", "/passengerlist").json()) >= 891


def test_http_and_https_are_published_metrics_to_this_machine_and_nothing_else(stack):
    published = {}
    for service in SERVICES:
        ports = inspect(stack.container(service))["NetworkSettings"]["Ports"]
        published[service] = {port for port, bindings in ports.items() if bindings}
        for binding in ports.get("9464/tcp") or []:
            assert binding["HostIp"] == "127.0.0.1"
    assert published == {"pycrudapi": {"8080/tcp", "8443/tcp", "9464/tcp"}, "postgres": set(), "redis": set()}
    with urllib.request.urlopen(f"http://127.0.0.1:{stack.metrics}/metrics") as answer:
        assert b"http_server_request_duration_seconds" in answer.read()


def test_postgres_and_redis_have_no_external_network(stack):
    for service in ["postgres", "redis"]:
        for network in inspect(stack.container(service))["NetworkSettings"]["Networks"]:
            assert inspect(network)["Internal"] is True


def test_metrics_are_there_for_another_container_and_not_through_nginx(stack):
    answer = docker("exec", stack.container("pycrudapi"), "python3", "-c",
                    "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9464/metrics').read().decode())")  # fmt: skip
    assert "http_server_request_duration_seconds" in answer
    assert stack.request("GET", "/metrics").status == 404


def test_requests_use_the_unprivileged_role_and_the_service_has_no_other_password(stack):
    state = stack.state("migrate")
    assert (state["Status"], state["ExitCode"]) == ("exited", 0), logs(stack.container("migrate"))
    ask = ["exec", stack.container("postgres"), "psql", "--quiet", "--username=postgres", "--tuples-only", "--no-align", "--command"]
    assert stack.request("GET", "/v1/passengers").status == 200
    users = "select distinct usename from pg_stat_activity where client_addr is not null"
    until(lambda: docker(*ask, users) == "pycrudapi", "requests alone are connected")
    assert docker(*ask, "select rolsuper from pg_roles where rolname = 'pycrudapi'") == "f"
    assert docker(*ask, "select distinct tableowner from pg_tables where schemaname = 'public'") == "pycrudapi_owner"
    environment = inspect(stack.container("pycrudapi"))["Config"]["Env"]
    assert not [each for each in environment if each.startswith("MIGRATE_")]


# --- confinement ---


@pytest.mark.parametrize(("service", "user"), [("pycrudapi", 10001), ("postgres", 999), ("redis", 999)])
def test_every_process_is_an_ordinary_user_without_capabilities(stack, service, user):
    status = docker("exec", stack.container(service), "cat", "/proc/1/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == 4 * [str(user)]
    assert {int(fields[name], 16) for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]} == {0}
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    # The child processes according to ps on the host, where the first column is the real user id.
    shown = lambda: [line for line in docker("top", stack.container(service), "-eo", "uid,pid,args").splitlines()[1:] if line.split()[0] != str(user)]  # noqa: E731
    # The process of a health check is root until the engine has entered the container.
    until(lambda: not shown(), f"every process is the user's: {shown()}")


@pytest.mark.parametrize("service", SERVICES)
def test_the_root_file_system_is_read_only_and_untouched(stack, service):
    container = stack.container(service)
    assert inspect(container)["HostConfig"]["ReadonlyRootfs"] is True
    done = subprocess.run(["docker", "exec", "--user=0", container, "touch", "/etc/written"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr
    # The engine creates mount points; nothing else differs from the image.
    mounts = {mount["Destination"] for mount in inspect(container)["Mounts"]} | inspect(container)["HostConfig"]["Tmpfs"].keys()
    for change in docker("diff", container).splitlines():
        kind, path = change.split(" ", 1)
        assert kind != "D", change
        assert any(mount == path or mount.startswith(f"{path}/") for mount in mounts), change


def test_it_writes_to_tmp_its_run_directory_and_its_spool_only(stack):
    writable = docker("exec", stack.container("pycrudapi"), "python3", "-c", """
import os
for line in open('/proc/mounts'):
    path, kind, options = line.split()[1:4]
    if 'rw' in options.split(',') and not path.startswith('/proc') and kind not in ('devpts', 'mqueue') and os.access(path, os.W_OK):
        print(path)
""")  # fmt: skip
    assert set(writable.split()) - {"/dev/shm"} == {"/tmp", "/run/pycrudapi", "/var/spool/pycrudapi"}


def test_no_process_is_a_shell(stack):
    processes = docker("top", stack.container("pycrudapi"), "-eo", "pid,comm").splitlines()[1:]
    names = {line.split()[1] for line in processes}
    assert {"nginx", "pycrudapi", "supervisord"} <= names
    assert not names & {"sh", "bash", "dash", "ash", "busybox"}


def test_it_runs_without_any_shell_or_tool(stack, image):
    keep = "{'python3', 'python3.13', 'supervisord', 'nginx'}"
    dockerfile = f"""
        FROM {image}
        USER 0
        RUN ["python3", "-c", "import os; [os.remove(f'/usr/{{d}}/{{f}}') for d in ('bin', 'sbin') for f in os.listdir(f'/usr/{{d}}') if f not in {keep}]"]
        USER 10001:10001
    """
    bare = f"{image}-bare"
    docker("build", "--tag", bare, "-", input="\n".join(line.strip() for line in dockerfile.splitlines()))
    name, version = bare.split(":")
    try:
        stack.up(IMAGE=name, VERSION=version)
        assert stack.request("GET", "/hello").status == 200
        assert stack.request("GET", "/hello", tls=True).status == 200
        missing = docker("exec", stack.container("pycrudapi"), "sh", "-c", "true", check=False)
        assert "not found" in missing
    finally:
        stack.up()
        docker("rmi", bare)


# --- failures ---


def test_data_is_kept_over_down_and_up(stack):
    uuid = stack.request("POST", "/v1/passengers", PASSENGER).json()["uuid"]
    before = len(stack.request("GET", "/passengerlist").json())
    stack("down")
    stack.up()
    assert stack.request("GET", f"/v1/passengers/{uuid}").json() == {"uuid": uuid, **PASSENGER}
    assert len(stack.request("GET", "/passengerlist").json()) == before


def test_a_killed_service_comes_back(stack):
    container = stack.container("pycrudapi")
    restarts = inspect(container)["RestartCount"]
    kill_from_outside(container)
    wait_restarted(container, restarts)
    stack.wait_healthy("pycrudapi")
    assert stack.request("GET", "/readyz").status == 200


def test_a_killed_database_comes_back_and_no_acknowledged_write_is_lost(stack):
    uuid = stack.request("POST", "/v1/passengers", PASSENGER).json()["uuid"]
    container, api = stack.container("postgres"), stack.container("pycrudapi")
    started, restarts = inspect(api)["State"]["StartedAt"], inspect(container)["RestartCount"]
    kill_from_outside(container)
    wait_restarted(container, restarts)
    seen = set()

    def read():
        answer = stack.request("GET", f"/v1/passengers/{uuid}")
        seen.add((answer.status, "retry-after" in answer.headers))
        return answer.status == 200

    until(read, "the passenger is read again")
    assert seen <= {(200, False), (503, True)}, "until then every answer says to come back"
    assert inspect(api)["State"]["StartedAt"] == started, "the service itself need not restart"


def test_without_its_database_it_lives_and_is_not_ready(stack):
    stack("stop", "postgres")
    try:
        until(lambda: stack.request("GET", "/readyz").status == 503, "not ready")
        assert stack.request("GET", "/livez").status == 200
        answer = stack.request("GET", "/passengerlist")
        assert answer.status == 503
        assert "retry-after" in answer.headers
        done = subprocess.run(["docker", "exec", stack.container("pycrudapi"), "pycrudapi", "healthcheck"], capture_output=True)
        assert done.returncode == 1
    finally:
        stack("start", "postgres")
    until(lambda: stack.request("GET", "/readyz").status == 200, "ready again")


def test_a_stop_answers_every_request_that_was_accepted(stack):
    """nginx drains before the server stops: requests whose bodies arrive after the beginning of the stop are still stored."""
    container = stack.container("pycrudapi")
    ip = address(container)
    body = json.dumps({**PASSENGER, "name": "Stopped-In-Between"}).encode()
    head = (
        f"POST /v1/passengers HTTP/1.1\r\nHost: {ip}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    ).encode()
    waiting = [socket.create_connection((ip, 8080), timeout=30) for _ in range(20)]
    for connection in waiting:
        connection.sendall(head + body[:10])
    # Each has been accepted and its head read when a later request from the same address is answered.
    assert stack.request("GET", "/hello").status == 200

    stopping = subprocess.Popen(["docker", "stop", "--time", "60", container], stdout=subprocess.DEVNULL)

    def refuses():
        try:
            socket.create_connection((ip, 8080), timeout=5).close()
        except OSError:
            return True
        return False

    until(refuses, "nginx accepts no more")
    answers = []
    for connection in waiting:
        connection.sendall(body[10:])
    for connection in waiting:
        with connection:
            answers.append(b"".join(iter(lambda: connection.recv(65536), b"")))
    assert stopping.wait(timeout=60) == 0
    assert [answer.split(b"\r\n", 1)[0] for answer in answers] == 20 * [b"HTTP/1.1 201 Created"]
    state = inspect(container)["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False), logs(container)[-2000:]

    stack.up()
    for answer in answers:
        uuid = re.search(rb'"uuid":"([0-9a-f-]+)"', answer)[1].decode()
        assert stack.request("GET", f"/v1/passengers/{uuid}").status == 200


def test_a_stop_under_load_breaks_no_answer(stack):
    """New connections may be refused; every started answer is complete, and none is an error."""
    container = stack.container("pycrudapi")
    with Load(stack, lambda: ("GET", "/passengerlist", None, 200)) as load:
        load.more(50)
        docker("stop", "--time", "60", container)
    assert inspect(container)["State"]["ExitCode"] == 0
    refused = ("ConnectionRefusedError", "ConnectionResetError", "RemoteDisconnected")
    assert not [each for each in load.failures if not each.startswith(refused)], load.failures[:5]
    stack.up()
