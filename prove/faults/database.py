"""Faults caused by other users of the database: locks, exhausted connections, rewritten tables; and a failover."""

import asyncio
import contextlib
import os
import signal

import postgres_wire
import standby
from faults import SINGLE, SCALED, Skip, fault
from ledger import RESOURCES

# For statements that wait for locks held by requests.
TIMEOUT_SECONDS = 30


def _in_psql(name, *statements):
    @fault(name, SINGLE, SCALED)
    async def _(deployment, rng):
        seconds = rng.uniform(0.3, 2.0)
        table = rng.choice(RESOURCES).name
        commands = [statement.format(table=table, seconds=f"{seconds:.2f}") for statement in statements]
        running = asyncio.create_task(deployment.psql(*commands))
        try:
            yield seconds
        finally:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(running, TIMEOUT_SECONDS)
        done, output = (False, f"not finished within {TIMEOUT_SECONDS} s") if running.cancelled() else running.result()
        if not done:
            raise Skip(output)


SERVICE_SESSIONS = "from pg_stat_activity where application_name like 'pycrudapi%'"

_in_psql("table locked", "begin; lock table {table} in access exclusive mode; select pg_sleep({seconds}); rollback")
_in_psql("rows locked", "begin; select count(*) from (select 1 from {table} for update) l; select pg_sleep({seconds}); rollback")
_in_psql("history locked", "begin; lock table {table}_history in exclusive mode; select pg_sleep({seconds}); rollback")
_in_psql("vacuum full", "vacuum full {table}", "vacuum full {table}_history")
_in_psql("reindex", "reindex table {table}", "reindex table {table}_history")
_in_psql("every session terminated", f"select pg_terminate_backend(pid) {SERVICE_SESSIONS}")
_in_psql("every statement cancelled", *[f"select pg_cancel_backend(pid) {SERVICE_SESSIONS}"] * 5)
_in_psql("checkpoint", "checkpoint")


@fault("max_connections exhausted", SCALED)
async def _(deployment, rng):
    """Takes all free connections, then terminates the sessions of the service and takes those connections, too."""
    port, held = deployment.database_port, []

    async def take():
        with contextlib.suppress(OSError, EOFError):
            while one := await postgres_wire.session(port, "postgres"):
                held.append(one)

    try:
        # On a busy machine the connections obtained within the timeout are enough.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await take()
                for pid in deployment.pids("backend"):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGTERM)
                await take()
        yield rng.uniform(0.3, 2.0)
    finally:
        for _, writer in held:
            writer.transport.abort()


@fault("standby stopped", SCALED)
async def _(deployment, rng):
    """Writes wait for the standby until their deadline, and then have an unknown outcome."""
    if deployment.standby is None:
        raise Skip("there is no standby, or it was already promoted")
    pids = postgres_wire.children(deployment.standby.pid, "postgres: walreceiver")
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield rng.uniform(0.5, 5.0)
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@fault("failover to the standby", SCALED, waits_for_postgres=True)
async def _(deployment, _):
    """Kills the primary permanently; the standby has all acknowledged writes."""
    if deployment.standby is None:
        raise Skip("there is no standby, or it was already promoted")
    deployment.kept_down.add("postgres")
    await asyncio.to_thread(standby.kill, deployment.cluster)
    try:
        yield 0.3
    finally:
        await asyncio.to_thread(deployment.fail_over)
