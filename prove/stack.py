"""Real stacks on free ports: the stack of `make up`, or several servers and nginx with one PostgreSQL.

Each is a context manager that stops exactly the processes that it started, including orphaned ones.
"""

import asyncio
import contextlib
import pathlib
import subprocess

import support
from postgres import Cluster
from support import until

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

# All load comes from one address, and every log line would be kept in memory.
SETTINGS = {"RATE_LIMIT": "off", "CONN_LIMIT": "off", "ACCESS_LOG": "off", "LOG": "warn,access=off", "SEED": "false"}

# In addition to those of the benchmark: autovacuum and checkpoints as in PostgreSQL's defaults.
POSTGRES = {"autovacuum": "on", "checkpoint_timeout": "5min", "max_wal_size": "1GB", "shared_buffers": "128MB"}

# {kind: text in the command line of its processes}
KINDS = {
    "server": "pycrudapi serve",
    "nginx master": "nginx: master",
    "nginx worker": "nginx: worker",
    "postmaster": "postgres -D",
}


class Stack(support.Stack):
    """supervisord, nginx, server and embedded PostgreSQL; `port` is nginx's."""

    def pids(self, kind):
        """The processes of a kind in KINDS, or "supervisord", by process id."""
        if kind == "supervisord":
            return [self.process.pid] if self.process.running else []
        return sorted(pid for pid, line in self.processes().items() if KINDS[kind] in line)


@contextlib.asynccontextmanager
async def ready_stack(**settings):
    """A ready Stack with its own database, which is removed with it."""
    with support.short_directory() as folder:
        one = Stack(folder, **(SETTINGS | settings))
        try:
            await asyncio.to_thread(one.start)
            yield one
        finally:
            one.destroy()


class Servers:
    """Servers with one PostgreSQL (`cluster`, `database`): `processes` and `ports`; `port` is that of nginx in front of them."""

    database = "prove"

    def __init__(self, cluster, directory, settings):
        self.cluster, self._directory, self._settings = cluster, directory, SETTINGS | settings
        self.url = cluster.url(self.database)
        self.processes, self.ports = [], []
        self.nginx = self.port = None

    def start_server(self, **settings):
        """Starts another server on a free port; returns its index in `processes` and `ports`."""
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
        folder = self._directory / "nginx"
        folder.mkdir(mode=0o755)
        self.nginx = support.Nginx(folder, **(self._settings | {"UPSTREAM": upstream}))
        self.port = self.nginx.port

    def psql(self, *commands):
        return self.cluster.psql(self.database, *commands)

    def fill(self, rows):
        """Imports this many generated passengers."""
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
    """`count` ready servers, and nginx on request; `postgres` holds settings of PostgreSQL, `settings` those of the servers."""
    with Cluster(POSTGRES | (postgres or {})) as cluster, support.short_directory() as folder:
        cluster.create(Servers.database)
        started = Servers(cluster, folder, settings)
        try:
            for _ in range(count):
                await asyncio.to_thread(started.start_server)
            if nginx:
                await asyncio.to_thread(started.start_nginx)
            yield started
        finally:
            started.end()
