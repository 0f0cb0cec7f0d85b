"""A durable PostgreSQL for the benchmark, in a directory that is removed with it."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from needs import ROOT, postgres_program, run

# Tests start several at the same time.
sys.path.append(os.path.join(ROOT, "tests", "stack"))

from ports import free_port  # noqa: E402

# fsync and synchronous_commit are PostgreSQL's defaults and set here because all results depend on them.
# No checkpoint and no autovacuum may affect only one contestant: run.py runs a checkpoint before each measurement of writes.
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "1GB",
    "max_connections": "200",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
    "logging_collector": "off",
}


class Cluster:
    """`with Cluster() as cluster:`; the user is postgres, without a password, on loopback only."""

    # Not /tmp, which may be in memory, where fsync costs nothing.
    def __init__(self, settings=None, environment=None, folder="/var/tmp"):
        self._settings = SETTINGS | (settings or {})
        self._environment = {**os.environ, **(environment or {})}
        self._parent = folder
        self.port = free_port()
        self._process = None

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="pycrudapi-bench-", dir=self._parent)
        try:
            self._make()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make(self):
        self._as_user = {}
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")  # PostgreSQL refuses to run as root
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._data = f"{self.folder}/data"
        # A fixed locale, because the sort order of text must not depend on the machine.
        run(
            [postgres_program("initdb"), "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"],
            cwd="/",
            **self._as_user,
        )

    def start(self):
        """Starts it, possibly after `stop`; returns when it answers."""
        settings = [f"--{name}={value}" for name, value in self._settings.items()]
        with open(f"{self.folder}/log", "wb") as log:
            self._process = subprocess.Popen(
                [postgres_program("postgres"), "-D", self._data, "-k", self.folder, "-p", str(self.port),
                 "--listen_addresses=127.0.0.1", *settings],
                cwd="/", stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self._environment, **self._as_user,
            )  # fmt: skip
        self.pid = self._process.pid
        deadline = time.monotonic() + 60
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                with open(f"{self.folder}/log", encoding="utf-8") as log:
                    raise RuntimeError(f"postgres did not start:\n{log.read()[-4000:]}")
            time.sleep(0.05)

    @property
    def running(self):
        return self._process is not None and self._process.poll() is None

    def _answers(self):
        command = [postgres_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def stop(self):
        """A fast shutdown; the data is kept."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def skip_transactions(self, number):
        """Restarts it with `number` as the next transaction id."""
        self.stop()
        # A file of pg_xact has the status of 2^20 transactions, two bits each; that of the next transaction must exist.
        states = f"{self._data}/pg_xact/{number >> 20:04X}"
        run(["sh", "-c", f"test -e {states} || head -c 262144 /dev/zero > {states}"], cwd="/", **self._as_user)
        run([postgres_program("pg_resetwal"), "-x", str(number), "-D", self._data], cwd="/", **self._as_user)
        self.start()

    def __exit__(self, *_):
        if self._process:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database):
        return f"postgres://postgres@127.0.0.1:{self.port}/{database}"

    def psql(self, database, *commands):
        """Runs each command in its own transaction; returns the rows as text."""
        each = [part for command in commands for part in ("-c", command)]
        return run(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", self.url(database), *each]).strip()

    def create(self, database, template="template0"):
        self.psql("postgres", f"create database {database} template {template}")

    def drop(self, database):
        self.psql("postgres", f"drop database if exists {database} with (force)")
