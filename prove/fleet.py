"""Several servers behind nginx on one PostgreSQL, with a link that can be broken between any two, and whoever restarts what died.

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
from direct import Direct
from links import Links
from postgres import Cluster
from stack import POSTGRES, SETTINGS, is_ready, until

DATABASE = "prove"
# Few, so that others can use them up.
MAX_CONNECTIONS = 60


class Server:
    """`pycrudapi serve` on a port of its own; what it says goes through `reader` into a file."""

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
        """For its next start."""
        self._environment |= {name: str(value) for name, value in settings.items()}

    def said(self):
        return self._log.read_text(errors="replace")

    def end(self):
        for one in (self.process, self.reader):
            if one is not None and one.poll() is None:
                one.kill()
                one.wait()


class Fleet(Direct):
    """See the module; `fleet()` makes one. `port` is nginx's, `entrances` are that and the servers' own."""

    kind = "servers"

    def __init__(self, directory, count, settings, with_standby):
        self.directory, self._settings = directory, settings
        self.fsync = shims.Fsync(directory)
        self.clock, self.database_clock = shims.Clock(directory, "servers"), shims.Clock(directory, "postgres")
        self.resources_dir = directory / "tables"
        shutil.copytree(pathlib.Path(__file__).parent / "tables", self.resources_dir)
        self._with_standby = with_standby
        # Access tokens are asked for only where tokens are.
        self.identity = identity.Provider(directory) if settings.get("AUTH") == "on" and identity.is_possible() else None
        self.servers = [Server(support.free_port(), directory, {}) for _ in range(count)]
        self.cluster = self.standby = self.links = self.nginx = self.redis = self._redis_port = None
        # What nobody is to start again now.
        self.held = set()
        self.url = self.direct_url = None
        self.upgrades = 0
        self.is_ended = False

    def start(self, opened):
        """In threads' time; `opened` is an ExitStack that ends what was started."""
        environment = shims.together(self.fsync.environment, self.database_clock.environment)
        settings = POSTGRES | {"max_connections": str(MAX_CONNECTIONS)}
        self.cluster = Cluster(settings, environment)
        # It keeps its port while it is away.
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
            opened.callback(self._end_redis)
            self.start_redis()
        if self.identity:
            opened.callback(self.identity.end)
            self.identity.start()
            self._settings = self._settings | self.identity.settings
        ports |= {f"server-{number}": server.port for number, server in enumerate(self.servers, 1)}
        self.links = opened.enter_context(Links(ports))
        hosts = [f"127.0.0.1:{self.links.ports[name]}" for name in ("postgres", "standby") if name in ports]
        self.url = f"postgres://postgres@{','.join(hosts)}/{DATABASE}" + ("?target_session_attrs=read-write" if self._with_standby else "")
        self.use(self.cluster)
        for server in self.servers:
            opened.callback(server.end)
            server.set(**self._environment(server))
            server.start()
            until(lambda: not server.running or is_ready(server.port), "a server is ready", 120)
            if not server.running:
                raise RuntimeError(f"a server ended: {server.said()[-3000:]}")
        place = self.directory / "nginx"
        place.mkdir(mode=0o755)
        upstream = ",".join(f"127.0.0.1:{self.links.ports[f'server-{number}']}" for number in range(1, len(self.servers) + 1))
        self.nginx = support.Nginx(place, **(self._settings | {"UPSTREAM": upstream}))
        opened.callback(self.nginx.stop)
        self.port = self.nginx.port
        self.entrances = [self.port, *(server.port for server in self.servers)]

    def use(self, cluster):
        """The one that takes changes."""
        self.cluster = cluster
        self.database_port, self.direct_url = cluster.port, cluster.url(DATABASE)

    def fail_over(self):
        """The standby takes the place of the primary, for good."""
        self.standby.promote()
        self.use(self.standby)
        self.standby = None
        self.held.discard("postgres")

    def _environment(self, server):
        redis = {"REDIS_URL": f"redis://127.0.0.1:{self.links.ports['redis']}"} if self._redis_port else {}
        return support.clean_environment(
            **SETTINGS
            | {"DATABASE_URL": self.url, "LISTEN": f"127.0.0.1:{server.port}", "METRICS_LISTEN": "off", "LOG": "info"}
            | {"RESOURCES_DIR": self.resources_dir, **redis, **self.clock.environment}
            | self._settings
        )

    def said(self):
        """What the servers wrote to their logs."""
        return "".join(server.said() for server in self.servers)

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

    def _end_redis(self):
        if self.redis.poll() is None:
            self.redis.kill()
            self.redis.wait()

    async def keep(self):
        """As an orchestrator does: what has died is started again, unless somebody holds it down."""
        while not self.is_ended:
            for server in self.servers:
                if not server.running:
                    server.start()
            if self.redis and self.redis.poll() is not None and "redis" not in self.held:
                self.start_redis()
            if self.identity and not self.identity.running and "identity provider" not in self.held:
                self.identity.start()
            if not self.cluster.running and "postgres" not in self.held:
                with contextlib.suppress(RuntimeError):  # its disk is full, for one: later then
                    await asyncio.to_thread(self.cluster.start)
            await asyncio.sleep(0.05)

    def end_left(self):
        """Whatever a fault has left stopped goes on, so that it can be ended."""
        for pid in [*self.pids("server"), *self.pids("redis"), *self.pids("identity provider"), *(server.reader.pid for server in self.servers if server.reader)]:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def fleet(count, with_standby=False, **settings):
    with contextlib.ExitStack() as opened:
        directory = opened.enter_context(support.short_directory())
        one = Fleet(directory, count, settings, with_standby)
        try:
            await asyncio.to_thread(one.start, opened)
        except BaseException:
            print("\n".join(server.said()[-3000:] for server in one.servers if server.process), file=sys.stderr)
            raise
        keeper = asyncio.create_task(one.keep())
        try:
            yield one
        finally:
            # Not cut off: what a thread of it is starting would be left behind.
            one.is_ended = True
            await asyncio.gather(keeper, return_exceptions=True)
            one.end_left()
