"""`make up` as a new user runs it, and its message for a port in use."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess

import pytest

import support
from support import PASSENGER, REPOSITORY, request, until


# The release build, if there is none for these sources and flags yet.
BUILD_SECONDS = 1800
pytestmark = pytest.mark.timeout(BUILD_SECONDS + 600)


@pytest.fixture(scope="module")
def build():
    """Builds in advance, so that the start does not include the compilation."""
    subprocess.run(["cargo", "build", "--release"], cwd=REPOSITORY, check=True, timeout=BUILD_SECONDS)


class Up:
    """`make up` in its own session."""

    def __init__(self, directory, **settings):
        self.directory = directory
        self.ports = {name: support.free_port() for name in ("HTTP_PORT", "HTTPS_PORT", "METRICS_PORT")}
        self.settings = {**self.ports, "DATA_DIR": directory / "data", **settings}
        self.port = self.settings["HTTP_PORT"]
        # As on a command line: make passes them to the commands that it runs.
        words = [f"{name}={value}" for name, value in self.settings.items()]
        self.process = support.Process(
            ["make", "--no-print-directory", "up", *words], support.clean_environment(TMPDIR=directory)
        )

    def wait_ready(self):
        until(lambda: not self.process.running or "Ctrl-C stops it" in self.process.output, "the announcement", 120)
        assert self.process.running, self.process.output
        return self

    def interrupt(self):
        """Ctrl-C, which the terminal sends to every process of the group."""
        self.process.signal(signal.SIGINT, group=True)
        self.process.wait()
        left = support.processes_of(self.process.pid, self.directory)
        until(lambda: not support.processes_of(self.process.pid, self.directory), f"nothing is left: {left}")

    def destroy(self):
        if self.process.running:
            self.process.signal(signal.SIGINT, group=True)
            self.process.wait()
        for pid in support.processes_of(self.process.pid, self.directory):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def up(directory, build):
    made = []

    def start(where="up", **settings):
        place = directory / where
        place.mkdir(exist_ok=True)
        place.chmod(0o755)
        made.append(Up(place, **settings))
        return made[-1]

    yield start
    for one in reversed(made):
        one.destroy()


def test_it_announces_the_url_with_four_lines_that_work_and_ctrl_c_leaves_nothing(up):
    one = up().wait_ready()
    assert f"http://localhost:{one.port}" in one.process.output
    commands = [line.strip() for line in one.process.lines if line.startswith("  curl ")]
    assert len(commands) == 4
    for command in commands:
        done = subprocess.run(
            ["bash", "-c", command.replace("curl", "curl --silent --show-error --fail", 1)],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0 and done.stdout, (command, done)
    one.interrupt()
    assert "Error" not in one.process.output, one.process.output
    assert os.listdir(one.directory) == ["data"], "the run directory is left"


def test_little_is_said_before_the_announcement(up):
    one = up().wait_ready()
    before = one.process.output.split("pycrudapi is ready")[0].splitlines()
    said = [line for line in before if line and not line.lstrip().startswith(("Blocking", "Compiling", "Finished", "warning:"))]
    assert len(said) <= 10, said
    assert not [line for line in said if "WARN" in line or "ERROR" in line or "error" in line], said


def test_a_second_start_finds_the_data_as_it_was_left(up):
    one = up().wait_ready()
    created = request(one.port, "POST", "/postpassenger", body=PASSENGER).json()
    one.interrupt()
    again = up().wait_ready()
    assert request(again.port, "GET", f"/getpassenger/{created['uuid']}").json() == created
    assert len(request(again.port, "GET", "/passengerlist").json()) == 892


def test_a_term_to_make_stops_everything_too(up):
    one = up().wait_ready()
    one.process.signal(signal.SIGTERM)
    one.process.wait()
    until(lambda: not support.processes_of(one.process.pid, one.directory), "nothing is left")


def test_two_of_them_run_side_by_side(up):
    first, second = up("first").wait_ready(), up("second").wait_ready()
    for one in (first, second):
        assert request(one.port, "GET", "/readyz").status == 200
    first.interrupt()
    assert request(second.port, "GET", "/readyz").status == 200


@pytest.mark.parametrize("name", ["HTTP_PORT", "HTTPS_PORT", "METRICS_PORT"])
def test_a_busy_port_is_reported_with_the_variable_that_changes_it(up, name):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        one = up(**{name: number})
        assert one.process.wait(300) != 0
        assert f"{name}={number} is busy: the port is used by" in one.process.output
        assert f"process {os.getpid()}" in one.process.output
        assert re.search(rf"make up {name}=\d+", one.process.output)
        assert "Compiling" not in one.process.output


def test_two_ports_that_are_the_same_are_refused(up):
    number = support.free_port()
    one = up(HTTP_PORT=number, HTTPS_PORT=number)
    assert one.process.wait(300) != 0
    assert f"HTTPS_PORT={number}: HTTP_PORT is the same port" in one.process.output


def test_a_port_that_is_none_is_refused(up):
    one = up(HTTP_PORT="http")
    assert one.process.wait(300) != 0
    assert "HTTP_PORT=http: must be a TCP port" in one.process.output


def test_an_empty_variable_is_an_unset_one():
    look = "import json, pathlib, runpy, sys; up = runpy.run_path(sys.argv[1]); print(json.dumps(up['environment'](pathlib.Path('/run'))))"
    names = "HTTP_PORT HTTPS_PORT METRICS_PORT METRICS_LISTEN DATA_DIR TLS_SELF_SIGNED TLS_DIR".split()

    def environment(**settings):
        command = ["/usr/bin/python3", "-c", look, REPOSITORY / "scripts" / "up"]
        said = subprocess.run(command, env=support.clean_environment(**settings), capture_output=True, text=True, check=True)
        return {name: json.loads(said.stdout).get(name) or None for name in names}

    assert environment(**dict.fromkeys(names, "")) == environment()
    assert environment()["TLS_SELF_SIGNED"] == "true"


def test_its_output_in_a_file_is_complete(directory):
    """Programs open the output by name; two writers with separate file positions would overwrite each other."""
    log = directory / "log"
    ports = {name: str(support.free_port()) for name in ("HTTP_PORT", "HTTPS_PORT", "METRICS_PORT")}
    environment = support.clean_environment(TMPDIR=directory, DATA_DIR=directory / "data", **ports)
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [REPOSITORY / "scripts" / "up"], env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        until(lambda: process.poll() is not None or "Ctrl-C stops it" in log.read_text(), "the announcement", 60)
        marks = [f"/no-such-page-{number}" for number in range(20)]
        for mark in marks:
            request(int(ports["HTTP_PORT"]), "GET", mark)
        until(lambda: marks[-1] in log.read_text(), "the last request is logged")
    finally:
        process.terminate()
        assert process.wait(60) == 0
    text = log.read_text()
    assert "\0" not in text
    for mark in marks:
        assert f'"uri":"{mark}"' in text
    assert text.count("pycrudapi is ready") == 1
    shutil.rmtree(directory / "data", ignore_errors=True)


def test_without_rust_it_says_where_to_get_it(directory):
    for tool in ("make", "bash", "sh"):
        (directory / "bin").mkdir(exist_ok=True)
        (directory / "bin" / tool).symlink_to(shutil.which(tool))
    done = subprocess.run(
        [directory / "bin" / "make", "up"], cwd=REPOSITORY, capture_output=True, text=True, timeout=60,
        env={"PATH": str(directory / "bin"), "HOME": str(directory)},
    )  # fmt: skip
    assert done.returncode != 0
    assert "https://rustup.rs" in done.stderr


def test_help_lists_the_targets():
    done = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert {"up", "test", "help"} <= {line.split()[1] for line in done.stdout.splitlines()}
