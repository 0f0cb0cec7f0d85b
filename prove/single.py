"""The deployment of `make up`: supervisord, nginx, one server, and its embedded PostgreSQL."""

import asyncio
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess

import postgres_wire
import support
from deployment import Deployment, supervised
from stack import SETTINGS, Stack, until

# Enough for the database of an hour of load, and small enough to be filled quickly.
DISK_MIB = 400


class SingleDeployment(Deployment):
    """Created by `single()`; same interface as ScaledDeployment, and `disk` if the data are on a file system of their own."""

    kind = "single"
    database = "postgres"

    def __init__(self, directory, settings, with_disk):
        self.directory = directory
        self.resources_dir = directory / "tables"
        shutil.copytree(pathlib.Path(__file__).parent / "tables", self.resources_dir)
        self.stack = Stack(directory / "stack", **(SETTINGS | {"RESOURCES_DIR": self.resources_dir} | settings))
        (directory / "stack").mkdir(mode=0o755)
        self.disk = self.stack.data_dir if with_disk else None
        self.left_behind, self._earlier_output = [], []
        self.is_stopping = False

    def start(self, opened):
        if self.disk:
            self.disk.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=0755", "pycrudapi-prove", str(self.disk)]
            subprocess.run(command, check=True, capture_output=True)
            opened.callback(subprocess.run, ["umount", "-l", str(self.disk)], check=False)
        opened.callback(self.stack.destroy)
        self.stack.start()
        self.port = self.stack.port
        self.endpoints = [self.port]
        self._socket = self.stack.data_dir / "embedded" / "run"
        self.direct_url = f"host={self._socket} user=postgres dbname={self.database}"

    def log(self):
        """The output of all processes under each supervisord."""
        return "".join(f"{line}\n" for line in [*self._earlier_output, *self.stack.process.lines])

    def pids(self, kind):
        if kind == "backend":
            return [pid for postmaster in self.stack.pids("postmaster") for pid in postgres_wire.backends(postmaster, self.database)]
        return self.stack.pids(kind)

    async def postgres_answers(self):
        sockets = list(self._socket.glob(".s.PGSQL.*[0-9]"))
        return bool(sockets) and await postgres_wire.answers(str(sockets[0]), self.database)

    async def supervise(self):
        """Restarts supervisord when it has exited, as a container runtime does."""
        while not self.is_stopping:
            if not self.stack.process.running:
                await asyncio.to_thread(self._restart)
            await asyncio.sleep(0.05)

    def _restart(self):
        self.stack.process.wait()
        try:
            until(lambda: not self.stack.processes(), "all processes of supervisord have exited")
        except AssertionError:
            left = self.stack.processes()
            self.left_behind += left.values()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            until(lambda: not self.stack.processes(), "the processes left behind have exited")
        self._earlier_output += self.stack.process.lines
        self.stack.start(ready=False)

    def resume_stopped(self):
        for pid in self.stack.processes():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def single(with_disk=False, **settings):
    with contextlib.ExitStack() as opened:
        one = SingleDeployment(opened.enter_context(support.short_directory()), settings, with_disk)
        await asyncio.to_thread(one.start, opened)
        async with supervised(one):
            yield one
