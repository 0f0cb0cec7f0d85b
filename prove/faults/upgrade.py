"""A schema upgrade and a rolling restart under load."""

import asyncio
import signal

from faults import SCALED, Skip, fault
from stack import is_ready

# It has a default because existing clients omit it.
COLUMN = """
[[column]]
name = "{name}"
type = "integer"
default = 7
"""


@fault("schema upgrade", SCALED)
async def _(deployment, _):
    """Adds a column to the parcels: first to the table, then to the servers one by one."""
    deployment.upgrades += 1
    description = deployment.resources_dir / "parcels.toml"
    with open(description, "a", encoding="utf-8") as file:
        file.write(COLUMN.format(name=f"added{deployment.upgrades}"))
    status, _, errors = await asyncio.to_thread(deployment.run, "migrate", "--wait")
    if status:
        raise Skip(f"pycrudapi migrate: {errors[-300:]}")
    await rolling_restart(deployment)
    yield 0


@fault("rolling restart", SCALED)
async def _(deployment, _):
    await rolling_restart(deployment)
    yield 0


async def rolling_restart(deployment):
    """Sends SIGTERM to each server and waits until its successor is ready before it continues with the next."""
    for server in deployment.servers:
        if not server.running:
            continue
        before = server.process.pid
        server.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(120):
            while not server.running or server.process.pid == before or not await asyncio.to_thread(is_ready, server.port):
                await asyncio.sleep(0.05)
