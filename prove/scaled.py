"""Several servers behind nginx with one PostgreSQL, breakable links between them, and a supervisor that restarts processes.

    clients -> nginx -> link "server-N" -> server N -> link "postgres" -> PostgreSQL (and "standby" -> its standby)
                                           server N -> link "redis" -> Redis
"""

import asyncio
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import identity
import postgres_wire
import shims
import standby
import support
from deployment import Deployment, supervised
from links import Links
from postgres import Cluster
from stack import POSTGRES, SETTINGS, is_ready, until

DATABASE = "prove"
# Few, so that a fault can exhaust them.
MAX_CONNECTIONS = 60


class Server:
    """`pycrudapi serve` on its own port; its log passes through the process `reader` into a file."""

    def __init__(self, port, directory, environment):
        self.port, self._environment = port, environment
        self._log = directory / f"server-{port}.log"
        self.process = self.reader = None

    def start(self):
        if self.reader is None or self.reader.poll() is not None:
            with open(self._log, "ab") as log:
                self.reader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=log, start_new_session=True)
        self.process = subprocess.Popen(
            [support.BINARY_DIR / "pycrudapi", "serve"],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self.reader.stdin,
            stderr=self.reader.stdin,
            start_new_session=True,
        )

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def set(self, **settings):
        """Sets environment variables for the next start."""
        self._environment |= {name: str(value) for name, value in settings.items()}

    def log(self):
        return self._log.read_text(errors="replace")

    def stop(self):
        for one in (self.process, self.reader):
            if one is not None and one.poll() is None:
                one.kill()
                one.wait()


class ScaledDeployment(Deployment):
    """Created by `scaled()`. `port` is that of nginx; `endpoints` are it and the ports of the servers."""

    kind = "scaled"

    def __init__(self, directory, count, settings, with_standby):
        self.directory, self._settings = directory, settings
        self.fsync = shims.Fsync(directory)
        self.clock, self.database_clock = shims.Clock(directory, "servers"), shims.Clock(directory, "postgres")
        self.resources_dir = directory / "tables"
        shutil.copytree(pathlib.Path(__file__).parent / "tables", self.resources_dir)
        self._with_standby = with_standby
        # Access tokens are verified only with authentication.
        self.identity = identity.Provider(directory) if settings.get("AUTH") == "on" and identity.is_possible() else None
        self.servers = [Server(support.free_port(), directory, {}) for _ in range(count)]
        self.cluster = self.standby = self.links = self.nginx = self.redis = self._redis_port = None
        # The kinds of processes that the supervisor must not restart now.
        self.kept_down = set()
        self.url = self.direct_url = None
        self.upgrades = 0
        self.is_stopping = False

    def start(self, opened):
        """Blocks; `opened` is an ExitStack that stops what was started."""
        environment = shims.merged(self.fsync.environment, self.database_clock.environment)
        settings = POSTGRES | {"max_connections": str(MAX_CONNECTIONS)}
        self.cluster = Cluster(settings, environment)
        # Fixed, so that it keeps its port over restarts.
        self.cluster.port = support.free_port()
        opened.enter_context(self.cluster)
        self.cluster.create(DATABASE)
        ports = {"postgres": self.cluster.port}
        if self._with_standby:
            self.standby = opened.enter_context(standby.Standby(self.cluster))
            ports["standby"] = self.standby.port
        if shutil.which("redis-server"):
            self._redis_port = support.free_port()
            ports["redis"] = self._redis_port
            opened.callback(self._stop_redis)
            self.start_redis()
        if self.identity:
            opened.callback(self.identity.stop)
            self.identity.start()
            self._settings = self._settings | self.identity.settings
        ports |= {f"server-{number}": server.port for number, server in enumerate(self.servers, 1)}
        self.links = opened.enter_context(Links(ports))
        hosts = [f"127.0.0.1:{self.links.ports[name]}" for name in ("postgres", "standby") if name in ports]
        self.url = f"postgres://postgres@{','.join(hosts)}/{DATABASE}" + ("?target_session_attrs=read-write" if self._with_standby else "")
        self.set_primary(self.cluster)
        for server in self.servers:
            opened.callback(server.stop)
            server.set(**self._environment(server))
            server.start()
            until(lambda: not server.running or is_ready(server.port), "a server is ready", 120)
            if not server.running:
                raise RuntimeError(f"a server exited: {server.log()[-3000:]}")
        folder = self.directory / "nginx"
        folder.mkdir(mode=0o755)
        upstream = ",".join(f"127.0.0.1:{self.links.ports[f'server-{number}']}" for number in range(1, len(self.servers) + 1))
        self.nginx = support.Nginx(folder, **(self._settings | {"UPSTREAM": upstream}))
        opened.callback(self.nginx.stop)
        self.port = self.nginx.port
        self.endpoints = [self.port, *(server.port for server in self.servers)]

    def set_primary(self, cluster):
        """Makes `cluster` the primary that this deployment refers to."""
        self.cluster = cluster
        self.database_port, self.direct_url = cluster.port, cluster.url(DATABASE)

    def fail_over(self):
        """Promotes the standby; the former primary does not return."""
        self.standby.promote()
        self.set_primary(self.standby)
        self.standby = None
        self.kept_down.discard("postgres")

    def _environment(self, server):
        redis = {"REDIS_URL": f"redis://127.0.0.1:{self.links.ports['redis']}"} if self._redis_port else {}
        return support.clean_environment(
            **SETTINGS
            | {"DATABASE_URL": self.url, "LISTEN": f"127.0.0.1:{server.port}", "METRICS_LISTEN": "off", "LOG": "info"}
            | {"RESOURCES_DIR": self.resources_dir, **redis, **self.clock.environment}
            | self._settings
        )

    def log(self):
        """The logs of all servers."""
        return "".join(server.log() for server in self.servers)

    def pids(self, kind):
        if kind == "server":
            return [server.process.pid for server in self.servers if server.running]
        if kind.startswith("nginx"):
            words = {"nginx master": "nginx: master", "nginx worker": "nginx: worker"}[kind]
            found = support.processes_of(self.nginx.process.pid, self.directory / "nginx")
            return sorted(pid for pid, line in found.items() if words in line)
        if kind == "postmaster":
            return [self.cluster.pid] if self.cluster.running else []
        if kind == "backend":
            return postgres_wire.backends(self.cluster.pid, DATABASE)
        if kind == "identity provider":
            return [self.identity.process.pid] if self.identity and self.identity.running else []
        if kind == "redis":
            return [self.redis.pid] if self.redis and self.redis.poll() is None else []
        return []

    async def postgres_answers(self):
        return await postgres_wire.answers(self.database_port, DATABASE)

    def start_redis(self):
        words = ["redis-server", "--port", str(self._redis_port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.redis = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    def _stop_redis(self):
        if self.redis.poll() is None:
            self.redis.kill()
            self.redis.wait()

    async def supervise(self):
        """Restarts processes that have exited, as an orchestrator does, except those in `kept_down`."""
        while not self.is_stopping:
            for server in self.servers:
                if not server.running:
                    server.start()
            if self.redis and self.redis.poll() is not None and "redis" not in self.kept_down:
                self.start_redis()
            if self.identity and not self.identity.running and "identity provider" not in self.kept_down:
                self.identity.start()
            if not self.cluster.running and "postgres" not in self.kept_down:
                with contextlib.suppress(RuntimeError):  # for example a full disk: retried in the next round
                    await asyncio.to_thread(self.cluster.start)
            await asyncio.sleep(0.05)

    def resume_stopped(self):
        """Resumes processes that a fault has left stopped, so that they can exit."""
        for pid in [*self.pids("server"), *self.pids("redis"), *self.pids("identity provider"), *(server.reader.pid for server in self.servers if server.reader)]:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def scaled(count, with_standby=False, **settings):
    with contextlib.ExitStack() as opened:
        directory = opened.enter_context(support.short_directory())
        one = ScaledDeployment(directory, count, settings, with_standby)
        try:
            await asyncio.to_thread(one.start, opened)
        except BaseException:
            print("\n".join(server.log()[-3000:] for server in one.servers if server.process), file=sys.stderr)
            raise
        async with supervised(one):
            yield one
