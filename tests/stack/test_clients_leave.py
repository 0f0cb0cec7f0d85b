"""When a client of nginx disconnects, no statement keeps running in PostgreSQL, over HTTP/1.1 and HTTP/2."""

import json
import pathlib
import socket
import subprocess

import pytest

import support
from support import PASSENGER, running_stack, until

SETTINGS = {"STATEMENT_TIMEOUT_MS": 600_000, "CHECKOUT_TIMEOUT_MS": 60_000, "UPSTREAM_TIMEOUT_MS": 600_000, "TLS_SELF_SIGNED": "true"}


@pytest.fixture(scope="module")
def stack():
    with running_stack(**SETTINGS) as one:
        yield one


class Database:
    """psql on the embedded PostgreSQL of the stack, as the operating-system user of PostgreSQL."""

    def __init__(self, stack):
        self.socket = next(pathlib.Path(stack.data_dir).glob("**/run/.s.PGSQL.*[0-9]"))
        owner = self.socket.stat()
        self._options = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if owner.st_uid else {}

    def psql(self, *arguments, **options):
        command = ["psql", "-h", self.socket.parent, "-U", "postgres", "-AtX", *arguments]
        return subprocess.Popen(command, cwd="/", text=True, stdout=subprocess.PIPE, **self._options, **options)

    def active(self):
        """The number of running statements of the server, without the one that listens for changes."""
        said, _ = self.psql(
            "-c",
            "select count(*) from pg_stat_activity where application_name = 'pycrudapi' and state = 'active' "
            "and query <> 'select generation from air_quality_generation'",
        ).communicate()
        return int(said)


@pytest.fixture
def locked(stack):
    """The database, with every table of the resources locked."""
    database = Database(stack)
    locker = database.psql(stdin=subprocess.PIPE)
    try:
        print("begin; lock table passengers, steps, air_quality in access exclusive mode; select 'locked';", file=locker.stdin, flush=True)
        while "locked" not in locker.stdout.readline():
            assert locker.poll() is None, "psql ended"
        yield database
    finally:
        locker.communicate("rollback;")


REQUESTS = [
    ("GET", "/v1/passengers?fare=gt.1", b""),
    ("GET", "/v1/passengers/stats?by=sex", b""),
    ("GET", "/v1/steps/durations?summary=true&format=csv", b""),
    ("GET", "/v1/air-quality?entity=x", b""),
    ("GET", "/v1/passengers/01890000-0000-7000-8000-000000000000", b""),
    ("POST", "/v1/passengers", json.dumps([PASSENGER, PASSENGER]).encode()),
]


@pytest.mark.parametrize("method, path, body", REQUESTS)
def test_leaving_over_http_1(stack, locked, method, path, body):
    headers = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
    with socket.create_connection(("127.0.0.1", stack.port)) as connection:
        connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode() + body)
        until(lambda: locked.active() == 1, "the statement waits for the lock")
    until(lambda: locked.active() == 0, "the statement has been cancelled")


@pytest.mark.parametrize("method, path, body", REQUESTS)
def test_leaving_over_http_2(stack, locked, method, path, body):
    command = ["curl", "--silent", "--insecure", "--http2", "--request", method, f"https://localhost:{stack.https_port}{path}"]
    if body:
        command += ["--header", "Content-Type: application/json", "--data-binary", body.decode()]
    client = subprocess.Popen(command, env=support.clean_environment(), stdout=subprocess.DEVNULL)
    try:
        until(lambda: locked.active() == 1, "the statement waits for the lock")
    finally:
        client.kill()
        client.wait()
    until(lambda: locked.active() == 0, "the statement has been cancelled")
