"""Processes that are killed, stopped for a while, or asked to end."""

import asyncio
import contextlib
import os
import signal

from faults import LAPTOP, SERVERS, Skip, fault


# Longer than anything drains.
DRAIN_SECONDS = 90


def _one(world, dice, kind):
    pids = world.pids(kind)
    if not pids:
        raise Skip(f"there is no {kind} now")
    return dice.choice(pids)


def _signal(pid, number):
    with contextlib.suppress(ProcessLookupError):  # it went by itself
        os.kill(pid, number)


def _dies(kind, number, word, *places, **more):
    @fault(f"{kind} {word}", *places, **more)
    async def _(world, dice):
        pid = _one(world, dice, kind)
        _signal(pid, number)
        if kind == "supervisord":
            # What it had started works on for a moment: that is not yet what comes after it.
            await _until(lambda: world.pids(kind) not in ([], [pid]))
        elif number != signal.SIGKILL:
            await _until(lambda: pid not in world.pids(kind))
        yield None if number == signal.SIGKILL else 0


async def _until(condition):
    async with asyncio.timeout(DRAIN_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


def _stops(kind, *places):
    @fault(f"{kind} stopped", *places)
    async def _(world, dice):
        pid = _one(world, dice, kind)
        _signal(pid, signal.SIGSTOP)
        try:
            yield dice.uniform(0.1, 1.5)
        finally:
            _signal(pid, signal.SIGCONT)


for one in ("server", "nginx worker"):
    _dies(one, signal.SIGKILL, "killed", LAPTOP, SERVERS)
    _stops(one, LAPTOP, SERVERS)
_dies("server", signal.SIGTERM, "restarted", LAPTOP, SERVERS)
_dies("nginx master", signal.SIGKILL, "killed", LAPTOP)
_dies("nginx master", signal.SIGQUIT, "restarted", LAPTOP)
_dies("backend", signal.SIGKILL, "killed", LAPTOP, SERVERS, waits_for_postgres=True)
_dies("backend", signal.SIGTERM, "ended", LAPTOP, SERVERS)
_dies("postmaster", signal.SIGKILL, "killed", LAPTOP, SERVERS, waits_for_postgres=True)
_dies("postmaster", signal.SIGINT, "restarted", LAPTOP, SERVERS, waits_for_postgres=True)
_stops("postmaster", LAPTOP, SERVERS)
_stops("backend", LAPTOP, SERVERS)
_dies("supervisord", signal.SIGKILL, "killed", LAPTOP)
_dies("supervisord", signal.SIGTERM, "restarted", LAPTOP)
_dies("redis", signal.SIGKILL, "killed", SERVERS)
_stops("redis", SERVERS)
_stops("identity provider", SERVERS)


def _is_away(kind):
    @fault(f"{kind} away", SERVERS)
    async def _(world, dice):
        pid = _one(world, dice, kind)
        world.held.add(kind)
        try:
            _signal(pid, signal.SIGTERM)
            yield dice.uniform(0.5, 2.0)
        finally:
            world.held.discard(kind)


_is_away("redis")
_is_away("identity provider")


@fault("all servers killed", SERVERS)
async def _(world, _):
    for pid in world.pids("server"):
        _signal(pid, signal.SIGKILL)
    yield None


@fault("all servers restarted", SERVERS)
async def _(world, _):
    before = set(world.pids("server"))
    for pid in before:
        _signal(pid, signal.SIGTERM)
    await _until(lambda: not before & set(world.pids("server")))
    yield 0


@fault("log reader stuck", SERVERS)
async def _(world, dice):
    server = dice.choice(world.servers)
    _signal(server.reader.pid, signal.SIGSTOP)
    try:
        yield dice.uniform(1, 3)
    finally:
        _signal(server.reader.pid, signal.SIGCONT)


@fault("log reader gone", SERVERS)
async def _(world, dice):
    """It stays away until the server is started anew."""
    server = dice.choice(world.servers)
    _signal(server.reader.pid, signal.SIGKILL)
    yield 1
