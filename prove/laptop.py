"""The stack as `make up` runs it: supervisord, nginx, server, and the server's own PostgreSQL."""

import asyncio
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess

import postgres_wire
import support
from direct import Direct
from stack import SETTINGS, Stack, until

# Room for a database under an hour's load, and little enough to fill in a moment.
DISK_MIB = 400


class Laptop(Direct):
    """`laptop()` makes one; beside what Fleet has there is `disk`, when its data are on a disk of their own."""

    kind = "laptop"
    database = "postgres"

    def __init__(self, directory, settings, with_disk):
        self.directory = directory
        self.resources_dir = directory / "tables"
        shutil.copytree(pathlib.Path(__file__).parent / "tables", self.resources_dir)
        self.stack = Stack(directory / "stack", **(SETTINGS | {"RESOURCES_DIR": self.resources_dir} | settings))
        (directory / "stack").mkdir(mode=0o755)
        self.disk = self.stack.data_dir if with_disk else None
        self.left_behind, self._said = [], []
        self.is_ended = False

    def start(self, opened):
        if self.disk:
            self.disk.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=0755", "pycrudapi-prove", str(self.disk)]
            subprocess.run(command, check=True, capture_output=True)
            opened.callback(subprocess.run, ["umount", "-l", str(self.disk)], check=False)
        opened.callback(self.stack.destroy)
        self.stack.start()
        self.port = self.stack.port
        self.entrances = [self.port]
        self._socket = self.stack.data_dir / "embedded" / "run"
        self.direct_url = f"host={self._socket} user=postgres dbname={self.database}"

    def said(self):
        """What everything under each supervisord wrote."""
        return "".join(f"{line}\n" for line in [*self._said, *self.stack.process.lines])

    def pids(self, kind):
        if kind == "backend":
            return [pid for postmaster in self.stack.pids("postmaster") for pid in postgres_wire.backends(postmaster, self.database)]
        return self.stack.pids(kind)

    async def postgres_answers(self):
        sockets = list(self._socket.glob(".s.PGSQL.*[0-9]"))
        return bool(sockets) and await postgres_wire.answers(str(sockets[0]), self.database)

    async def keep(self):
        """As whoever supervises the container does: supervisord that is gone is started again."""
        while not self.is_ended:
            if not self.stack.process.running:
                await asyncio.to_thread(self._start_again)
            await asyncio.sleep(0.05)

    def _start_again(self):
        self.stack.process.wait()
        try:
            until(lambda: not self.stack.processes(), "what supervisord had started is gone")
        except AssertionError:
            left = self.stack.processes()
            self.left_behind += left.values()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            until(lambda: not self.stack.processes(), "what was left behind is gone")
        self._said += self.stack.process.lines
        self.stack.start(ready=False)

    def end_left(self):
        for pid in self.stack.processes():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def laptop(with_disk=False, **settings):
    with contextlib.ExitStack() as opened:
        one = Laptop(opened.enter_context(support.short_directory()), settings, with_disk)
        await asyncio.to_thread(one.start, opened)
        keeper = asyncio.create_task(one.keep())
        try:
            yield one
        finally:
            # Not cut off: what a thread of it is starting would be left behind.
            one.is_ended = True
            await asyncio.gather(keeper, return_exceptions=True)
            one.end_left()
