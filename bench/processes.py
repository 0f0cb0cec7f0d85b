"""The measured processes: starting and stopping them, and their CPU time and memory."""

import http.client
import os
import signal
import subprocess
import time

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
START_DEADLINE_SECONDS = 30.0
STOP_DEADLINE_SECONDS = 20.0


class Service:
    """A program that answers HTTP on a local port."""

    def __init__(self, command, port, env=None, path="/getpassenger/0", cwd=None, log=None):
        self._command = command
        self._env = os.environ | (env or {})
        self._path = path
        self._cwd = cwd
        self._log = log
        self.port = port
        self._process = None

    def __enter__(self):
        log = open(self._log, "ab") if self._log else subprocess.DEVNULL
        begun = time.monotonic()
        # A separate session, so that its children can be killed with it.
        self._process = subprocess.Popen(
            self._command, env=self._env, cwd=self._cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        if self._log:
            log.close()
        self.pid = self._process.pid
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() - begun > START_DEADLINE_SECONDS:
                self.__exit__()
                raise RuntimeError(f"{' '.join(self._command)} does not answer; see {self._log}")
            time.sleep(0.002)
        self.start_seconds = time.monotonic() - begun
        return self

    def _answers(self):
        """Whether it answers with any status except 503."""
        try:
            return get(self.port, self._path)[0] != 503
        except OSError:
            return False

    def __exit__(self, *_):
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._process = None


def get(port, path, headers=None):
    """One GET: status, headers, body."""
    return request(port, "GET", path, headers=headers)


def request(port, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()


def tree(root):
    """The process and all its descendants."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            stat = read_stat(int(entry))
            if stat:
                children.setdefault(stat[0], []).append(int(entry))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def read_stat(pid):
    """(parent, CPU ticks of the process and its waited-for children); proc(5)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), sum(map(int, fields[11:15]))


def cpu_seconds(root):
    ticks = (read_stat(pid) for pid in tree(root))
    return sum(stat[1] for stat in ticks if stat) / TICKS_PER_SECOND


def peak_rss_mb(root):
    """The sum of the processes' peaks since the last reset, in MiB."""
    return sum(status_kb(pid, "VmHWM") for pid in tree(root)) / 1024


def reset_peak_rss(root):
    for pid in tree(root):
        try:
            with open(f"/proc/{pid}/clear_refs", "w", encoding="ascii") as file:
                file.write("5")
        except OSError:
            pass


def status_kb(pid, name):
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as file:
            for line in file:
                if line.startswith(name + ":"):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0
