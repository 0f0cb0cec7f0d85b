"""510 slow readers of long lists and 500 unfinished bodies of 1 MB at once, of one address and of 200, within the 256 MiB of a
container: nothing is killed, and others are answered meanwhile."""

import asyncio
import contextlib

from client import Client, Counts, Lost, NotSent
from scenario import Row
from stack import Stack

import crowd

WEIGHT = 1
SHORT = 10

PATH = "/v1/passengers"


async def run(context):
    counts, rounds = Counts(), 0
    with contextlib.ExitStack() as opened:
        try:
            stack = await asyncio.to_thread(opened.enter_context, crowd.stack_in_a_container(Stack))
        except crowd.NoControlGroup as error:
            print(f"   nothing is counted: {error}", flush=True)
            return []
        before = stack.pids("server"), stack.pids("nginx master")
        context.start_clock()
        while context.time_left() > 0:
            with contextlib.ExitStack() as attacking:
                addresses = (1, 200)[rounds % 2]
                held = await asyncio.to_thread(attacking.enter_context, crowd.attack(stack.port, addresses))
                async with Client(stack.port, counts) as client:
                    for _ in range(50):
                        await _ask(client)
                for one in held:
                    with contextlib.suppress(OSError):
                        one.send(b" ")
            rounds += 1
        after = stack.pids("server"), stack.pids("nginx master")
        killed, used = crowd.killed(stack.group), crowd.most_used(stack.group)
    # Where the machine is busy with something else, a list may wait for its turn longer than CHECKOUT_TIMEOUT_MS.
    later = counts.statuses[503]
    failed = sum(counts.failed().values()) + counts.lost + counts.not_sent - later
    return [
        Row("processes killed by 510 slow readers and 500 unfinished bodies", "0",
            {"rounds": rounds, "killed": killed, "MiB at most": used}, killed == 0 and before == after),
        Row("others are answered meanwhile", "0 not, ≤ 1 % told to come back", {**counts.shown(), "not": failed},
            failed == 0 and later <= counts.requests / 100),
    ]  # fmt: skip


async def _ask(client):
    with contextlib.suppress(Lost, NotSent):  # they are counted
        created = await client.ask("POST", PATH, PASSENGER)
        if created.status == 201:
            await client.ask("GET", created.headers["location"])
        await client.ask("GET", f"{PATH}?limit=10")


PASSENGER = {
    "survived": True,
    "passengerClass": 2,
    "name": "Crowded In",
    "sex": "male",
    "age": 27.0,
    "siblingsOrSpousesAboard": 0,
    "parentsOrChildrenAboard": 0,
    "fare": 13.0,
}
