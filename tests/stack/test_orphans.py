"""Any one or two processes of the stack are killed: no process is left, and `scripts/up` starts again at once."""

import contextlib
import itertools
import os
import signal
import subprocess

import pytest

import support
from support import REPOSITORY, until

KINDS = [
    "scripts/up", "supervisord", "pycrudapi serve", "nginx: master", "nginx: worker", "pycrudapi nginx-connections",
    "postgres -D", "checkpointer",
]


class Place:
    """A directory in which stacks are started one after the other, with the same settings."""

    def __init__(self, directory):
        self.directory = directory
        self.ports = {name: support.free_port() for name in ("HTTP_PORT", "HTTPS_PORT", "METRICS_PORT")}
        self.sessions = []

    def start(self):
        environment = support.clean_environment(TMPDIR=self.directory, DATA_DIR=self.directory / "data", **self.ports)
        self.log = self.directory / f"log-{len(self.sessions)}"
        with open(self.log, "wb") as output:
            process = subprocess.Popen(
                [REPOSITORY / "scripts" / "up"], env=environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, start_new_session=True,
            )  # fmt: skip
        self.sessions.append(process)
        until(lambda: process.poll() is not None or "Ctrl-C stops it" in self.log.read_text(), "ready", 120)
        assert process.poll() is None, self.log.read_text()
        return process

    def processes(self, session):
        return support.processes_of(session, self.directory)

    def find(self, session, kinds):
        """A process of each kind, or None if one is missing, for example while it is being replaced."""
        processes = self.processes(session)
        found = [next((pid for pid, line in processes.items() if kind in line), None) for kind in kinds]
        return None if None in found else found

    def is_ready(self):
        with contextlib.suppress(OSError, support.http.client.HTTPException):
            return support.request(self.ports["HTTP_PORT"], "GET", "/readyz", timeout=5).status == 200

    def destroy(self):
        for process in self.sessions:
            for pid in self.processes(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def place(directory):
    one = Place(directory)
    yield one
    one.destroy()


def test_whichever_processes_are_killed_the_next_start_works_and_nothing_is_left(place):
    victims = [(kind,) for kind in KINDS] + list(itertools.combinations(KINDS, 2))
    process = place.start()
    for kinds in victims:
        found = until(lambda: place.find(process.pid, kinds), f"processes of {kinds}")
        for pid in found:
            # The previous one may have taken it down.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not {"scripts/up", "supervisord"} & set(kinds):
            until(lambda: not set(found) & set(place.processes(process.pid)), f"{kinds}: they are gone")
            until(place.is_ready, f"{kinds}: the stack has recovered\n{place.log.read_text()[-3000:]}")
            process.kill()
        # Started at once, while the old processes are still stopping.
        before = place.processes(process.pid)
        again = place.start()
        process.wait(60)
        until(lambda: not set(before) & set(place.processes(again.pid)), f"{kinds}: nothing of it is left")
        process = again
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    until(lambda: not place.processes(process.pid), f"nothing is left: {place.processes(process.pid)}")


def test_a_server_whose_parent_has_gone_stops_and_answers_what_it_has_begun(stack):
    one = stack()
    server = one.server_pid()
    one.process.signal(signal.SIGKILL)
    until(lambda: server not in one.processes(), "the server has stopped")
    until(lambda: not one.processes(), f"nothing is left: {one.processes()}")


def test_a_server_whose_parent_went_before_it_began_does_not_start(directory):
    gone = subprocess.Popen(["true"])
    gone.wait()
    settings = {"PARENT_PID": gone.pid, "DATA_DIR": directory / "data", "LISTEN": "127.0.0.1:0"}
    done = subprocess.run(
        [support.PROGRAM, "serve"], env=support.clean_environment(**settings), capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1 and "PARENT_PID" in done.stderr, done
    assert not (directory / "data").exists()
    nginx = subprocess.run(
        [support.PROGRAM, "nginx"],
        env=support.clean_environment(PARENT_PID=gone.pid, RUN_DIR=directory / "run"), capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip
    assert nginx.returncode == 1 and "the parent process has gone" in nginx.stderr, nginx


def test_a_stack_that_lives_is_left_alone_by_another_start(place):
    process = place.start()
    before = place.processes(process.pid)
    environment = support.clean_environment(TMPDIR=place.directory, DATA_DIR=place.directory / "data", **place.ports)
    done = subprocess.run(
        [REPOSITORY / "scripts" / "up"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0 and "is busy" in done.stderr, done
    assert place.is_ready()
    assert set(before) <= set(place.processes(process.pid))
