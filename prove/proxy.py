#!/usr/bin/env python3
"""Forwards TCP connections and breaks them on command: `proxy.py NAME=PORT:TARGET…`; reads one command per line.

    NAME pass            forward unchanged
    NAME cut             reset all connections, pass new ones
    NAME refuse          reset all connections, refuse new ones
    NAME delay SECONDS   deliver each chunk that much later
    NAME stall           deliver nothing in either direction, without closing the connections
    NAME reset BYTES     reset each connection after that many more bytes from the target
    NAME target PORT     connect new connections to that port

Each command is echoed when it has taken effect. It is a process of its own so that the load of the clients does not slow it
down.
"""

import asyncio
import socket
import struct
import sys

HOST = "127.0.0.1"


class Link:
    def __init__(self, name, port, target):
        self.name, self.port, self.target = name, port, target
        self.mode, self.number = "pass", 0.0
        self.pairs = set()
        self._server = None

    async def listen(self):
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Side(self), HOST, self.port, backlog=1024)

    async def command(self, mode, number=0.0):
        if mode == "target":
            self.target = int(number)
            return
        if self.mode == "refuse" and mode != "refuse":
            await self.listen()
        was, self.mode, self.number = self.mode, mode, number
        if mode == "refuse" and self._server:
            self._server.close()
            self._server = None
        if mode in ("cut", "refuse"):
            for side in list(self.pairs):
                side.reset()
        if mode == "cut":
            self.mode = "pass"
        for side in list(self.pairs):
            side.left = int(number) if mode == "reset" else None
            if was == "stall" or mode == "stall":
                side.hold(mode == "stall")


class Side(asyncio.Protocol):
    """One of the two connections of a pair; the data that it reads is written to `other`."""

    def __init__(self, link, other=None):
        self.link, self.other = link, other
        self.is_target = other is not None
        self.transport = None
        self.left = None
        self._early, self._held = [], False
        self._last = 0.0  # when the last chunk is delivered

    def connection_made(self, transport):
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.link.pairs.add(self)
        if self.link.mode == "reset":
            self.left = int(self.link.number)
        if self.other is None:
            asyncio.ensure_future(self._connect())
        if self.link.mode == "stall":
            self.hold(True)

    async def _connect(self):
        loop = asyncio.get_running_loop()
        try:
            _, self.other = await loop.create_connection(lambda: Side(self.link, self), HOST, self.link.target)
        except OSError:
            self.reset()
            return
        for data in self._early:
            self.other.write(data)
        if self.transport.is_closing():
            self.other.transport.close()

    def data_received(self, data):
        if self.is_target and self.left is not None:
            data, self.left = data[: self.left], self.left - len(data)
            self.other.write(data)
            if self.left <= 0:
                self.reset()
                self.other.reset()
        elif self.other is None:
            self._early.append(data)
        else:
            self._in_order(self.other.write, data)

    def _in_order(self, act, *arguments):
        """Runs `act` after the delay of the link, and never before an earlier one."""
        loop = asyncio.get_running_loop()
        late = self.link.number if self.link.mode == "delay" else 0.0
        at = max(loop.time() + late, self._last)
        if at <= loop.time():
            act(*arguments)
        else:
            self._last = at + 1e-6
            loop.call_at(self._last, act, *arguments)

    def write(self, data):
        if not self.transport.is_closing():
            self.transport.write(data)

    def hold(self, held):
        """Stalls by not reading: the data stays in the sender's buffers, and is delivered if the stall ends in time."""
        if held != self._held and not self.transport.is_closing():
            self._held = held
            (self.transport.pause_reading if held else self.transport.resume_reading)()

    def reset(self):
        if self.transport and not self.transport.is_closing():
            with_linger = struct.pack("ii", 1, 0)
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, with_linger)
            self.transport.abort()

    def connection_lost(self, _):
        self.link.pairs.discard(self)
        if self.other and self.other.transport and not self.other.transport.is_closing():
            self._in_order(self.other.transport.close)


async def main(words):
    links = {}
    for word in words:
        name, _, ports = word.partition("=")
        port, _, target = ports.partition(":")
        links[name] = Link(name, int(port), int(target))
        await links[name].listen()
    print("ready", flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        name, mode, *number = line.decode().split()
        await links[name].command(mode, *map(float, number))
        print(line.decode().strip(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
