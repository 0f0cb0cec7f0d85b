"""Servers are replaced one by one under clients that keep their connections open and never retry: no request fails.

Formerly a change sent while a keep-alive connection was being closed was answered 502, because it may have been applied.
"""

import http.client
import itertools
import json
import os
import pathlib
import signal
import subprocess
import threading

import pytest

from support import PASSENGER, PROGRAM, REPOSITORY, Answer, Nginx, Process, clean_environment, free_port, running_stack, until

CLIENTS = 6


class Clients:
    """Clients with one connection each, which they reopen only after `Connection: close`; unexpected answers are recorded."""

    def __init__(self, port):
        self.port, self.count, self.failures = port, 0, []
        self._lock, self._over = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body, kind = json.dumps(PASSENGER), {"content-type": "application/json"}
        connection.request("POST", "/v1/passengers", body=body, headers=kind)
        created = Answer(connection.getresponse())
        assert created.status == 201, created
        path = created.headers["location"]
        turns = itertools.cycle([("POST", "/v1/passengers", 201), ("PUT", path, 200), ("GET", path, 200)])
        while not self._over.is_set():
            method, target, expected = next(turns)
            try:
                connection.request(method, target, body=None if method == "GET" else body, headers=kind)
                answer = Answer(connection.getresponse())
                failure = None if answer.status == expected else f"{method} {answer}"
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                failure = f"{method} {error!r}"
            with self._lock:
                self.count += 1
                if failure:
                    self.failures.append(failure)
        connection.close()

    def more(self, count):
        target = self.count + count
        until(lambda: self.count >= target, f"{count} more answers; failed: {self.failures[:3]}", 120)

    def assert_none_failed(self):
        assert not self.failures, f"{len(self.failures)} of {self.count}: {self.failures[:5]}"


class Server:
    """One of several servers on the same database, on its own socket or port."""

    def __init__(self, place, database):
        self.place, self.database = place, database
        self.process = None

    def start(self):
        settings = {"DATABASE_URL": self.database, "LISTEN": self.place, "MIGRATE": "false", "METRICS_LISTEN": "off"}
        self.environment = clean_environment(**settings, LOG="info,access=info", HEALTHCHECK_URL=self.probe)
        self.process = Process([PROGRAM, "serve"], self.environment)
        until(lambda: not self.process.running or self._is_ready(), f"ready: {self.process.output[-2000:]}", 60)
        assert self.process.running, self.process.output
        if self.place.startswith("unix:"):
            # nginx's workers are not root, like the processes in a container.
            os.chmod(self.place.removeprefix("unix:"), 0o666)

    @property
    def probe(self):
        return self.place if self.place.startswith("unix:") else f"http://{self.place}/readyz"

    def _is_ready(self):
        return subprocess.run([PROGRAM, "healthcheck"], env=self.environment, capture_output=True).returncode == 0

    def is_given_changes(self):
        return any('http.method="POST"' in line for line in self.process.lines)

    def stop(self):
        self.process.signal(signal.SIGTERM)
        assert self.process.wait() == 0, self.process.output
        assert "aborted at the deadline" not in self.process.output


@pytest.fixture(scope="module")
def database():
    """The URL of a migrated database."""
    with running_stack(ACCESS_LOG="off", LOG="info,access=off") as one:
        socket = next(pathlib.Path(one.data_dir).glob("**/run/.s.PGSQL.*[0-9]"))
        yield f"host={socket.parent} user=pycrudapi dbname=postgres"


@pytest.fixture
def several(directory, database):
    """several(kind): two servers behind nginx."""
    started = []

    def start(kind):
        places = [f"unix:{directory}/{number}" if kind == "unix" else f"127.0.0.1:{free_port()}" for number in range(2)]
        servers = [Server(place, database) for place in places]
        started.extend(servers)
        for one in servers:
            one.start()
        front = directory / "front"
        front.mkdir(mode=0o755)
        nginx = Nginx(front, UPSTREAM=",".join(places), RATE_LIMIT="off", CONN_LIMIT="off", ACCESS_LOG="off")
        started.append(nginx)
        return nginx, servers

    yield start
    for one in reversed(started):
        if isinstance(one, Nginx):
            one.stop()
        elif one.process and one.process.running:
            one.stop()


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_servers_that_are_replaced_one_by_one_fail_no_request(several, kind):
    nginx, servers = several(kind)
    with Clients(nginx.port) as clients:
        clients.more(200)
        for one in servers * 3:
            one.stop()
            clients.more(200)
            one.start()
            # nginx sends no requests to a server for two seconds after two refusals; the other is replaced when this one receives requests again.
            until(one.is_given_changes, "it is given changes again")
    clients.assert_none_failed()


def test_the_server_of_a_stack_that_is_restarted_fails_no_request():
    with running_stack(RATE_LIMIT="off", CONN_LIMIT="off", ACCESS_LOG="off", LOG="info,access=off") as one:
        control = ["supervisorctl", "-c", REPOSITORY / "supervisord.conf", "restart", "server"]
        with Clients(one.port) as clients:
            for _ in range(3):
                clients.more(200)
                done = subprocess.run(control, env=one.environment, capture_output=True, text=True)
                assert done.returncode == 0, done
            clients.more(200)
        clients.assert_none_failed()
