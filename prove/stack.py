"""Real stacks on free ports: one as `make up` runs it, or several servers and nginx on one PostgreSQL.

Each is a context manager that ends what it started, processes that were left behind included, and nothing else.
"""

import asyncio
import contextlib
import pathlib
import subprocess

import support
from postgres import Cluster
from support import until

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

# A load of one address, of which every line of log would be kept in memory.
SETTINGS = {"RATE_LIMIT": "off", "CONN_LIMIT": "off", "ACCESS_LOG": "off", "LOG": "warn,access=off", "SEED": "false"}

# Beside the benchmark's: as PostgreSQL is run, with autovacuum and the checkpoints of its defaults.
POSTGRES = {"autovacuum": "on", "checkpoint_timeout": "5min", "max_wal_size": "1GB", "shared_buffers": "128MB"}

# {kind: what the command lines of its processes have}
KINDS = {
    "server": "pycrudapi serve",
    "nginx master": "nginx: master",
    "nginx worker": "nginx: worker",
    "postmaster": "postgres -D",
}


class Stack(support.Stack):
    """supervisord, nginx, server and embedded PostgreSQL; `port` is nginx's."""

    def pids(self, kind):
        """The processes of a kind, of KINDS or "supervisord", oldest first."""
        if kind == "supervisord":
            return [self.process.pid] if self.process.running else []
        return sorted(pid for pid, line in self.processes().items() if KINDS[kind] in line)


@contextlib.asynccontextmanager
async def whole(**settings):
    """A Stack that is ready, with a database of its own that goes with it."""
    with support.short_directory() as place:
        one = Stack(place, **(SETTINGS | settings))
        try:
            await asyncio.to_thread(one.start)
            yield one
        finally:
            one.destroy()


class Servers:
    """Servers of one PostgreSQL (`cluster`, `database`): `processes` and `ports`; `port` is nginx's in front of them."""

    database = "prove"

    def __init__(self, cluster, directory, settings):
        self.cluster, self._directory, self._settings = cluster, directory, SETTINGS | settings
        self.url = cluster.url(self.database)
        self.processes, self.ports = [], []
        self.nginx = self.port = None

    def start_server(self, **settings):
        """One more, on a port of its own; returns its place in `processes` and `ports`."""
        port = support.free_port()
        environment = support.clean_environment(
            **({"DATABASE_URL": self.url, "LISTEN": f"127.0.0.1:{port}", "METRICS_LISTEN": "off"} | self._settings | settings)
        )
        process = support.Process([support.BINARY_DIR / "pycrudapi", "serve"], environment)
        self.processes.append(process)
        self.ports.append(port)
        until(lambda: not process.running or is_ready(port), f"a server is ready: {process.output[-2000:]}", 120)
        if not process.running:
            raise RuntimeError(f"the server ended: {process.output[-2000:]}")
        return len(self.ports) - 1

    def start_nginx(self):
        upstream = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        place = self._directory / "nginx"
        place.mkdir(mode=0o755)
        self.nginx = support.Nginx(place, **(self._settings | {"UPSTREAM": upstream}))
        self.port = self.nginx.port

    def psql(self, *commands):
        return self.cluster.psql(self.database, *commands)

    def fill(self, rows):
        """Imports so many made-up passengers."""
        program = str(support.BINARY_DIR / "pycrudapi")
        environment = support.clean_environment(DATABASE_URL=self.url)
        with subprocess.Popen([program, "generate", "--rows", str(rows)], stdout=subprocess.PIPE) as generate:
            subprocess.run([program, "import", "-"], stdin=generate.stdout, env=environment, check=True, stdout=subprocess.DEVNULL)
        self.psql("vacuum analyze passengers")

    def end(self):
        if self.nginx:
            self.nginx.stop()
        for process in self.processes:
            if process.running:
                process.process.kill()
            process.wait()


def is_ready(port):
    with contextlib.suppress(OSError):
        return support.request(port, "GET", "/readyz", timeout=5).status == 200
    return False


@contextlib.asynccontextmanager
async def servers(count, nginx=False, postgres=None, **settings):
    """`count` servers that are ready, and nginx; `postgres` are settings of PostgreSQL, the others those of ours."""
    with Cluster(POSTGRES | (postgres or {})) as cluster, support.short_directory() as place:
        cluster.create(Servers.database)
        several = Servers(cluster, place, settings)
        try:
            for _ in range(count):
                await asyncio.to_thread(several.start_server)
            if nginx:
                await asyncio.to_thread(several.start_nginx)
            yield several
        finally:
            several.end()
