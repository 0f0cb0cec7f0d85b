"""Shared by the stack tests: waiting for conditions, raw HTTP, nginx alone, and the whole stack.

Nothing sleeps for a fixed time: `until` polls a condition and fails at its deadline.
"""

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from ports import free_port

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BINARY_DIR = pathlib.Path(os.environ.get("PYCRUDAPI_BIN_DIR", REPOSITORY / "target" / "release"))
PROGRAM = BINARY_DIR / "pycrudapi"

# Generous, because test machines are slow; successful tests never wait this long.
DEADLINE_SECONDS = 60.0
POLL_SECONDS = 0.02

# The environment without settings of the developer's shell that would change the tested behaviour.
OUR_SETTINGS = (
    "DATABASE_URL POSTGRES_ LISTEN METRICS_ LOG POOL_SIZE CHECKOUT_ STATEMENT_ DRAIN_ HEADER_ MAX_BODY_ SEED MIGRATE "
    "DATA_DIR PG_BIN REDIS_ HTTP_PORT HTTPS_PORT RUN_DIR RATE_LIMIT CONN_LIMIT TRUSTED_ TLS_ UPSTREAM CLIENT_ ACCESS_ "
    "RESOURCES NGINX_ MEMORY_ SPOOL_ WORKER_ ALLOWED_ REQUIRE_ IDEMPOTENCY_ CORS_ BULK_ BODY_ AIR_QUALITY_ HEALTHCHECK_ AUTH "
    "PRINCIPAL_ HISTORY_ BACKUP_ RESTORE_ DRILL_ AWS_ MAKE MFLAGS"
).split()


def clean_environment(**more):
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(tuple(OUR_SETTINGS))
    }
    environment.update({name: str(value) for name, value in more.items()})
    return environment


def until(condition, what, deadline=DEADLINE_SECONDS):
    """Polls until the condition is true, and returns its value."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline:.0f} s: {what}")
        time.sleep(POLL_SECONDS)


# --- HTTP on the wire ---------------------------------------------------------------------------------------------


class Answer:
    """Status, headers (lower case, joined by commas) and body of one answer."""

    def __init__(self, response):
        self.status = response.status
        self.headers = {}
        for name, value in response.getheaders():
            name = name.lower()
            self.headers[name] = f"{self.headers[name]}, {value}" if name in self.headers else value
        self.body = response.read()

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body[:500]!r}"


def request(port, method, path, body=None, headers=None, timeout=DEADLINE_SECONDS):
    """Sends one request on a new connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        if isinstance(body, dict):
            body, headers = json.dumps(body), {"content-type": "application/json", **(headers or {})}
        connection.request(method, path, body=body, headers=headers or {})
        return Answer(connection.getresponse())
    finally:
        connection.close()


def raw(port, data, timeout=DEADLINE_SECONDS, method="GET"):
    """Sends bytes unchanged and reads one answer; None if the connection was closed without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(data)
        response = http.client.HTTPResponse(connection, method=method)
        try:
            response.begin()
        except (http.client.RemoteDisconnected, ConnectionResetError):
            return None
        return Answer(response)


def assert_problem(answer, status, code):
    """Asserts that the answer is a problem document in the form of this service."""
    assert answer is not None, "the connection was closed without an answer"
    assert answer.status == status, answer
    assert answer.headers.get("content-type") == "application/problem+json", answer
    assert answer.headers.get("x-content-type-options") == "nosniff", answer
    problem = answer.json()
    assert problem["status"] == status, answer
    assert problem["code"] == code, answer
    assert problem["type"] == f"/docs/problems/{code}", answer
    assert problem["title"] and problem["detail"], answer
    assert problem["requestId"] == answer.headers["x-request-id"], answer
    if status in (429, 502, 503, 504) and code != "outcome-unknown":
        assert int(answer.headers["retry-after"]) >= 1, answer
    return problem


def first_refused(ask, clients=4):
    """The first answer other than 200 to enough clients to exceed a rate limit."""
    refused, ended = [], threading.Event()

    def repeat():
        while not ended.is_set():
            answer = ask()
            if answer.status != 200:
                refused.append(answer)
                ended.set()

    asking = [threading.Thread(target=repeat) for _ in range(clients)]
    for thread in asking:
        thread.start()
    try:
        return until(lambda: refused, "a request is refused")[0]
    finally:
        ended.set()
        for thread in asking:
            thread.join()


# --- processes ----------------------------------------------------------------------------------------------------


class Process:
    """A child process in its own session, whose output a thread collects."""

    def __init__(self, command, environment, user=None):
        self._output, output = os.pipe()
        options = {}
        if user is not None:
            # As a container engine does: nginx opens the output by name, so the user must own it.
            os.fchown(output, user.pw_uid, user.pw_gid)
            options = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=REPOSITORY,
            **options,
        )
        os.close(output)
        self.pid = self.process.pid
        self._lines = []
        self._flows = threading.Event()
        self._flows.set()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        with open(self._output, "rb") as output:
            for line in output:
                self._lines.append(line.decode(errors="replace").rstrip("\n"))
                self._flows.wait()

    @contextlib.contextmanager
    def unread(self):
        """Suspends reading the output during the block."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    @property
    def output(self):
        return "\n".join(self._lines)

    @property
    def lines(self):
        return list(self._lines)

    def signal(self, number, group=False):
        if group:
            os.killpg(self.pid, number)
        else:
            self.process.send_signal(number)

    def wait(self, deadline=60.0):
        """Waits, and returns the exit status; then all output has been collected."""
        try:
            status = self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {deadline:.0f} s:\n{self.output}") from None
        self._reader.join(5)
        return status

    @property
    def running(self):
        return self.process.poll() is None


def processes_of(session, directory):
    """{pid: command line} of every process of a session, or with a directory as working directory or argument.

    The session alone is not sufficient, because PostgreSQL's processes start their own sessions.
    """
    found = {}
    marker = os.fsencode(str(directory))
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            state, its_session = fields[0], int(fields[3])
            command_line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").strip()
            belongs = its_session == session or marker in command_line
            if not belongs:
                belongs = marker in (entry / "environ").read_bytes() or marker in os.fsencode(
                    os.readlink(entry / "cwd")
                )
        except (OSError, ValueError):
            continue
        if belongs and state != "Z" and int(entry.name) != os.getpid():
            found[int(entry.name)] = command_line.decode(errors="replace")
    return found


def open_to_all(directory):
    """Makes a directory accessible to nginx's workers and PostgreSQL, which are not root."""
    for folder in (directory, *directory.parents):
        if folder.stat().st_uid == os.getuid() and folder != pathlib.Path("/"):
            folder.chmod(folder.stat().st_mode | 0o711)


class Nginx:
    """nginx as started by `pycrudapi nginx`, without supervisord and server."""

    def __init__(self, directory, prefix=(), **settings):
        self.directory = directory
        self.run_dir = directory / "run"
        self.port, self.https_port = free_port(), free_port()
        open_to_all(directory)
        self.environment = clean_environment(
            **{"RUN_DIR": self.run_dir, "HTTP_PORT": self.port, "HTTPS_PORT": self.https_port, **settings}
        )
        self.process = Process([*prefix, PROGRAM, "nginx"], self.environment)
        try:
            until(lambda: not self.process.running or self._listening(), "nginx listens")
            assert self.process.running, self.process.output
        except AssertionError:
            self.stop()
            raise

    def _listening(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True

    def request(self, method, path, *arguments, **options):
        return request(self.port, method, path, *arguments, **options)

    def raw(self, data, **options):
        return raw(self.port, data, **options)

    def access_log(self, path, count=1):
        """The log lines of a path; waits until there are as many as expected."""

        def lines():
            found = [json.loads(line) for line in self.process.lines if line.startswith('{"time"')]
            found = [line for line in found if line["uri"] == path]
            return found if len(found) >= count else None

        return until(lines, f"{count} access log lines of {path}:\n{self.process.output[-2000:]}")

    def stop(self, number=signal.SIGTERM):
        if self.process.running:
            self.process.signal(number)
        return self.process.wait()


class StandIn:
    """A server on a Unix socket or a TCP port, controlled by a test: `handler(connection, head)` receives the head of each
    request as text and answers on the connection, or does not."""

    def __init__(self, place, handler):
        self.path = None if isinstance(place, int) else str(place)
        self.handler = handler
        self.requests = []
        self._connections = set()
        if self.path is None:
            self._listener = socket.create_server(("127.0.0.1", place), backlog=512)
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            pathlib.Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            open_to_all(pathlib.Path(self.path).parent)
            self._listener.bind(self.path)
            os.chmod(self.path, 0o666)
            self._listener.listen(512)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.add(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with contextlib.suppress(OSError), connection:
            rest = b""
            while True:
                while b"\r\n\r\n" not in rest:
                    more = connection.recv(65536)
                    if not more:
                        return
                    rest += more
                head, _, rest = rest.partition(b"\r\n\r\n")
                length = next(
                    (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
                )
                while len(rest) < length:
                    more = connection.recv(65536)
                    if not more:
                        return
                    rest += more
                rest = rest[length:]
                head = head.decode("latin-1")
                self.requests.append(head)
                if self.handler(connection, head) == "close":
                    return

    def close(self):
        # While a thread waits in accept(), close alone would keep the listener open until the next connection.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        # Another connection may be accepted meanwhile.
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if self.path is not None:
            pathlib.Path(self.path).unlink(missing_ok=True)


def reply(connection, body=b"ok", status="200 OK", headers=(), length=True):
    """Answers with a body; without Content-Length if it simulates a streamed one."""
    lines = [f"HTTP/1.1 {status}", *headers]
    if length:
        payload = body
        lines.append(f"Content-Length: {len(body)}")
    else:
        payload = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
        lines.append("Transfer-Encoding: chunked")
    connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + payload)


# --- the whole stack ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def short_directory():
    """A directory with a short path (socket paths are limited to 107 bytes) that every user can enter; removed at the end."""
    path = pathlib.Path(tempfile.mkdtemp(prefix="pcs-", dir=os.environ.get("TMPDIR", "/tmp")))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def running_stack(prefix=(), **settings):
    """A ready whole stack in its own directory; it is removed completely at the end."""
    with short_directory() as place:
        one = Stack(place, prefix, **settings)
        try:
            yield one.start()
        finally:
            # pytest shows it if the test failed.
            print(f"--- what the stack said\n{one.process.output[-6000:] if one.process else ''}")
            one.destroy()


class Stack:
    """supervisord with nginx, the server and its embedded PostgreSQL, on free ports and in its own directory."""

    def __init__(self, directory, prefix=(), **settings):
        self.directory = directory
        self.prefix, self.settings = prefix, settings
        self.run_dir, self.data_dir = directory / "run", directory / "data"
        self.port, self.https_port, self.metrics_port = free_port(), free_port(), free_port()
        self.process = None

    def start(self, ready=True):
        self.run_dir.mkdir(exist_ok=True)
        open_to_all(self.run_dir)
        environment = clean_environment(
            **{
                "RUN_DIR": self.run_dir,
                "DATA_DIR": self.data_dir,
                "HTTP_PORT": self.port,
                "HTTPS_PORT": self.https_port,
                "METRICS_LISTEN": f"127.0.0.1:{self.metrics_port}",
                "PATH": f"{BINARY_DIR}:{os.environ['PATH']}",
                "PYTHONPATH": REPOSITORY / "supervisor",
                "PYTHONDONTWRITEBYTECODE": 1,
                **self.settings,
            }
        )
        self.environment = environment
        command = [*self.prefix, "supervisord", "-c", REPOSITORY / "supervisord.conf"]
        if os.geteuid() == 0:
            command += ["-u", "root"]
        self.process = Process(command, environment)
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self, deadline=60.0):
        until(lambda: not self.process.running or self.is_ready(), f"ready:\n{self.process.output[-3000:]}", deadline)
        assert self.process.running, self.process.output

    def is_ready(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.request("GET", "/readyz", timeout=5).status == 200

    def request(self, method, path, *arguments, **options):
        return request(self.port, method, path, *arguments, **options)

    def processes(self):
        return processes_of(self.process.pid, self.directory)

    def pid_of(self, *words):
        """The topmost process whose command line contains all these words."""
        found = sorted(pid for pid, line in self.processes().items() if all(word in line for word in words))
        assert found, f"no process with {words} in {self.processes()}"
        return found[0]

    def server_pid(self):
        return self.pid_of("pycrudapi serve")

    def nginx_pid(self):
        return self.pid_of("nginx: master")

    def postmaster_pid(self):
        """The PostgreSQL process that is the parent of the others."""
        candidates = {pid for pid, line in self.processes().items() if "postgres" in line}
        for pid in candidates:
            with contextlib.suppress(OSError):
                parent = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
                if parent not in candidates:
                    return pid
        raise AssertionError(f"no postmaster in {self.processes()}")

    def stop(self, number=signal.SIGTERM):
        """Stops it, checks that no process is left, and returns supervisord's exit status."""
        if self.process is None:
            return None
        if self.process.running:
            self.process.signal(number)
        status = self.process.wait()
        self.assert_nothing_runs()
        return status

    def assert_nothing_runs(self):
        until(lambda: not self.processes(), f"no process is left: {self.processes()}\n{self.process.output[-3000:]}")

    def destroy(self):
        """Removes all processes and files, whatever the test did."""
        if self.process is None:
            return
        if self.process.running:
            self.process.signal(signal.SIGTERM)
            with contextlib.suppress(AssertionError):
                self.process.wait(45)
        for pid in self.processes():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.data_dir, ignore_errors=True)


PASSENGER = {
    "survived": True,
    "passengerClass": 2,
    "name": "Stack Test",
    "sex": "female",
    "age": 27.5,
    "siblingsOrSpousesAboard": 0,
    "parentsOrChildrenAboard": 1,
    "fare": 13.0,
}
