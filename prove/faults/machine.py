"""Disks that are slow or fail, and clocks that step."""

import asyncio

from faults import SERVERS, Skip, fault


def _fsync(name, words, seconds, **more):
    @fault(name, SERVERS, **more)
    async def _(world, dice):
        if world.fsync.why_not:
            raise Skip(world.fsync.why_not)
        world.fsync.set(words(dice))
        try:
            yield dice.uniform(*seconds)
        finally:
            world.fsync.set("")


_fsync("fsync slow", lambda dice: f"slow {dice.randrange(20, 400)}", (0.5, 2.0))
# PostgreSQL ends itself then, and recovers: what it cannot write it must not acknowledge.
_fsync("fsync fails", lambda _: "fail", (0.1, 0.6), waits_for_postgres=True)


def _clock(name, which):
    @fault(name, SERVERS)
    async def _(world, dice):
        clock = which(world)
        if clock.why_not:
            raise Skip(clock.why_not)
        clock.step(dice.choice((-3600, -30, 30, 3600)))
        try:
            yield dice.uniform(1.1, 2.0)
        finally:
            clock.step(0)
            await asyncio.sleep(1.1)  # libfaketime looks once a second


_clock("clock of the servers steps", lambda world: world.clock)
_clock("clock of PostgreSQL steps", lambda world: world.database_clock)
