"""Breakable connections: runs proxy.py in a process of its own and sends it commands."""

import asyncio
import pathlib
import subprocess
import sys
import threading

import support


class Links:
    """`with Links({"name": port}) as links`: `links.ports["name"]` forwards to that port; `await links.set("name", "cut")` breaks it."""

    def __init__(self, targets):
        self._targets = targets
        self.ports = {name: support.free_port() for name in targets}
        self._lock = threading.Lock()

    def __enter__(self):
        words = [f"{name}={self.ports[name]}:{target}" for name, target in self._targets.items()]
        program = pathlib.Path(__file__).with_name("proxy.py")
        self._process = subprocess.Popen(
            [sys.executable, program, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        if self._process.stdout.readline() != "ready\n":
            raise RuntimeError("the proxy did not start")
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()

    def names(self, prefix):
        return [name for name in self.ports if name.startswith(prefix)]

    async def set(self, name, mode, number=None):
        """proxy.py lists the modes."""
        await asyncio.to_thread(self._command, f"{name} {mode}" if number is None else f"{name} {mode} {number}")

    def _command(self, line):
        with self._lock:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
            if self._process.stdout.readline().strip() != line:
                raise RuntimeError(f"the proxy has exited or rejected the command: {line}")
