"""Slow and failing disks, and clocks that step."""

import asyncio

from faults import SCALED, Skip, fault


def _fsync(name, mode, seconds, **more):
    @fault(name, SCALED, **more)
    async def _(deployment, rng):
        if deployment.fsync.unsupported_reason:
            raise Skip(deployment.fsync.unsupported_reason)
        deployment.fsync.set(mode(rng))
        try:
            yield rng.uniform(*seconds)
        finally:
            deployment.fsync.set("")


_fsync("fsync slow", lambda rng: f"slow {rng.randrange(20, 400)}", (0.5, 2.0))
# PostgreSQL then panics and recovers: it must not acknowledge what it cannot write.
_fsync("fsync fails", lambda _: "fail", (0.1, 0.6), waits_for_postgres=True)


def _clock(name, which):
    @fault(name, SCALED)
    async def _(deployment, rng):
        clock = which(deployment)
        if clock.unsupported_reason:
            raise Skip(clock.unsupported_reason)
        clock.step(rng.choice((-3600, -30, 30, 3600)))
        try:
            yield rng.uniform(1.1, 2.0)
        finally:
            clock.step(0)
            await asyncio.sleep(1.1)  # libfaketime reads its file once per second


_clock("clock step: servers", lambda deployment: deployment.clock)
_clock("clock step: PostgreSQL", lambda deployment: deployment.database_clock)
