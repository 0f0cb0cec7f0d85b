"""What others do in the same database: hold locks, use connections up, rewrite tables; and a failover."""

import asyncio
import contextlib
import os
import signal

import postgres_wire
import standby
from faults import LAPTOP, SERVERS, Skip, fault
from ledger import RESOURCES


# Of what waits for locks that requests hold.
PATIENCE_SECONDS = 30


def _in_psql(name, *statements):
    @fault(name, LAPTOP, SERVERS)
    async def _(world, dice):
        seconds = dice.uniform(0.3, 2.0)
        table = dice.choice(RESOURCES).name
        commands = [one.format(table=table, seconds=f"{seconds:.2f}") for one in statements]
        running = asyncio.create_task(world.psql(*commands))
        try:
            yield seconds
        finally:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(running, PATIENCE_SECONDS)
        done, said = (False, f"not over in {PATIENCE_SECONDS} s") if running.cancelled() else running.result()
        if not done:
            raise Skip(said)


OURS = "from pg_stat_activity where application_name like 'pycrudapi%'"

_in_psql("table locked", "begin; lock table {table} in access exclusive mode; select pg_sleep({seconds}); rollback")
_in_psql("rows locked", "begin; select count(*) from (select 1 from {table} for update) l; select pg_sleep({seconds}); rollback")
_in_psql("history locked", "begin; lock table {table}_history in exclusive mode; select pg_sleep({seconds}); rollback")
_in_psql("vacuum full", "vacuum full {table}", "vacuum full {table}_history")
_in_psql("reindex", "reindex table {table}", "reindex table {table}_history")
_in_psql("every session ended", f"select pg_terminate_backend(pid) {OURS}")
_in_psql("every statement cancelled", *[f"select pg_cancel_backend(pid) {OURS}"] * 5)
_in_psql("checkpoint", "checkpoint")


@fault("max_connections used up by others", SERVERS)
async def _(world, dice):
    """All that are left; then the service's are ended, which others take, too."""
    port, held = world.database_port, []

    async def take():
        with contextlib.suppress(OSError, EOFError):
            while one := await postgres_wire.session(port, "postgres"):
                held.append(one)

    try:
        # On a busy machine those that were had by then are enough.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await take()
                for pid in world.pids("backend"):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM)
                await take()
        yield dice.uniform(0.3, 2.0)
    finally:
        for _, writer in held:
            writer.transport.abort()


@fault("standby stopped", SERVERS)
async def _(world, dice):
    """What changes something waits for it, and at last nobody knows whether it was carried out."""
    if world.standby is None:
        raise Skip("there is no standby, or it is the primary already")
    pids = postgres_wire.children(world.standby.pid, "postgres: walreceiver")
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield dice.uniform(0.5, 5.0)
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@fault("failover to the standby", SERVERS, waits_for_postgres=True)
async def _(world, _):
    """The primary dies and never comes back; the standby has all that was acknowledged."""
    if world.standby is None:
        raise Skip("there is no standby, or it is the primary already")
    world.held.add("postgres")
    await asyncio.to_thread(standby.kill, world.cluster)
    try:
        yield 0.3
    finally:
        await asyncio.to_thread(world.fail_over)
