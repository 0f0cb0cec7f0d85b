"""A schema upgrade and a rolling restart while everything works."""

import asyncio
import signal

from faults import SERVERS, Skip, fault
from stack import is_ready

# Clients of before leave it out, so it has a default.
COLUMN = """
[[column]]
name = "{name}"
type = "integer"
default = 7
"""


@fault("schema upgrade", SERVERS)
async def _(world, _):
    """The parcels get a column: the table first, then the servers one by one."""
    world.upgrades += 1
    description = world.resources_dir / "parcels.toml"
    with open(description, "a", encoding="utf-8") as file:
        file.write(COLUMN.format(name=f"added{world.upgrades}"))
    status, _, said = await asyncio.to_thread(world.run, "migrate", "--wait")
    if status:
        raise Skip(f"pycrudapi migrate: {said[-300:]}")
    await rolling_restart(world)
    yield 0


@fault("rolling restart", SERVERS)
async def _(world, _):
    await rolling_restart(world)
    yield 0


async def rolling_restart(world):
    """Each server is told to end, is started again, and is ready before the next one's turn."""
    for server in world.servers:
        if not server.running:
            continue
        before = server.process.pid
        server.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(120):
            while not server.running or server.process.pid == before or not await asyncio.to_thread(is_ready, server.port):
                await asyncio.sleep(0.05)
