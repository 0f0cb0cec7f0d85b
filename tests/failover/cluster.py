"""Two PostgreSQL instances, primary and synchronous standby, run by Patroni with etcd on free ports of this machine.

`Cluster.stop` ends all of its processes; `Node.heal` restores processes that a test has killed or paused.
"""

import contextlib
import http.client
import json
import os
import pwd
import shutil
import signal
import sysconfig
import threading
import time

import psutil
import psycopg
from needs import postgres_program
from support import Process, free_port, request, until

# The minimum that Patroni accepts: a primary whose node is down is replaced after TTL_SECONDS at the latest.
TTL_SECONDS, LOOP_SECONDS, RETRY_SECONDS = 20, 1, 3
# A former primary that cannot be rewound copies the whole new primary.
TIMEOUT_SECONDS = 120

SETTINGS = {
    "ttl": TTL_SECONDS,
    "loop_wait": LOOP_SECONDS,
    "retry_timeout": RETRY_SECONDS,
    # 0: a crashed primary is not restarted, but replaced at once by a standby that is up to date.
    "primary_start_timeout": 0,
    "synchronous_mode": True,
    "postgresql": {
        "use_pg_rewind": True,
        "parameters": {
            "max_connections": 60,
            "wal_log_hints": "on",
            "wal_keep_size": "256MB",
            "shared_buffers": "32MB",
            "synchronous_commit": "on",
            "fsync": "on",
        },
    },
}

DATABASE = "failover"


class Node:
    """A Patroni and its PostgreSQL."""

    def __init__(self, name, directory, etcd, programs, user):
        self.name, self.port, self.rest = name, free_port(), free_port()
        self._directory = directory / name
        self._directory.mkdir(mode=0o700)
        self._user, self._paused = user, []
        settings = {
            "scope": "pycrudapi",
            "name": name,
            "restapi": {"listen": f"127.0.0.1:{self.rest}", "connect_address": f"127.0.0.1:{self.rest}"},
            "etcd3": {"hosts": f"127.0.0.1:{etcd}"},
            "bootstrap": {
                "dcs": SETTINGS,
                "initdb": [{"encoding": "UTF8"}, {"locale": "C"}, "data-checksums"],
                "pg_hba": ["local all all trust", "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}",
                "connect_address": f"127.0.0.1:{self.port}",
                "data_dir": str(self._directory / "data"),
                "bin_dir": os.path.dirname(programs),
                "pgpass": str(self._directory / "pgpass"),
                "authentication": {
                    "superuser": {"username": "postgres"},
                    "replication": {"username": "replicator"},
                    "rewind": {"username": "postgres"},
                },
                "parameters": {"unix_socket_directories": str(self._directory)},
                "basebackup": [{"checkpoint": "fast"}],
            },
        }
        # JSON is valid YAML.
        (self._directory / "patroni.yml").write_text(json.dumps(settings), encoding="utf-8")
        if user:
            for path in (self._directory, self._directory / "patroni.yml"):
                os.chown(path, user.pw_uid, user.pw_gid)
        self.process = None

    def start(self, packages):
        environment = {"PATH": os.defpath, "PYTHONPATH": str(packages), "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
        command = ["/usr/bin/python3", "-m", "patroni", str(self._directory / "patroni.yml")]
        self._packages = packages
        self.process = Process(command, environment, user=self._user)

    def state(self):
        """The state that Patroni reports; empty if it does not answer."""
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            return request(self.rest, "GET", "/patroni", timeout=2).json()
        return {}

    def connect(self, database="postgres", **options):
        where = {"host": "127.0.0.1", "port": self.port, "user": "postgres", "dbname": database, "connect_timeout": 2}
        return psycopg.connect(**(where | options), autocommit=True)

    def processes(self, patroni):
        """The processes of PostgreSQL, and with `patroni` also of Patroni, parents first."""
        found = [psutil.Process(self.process.pid)] if patroni and self.process.running else []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.name() == "postgres" and process.cwd().startswith(str(self._directory)):
                    found.append(process)
        return sorted(found, key=lambda process: process.create_time())

    def signal(self, number, patroni=False):
        for process in self.processes(patroni):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def kill(self):
        """Kills PostgreSQL; Patroni detects it."""
        self.signal(signal.SIGKILL)

    def kill_node(self):
        """Kills PostgreSQL and Patroni, so that only the expired lease reveals it."""
        self.signal(signal.SIGKILL, patroni=True)
        self.process.wait()

    def pause(self):
        """Stops all processes with open sessions, as on a machine that is migrated or overloaded."""
        self.signal(signal.SIGSTOP, patroni=True)
        self._paused = True

    def heal(self):
        """Resumes or restarts what a fault has stopped."""
        if self._paused:
            self.signal(signal.SIGCONT, patroni=True)
            self._paused = False
        if not self.process.running:
            self.start(self._packages)

    def stop(self):
        """Kills everything; its data is no longer needed."""
        self.signal(signal.SIGKILL, patroni=True)
        self.process.wait()
        # Including processes that Patroni was just starting.
        self.signal(signal.SIGKILL)


class Cluster:
    """etcd and two nodes."""

    def __init__(self, directory):
        self._directory = directory
        self._etcd_port, peer = free_port(), free_port()
        # PostgreSQL does not run as root.
        self._user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        programs = postgres_program("postgres")
        etcd = f"http://127.0.0.1:{self._etcd_port}"
        self._etcd = Process(
            [
                "etcd", "--data-dir", str(directory / "etcd"), "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
                "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--initial-advertise-peer-urls", f"http://127.0.0.1:{peer}",
                "--initial-cluster", f"default=http://127.0.0.1:{peer}", "--log-level", "error",
            ],
            {"PATH": os.defpath, "HOME": str(directory)},
        )  # fmt: skip
        self.nodes = [Node(f"node{number}", directory, self._etcd_port, programs, self._user) for number in (0, 1)]

    def start(self):
        packages = self._packages()
        until(self._etcd_answers, "etcd answers")
        for node in self.nodes:
            node.start(packages)
            # The first node initializes the cluster, so that the roles are the same each time.
            until(lambda node=node: node.state().get("state") == "running", self, TIMEOUT_SECONDS)
        self.wait_synchronous()
        with self.primary().connect() as session:
            session.execute("create role app login")
            session.execute(f"create database {DATABASE} owner app")
        return self

    def _packages(self):
        """The directory from which Patroni is imported: a copy for PostgreSQL's user, who cannot access root's folders."""
        packages = sysconfig.get_path("purelib")
        if self._user is None:
            return packages
        copy = self._directory / "packages"
        shutil.copytree(packages, copy, ignore=shutil.ignore_patterns("__pycache__", "pip", "setuptools"))
        return copy

    def _etcd_answers(self):
        with contextlib.suppress(OSError):
            return request(self._etcd_port, "GET", "/health", timeout=2).status == 200

    @property
    def url(self):
        """For DATABASE_URL."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"postgres://app@{hosts}/{DATABASE}?target_session_attrs=read-write"

    def primary(self):
        """The leader according to Patroni; waits until exactly one node is it."""

        def leaders():
            found = [node for node in self.nodes if node.state().get("role") in ("primary", "master")]
            return found if len(found) == 1 else None

        return until(leaders, self, TIMEOUT_SECONDS)[0]

    def other(self, node):
        return self.nodes[1 - self.nodes.index(node)]

    def wait_synchronous(self):
        """Waits until both nodes run and each commit waits for both: the promises hold only from such a state."""

        def synchronous():
            states = [node.state() for node in self.nodes]
            roles = sorted(state.get("role", "") for state in states)
            running = all(state.get("state") == "running" for state in states)
            if not running or roles not in (["primary", "replica"], ["master", "replica"]):
                return False
            replication = [one for state in states for one in state.get("replication", [])]
            return any(one["sync_state"] in ("sync", "quorum") and one["state"] == "streaming" for one in replication) and any(
                state.get("sync_standby") or state.get("quorum_standby") for state in states
            )

        until(synchronous, self, TIMEOUT_SECONDS)

    def __str__(self):
        states = [node.state() for node in self.nodes]
        logs = "\n".join(f"--- {node.name}\n{node.process.output[-3000:]}" for node in self.nodes)
        return f"both nodes run, one synchronous: {states}\n{logs}"

    def switch_over(self):
        """Requests a switchover from Patroni; returns when it has begun."""
        leader = self.primary()
        order = {"leader": leader.name, "candidate": self.other(leader).name}
        answer = request(leader.rest, "POST", "/switchover", body=order, timeout=60)
        assert answer.status == 200, answer

    def stop(self):
        for node in self.nodes:
            if node.process:
                node.stop()
        self._etcd.signal(signal.SIGKILL)
        self._etcd.wait()


class Promotion(threading.Thread):
    """Polls a standby and records when (monotonic clock) it first accepted writes."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.at = None
        self._session = node.connect()
        assert self._session.execute("select pg_is_in_recovery()").fetchone()[0], f"{node.name} is no standby"
        self.start()

    def run(self):
        with self._session:
            while self._session.execute("select pg_is_in_recovery()").fetchone()[0]:
                time.sleep(0.01)  # the polling interval, which is the precision of `at`
            self.at = time.monotonic()
