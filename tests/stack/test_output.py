"""Output that is not read, whose reader has exited, or whose disk is full: no program blocks, fails or exits because of it."""

import contextlib
import os
import re
import signal
import subprocess
import threading

import pytest

import support
from support import REPOSITORY, until

# More than the pipe and all buffers on the way hold together, with about 400 bytes per line of nginx's log.
REQUESTS = 12_000


class Up:
    """`scripts/up` with its output redirected by a test."""

    def __init__(self, directory, output, **settings):
        self.directory = directory
        self.port, self.metrics_port = support.free_port(), support.free_port()
        environment = support.clean_environment(
            TMPDIR=directory, DATA_DIR=directory / "data", HTTP_PORT=self.port, HTTPS_PORT=support.free_port(),
            METRICS_PORT=self.metrics_port, RATE_LIMIT="off", **settings,
        )  # fmt: skip
        self.process = subprocess.Popen(
            [REPOSITORY / "scripts" / "up"], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip

    def wait_ready(self):
        until(lambda: self.process.poll() is not None or self.is_ready(), "ready", 120)
        assert self.process.poll() is None
        return self

    def is_ready(self):
        with contextlib.suppress(OSError, support.http.client.HTTPException):
            return support.request(self.port, "GET", "/readyz", timeout=5).status == 200

    def flood(self, count):
        """Sends requests on one connection, and asserts that each is answered."""
        connection = support.http.client.HTTPConnection("127.0.0.1", self.port, timeout=support.DEADLINE_SECONDS)
        with contextlib.closing(connection):
            for number in range(count):
                connection.request("GET", "/hello", headers={"User-Agent": f"{number} {100 * 'x'}"})
                answer = connection.getresponse()
                assert (answer.status, answer.read()) == (200, b'{"message":"ok"}')

    def dropped(self):
        metrics = support.request(self.metrics_port, "GET", "/metrics").body.decode()
        return int(re.search(r"^log_lines_dropped_total (\d+)$", metrics, re.M)[1])

    def processes(self):
        return support.processes_of(self.process.pid, self.directory)

    def server(self):
        return next((pid for pid, line in self.processes().items() if line.startswith("pycrudapi serve")), None)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        until(lambda: not self.processes(), f"nothing is left: {self.processes()}")
        return status

    def destroy(self):
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def up(directory):
    made = []

    def start(output, **settings):
        made.append(Up(directory, output, **settings))
        return made[-1].wait_ready()

    yield start
    for one in made:
        one.destroy()


def kill_the_server(one):
    first = one.server()
    os.kill(first, signal.SIGKILL)
    until(lambda: one.server() not in (None, first), "supervisord starts another")
    until(one.is_ready, "it answers")


def test_output_that_nobody_reads_stops_nothing_and_flows_again(up):
    reader, writer = os.pipe()
    one = up(writer)
    os.close(writer)
    one.flood(REQUESTS)
    until(lambda: one.dropped() > 0, "lines were dropped")
    kill_the_server(one)
    one.flood(1000)
    until(lambda: one.dropped() > 0, "the new server counts them, too")

    lines = []

    def read():
        with open(reader, "rb") as output:
            lines.extend(output)

    reading = threading.Thread(target=read)
    reading.start()
    told = re.compile(rb"^(\d+) log lines were dropped because nobody read this output$")
    until(lambda: any(told.match(line) for line in list(lines)), "the log says how many it lacks")
    one.flood(1)
    assert one.stop() == 0
    reading.join(support.DEADLINE_SECONDS)
    text = b"".join(lines)
    assert b"pycrudapi is ready" in text
    assert text.count(b'"user_agent":"0 x') >= 2, "the last request is logged"
    # Whole lines: those of nginx are JSON, and no other line begins like them.
    for line in text.splitlines():
        if b'"log":"nginx.access"' in line:
            assert line.startswith(b'{"time"') and line.endswith(b"}"), line


def test_a_stack_that_nobody_reads_can_be_stopped(up):
    reader, writer = os.pipe()
    one = up(writer)
    os.close(writer)
    one.flood(REQUESTS)
    assert one.stop() == 0
    os.close(reader)


def closed_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize("output", [closed_pipe, lambda: os.open("/dev/full", os.O_WRONLY)], ids=["closed", "full"])
def test_output_that_takes_nothing_stops_nothing(up, output):
    descriptor = output()
    one = up(descriptor)
    os.close(descriptor)
    one.flood(500)
    kill_the_server(one)
    one.flood(500)
    until(lambda: one.dropped() > 500, "lines are counted")
    assert one.stop() == 0


def test_a_reader_that_goes_stops_nothing(up):
    reader, writer = os.pipe()
    one = up(writer)
    os.close(writer)
    one.flood(100)
    os.close(reader)
    one.flood(500)
    kill_the_server(one)
    assert one.stop() == 0
