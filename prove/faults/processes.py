"""Processes that are killed (SIGKILL), stopped for a while (SIGSTOP), or terminated (SIGTERM, SIGINT, SIGQUIT)."""

import asyncio
import contextlib
import os
import signal

from faults import SINGLE, SCALED, Skip, fault

# Longer than any drain.
DRAIN_SECONDS = 90


def _one(deployment, rng, kind):
    pids = deployment.pids(kind)
    if not pids:
        raise Skip(f"no {kind} is running")
    return rng.choice(pids)


def _signal(pid, number):
    with contextlib.suppress(ProcessLookupError):  # it has already exited
        os.kill(pid, number)


def _terminate(kind, number, word, *places, **more):
    @fault(f"{kind} {word}", *places, **more)
    async def _(deployment, rng):
        pid = _one(deployment, rng, kind)
        _signal(pid, number)
        if kind == "supervisord":
            # Its children keep running for a moment: wait for the next supervisord and not for them.
            await _until(lambda: deployment.pids(kind) not in ([], [pid]))
        elif number != signal.SIGKILL:
            await _until(lambda: pid not in deployment.pids(kind))
        yield None if number == signal.SIGKILL else 0


async def _until(condition):
    async with asyncio.timeout(DRAIN_SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


def _stop(kind, *places):
    @fault(f"{kind} stopped", *places)
    async def _(deployment, rng):
        pid = _one(deployment, rng, kind)
        _signal(pid, signal.SIGSTOP)
        try:
            yield rng.uniform(0.1, 1.5)
        finally:
            _signal(pid, signal.SIGCONT)


for kind in ("server", "nginx worker"):
    _terminate(kind, signal.SIGKILL, "killed", SINGLE, SCALED)
    _stop(kind, SINGLE, SCALED)
_terminate("server", signal.SIGTERM, "restarted", SINGLE, SCALED)
_terminate("nginx master", signal.SIGKILL, "killed", SINGLE)
_terminate("nginx master", signal.SIGQUIT, "restarted", SINGLE)
_terminate("backend", signal.SIGKILL, "killed", SINGLE, SCALED, waits_for_postgres=True)
_terminate("backend", signal.SIGTERM, "ended", SINGLE, SCALED)
_terminate("postmaster", signal.SIGKILL, "killed", SINGLE, SCALED, waits_for_postgres=True)
_terminate("postmaster", signal.SIGINT, "restarted", SINGLE, SCALED, waits_for_postgres=True)
_stop("postmaster", SINGLE, SCALED)
_stop("backend", SINGLE, SCALED)
_terminate("supervisord", signal.SIGKILL, "killed", SINGLE)
_terminate("supervisord", signal.SIGTERM, "restarted", SINGLE)
_terminate("redis", signal.SIGKILL, "killed", SCALED)
_stop("redis", SCALED)
_stop("identity provider", SCALED)


def _down(kind):
    @fault(f"{kind} down", SCALED)
    async def _(deployment, rng):
        pid = _one(deployment, rng, kind)
        deployment.kept_down.add(kind)
        try:
            _signal(pid, signal.SIGTERM)
            yield rng.uniform(0.5, 2.0)
        finally:
            deployment.kept_down.discard(kind)


_down("redis")
_down("identity provider")


@fault("all servers killed", SCALED)
async def _(deployment, _):
    for pid in deployment.pids("server"):
        _signal(pid, signal.SIGKILL)
    yield None


@fault("all servers restarted", SCALED)
async def _(deployment, _):
    before = set(deployment.pids("server"))
    for pid in before:
        _signal(pid, signal.SIGTERM)
    await _until(lambda: not before & set(deployment.pids("server")))
    yield 0


@fault("log reader stopped", SCALED)
async def _(deployment, rng):
    server = rng.choice(deployment.servers)
    _signal(server.reader.pid, signal.SIGSTOP)
    try:
        yield rng.uniform(1, 3)
    finally:
        _signal(server.reader.pid, signal.SIGCONT)


@fault("log reader killed", SCALED)
async def _(deployment, rng):
    """It is not restarted until the server is."""
    server = rng.choice(deployment.servers)
    _signal(server.reader.pid, signal.SIGKILL)
    yield 1
