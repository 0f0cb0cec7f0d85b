"""510 slow readers of long lists and 500 unfinished bodies of 1 MB concurrently, from one address and from 200, against a stack in a
control group of 256 MiB: no process is killed, and other clients are answered."""

import asyncio
import contextlib

from client import Client, Counts, Lost, NotSent
from scenario import Result
from stack import Stack

import crowd

WEIGHT = 1
SHORT = 10

PATH = "/v1/passengers"


async def run(context):
    counts, rounds, used = Counts(), 0, 0
    with contextlib.ExitStack() as opened:
        try:
            stack = await asyncio.to_thread(opened.enter_context, crowd.stack_in_a_container(Stack))
        except crowd.NoControlGroup as error:
            print(f"   not run: {error}", flush=True)
            return []
        before = stack.pids("server"), stack.pids("nginx master")
        context.start_clock()
        while context.time_left() > 0:
            with contextlib.ExitStack() as attacking:
                addresses = (1, 200)[rounds % 2]
                held = await asyncio.to_thread(attacking.enter_context, crowd.attack(stack.port, addresses))
                async with Client(stack.port, counts) as client:
                    for _ in range(50):
                        await _use(client)
                for one in held:
                    with contextlib.suppress(OSError):
                        one.send(b" ")
                used = max(used, crowd.anonymous(stack.group) // crowd.MIB)
            rounds += 1
        after = stack.pids("server"), stack.pids("nginx master")
        killed, peak = crowd.killed(stack.group), crowd.most_used(stack.group)
    # On a busy machine a list may wait for a session longer than CHECKOUT_TIMEOUT_MS.
    refused = counts.statuses[503]
    failed = sum(counts.failed().values()) + counts.lost + counts.not_sent - refused
    return [
        Result("processes killed by 510 slow readers and 500 unfinished bodies", "0",
            {"rounds": rounds, "killed": killed, "peak MiB": peak}, killed == 0 and before == after),
        Result("anonymous memory during both", f"≤ {crowd.ANONYMOUS // crowd.MIB} MiB of 256 MiB", {"MiB": used},
            used <= crowd.ANONYMOUS // crowd.MIB),
        Result("other clients are answered", "0 failed, ≤ 1 % 503", {**counts.summary(), "failed": failed},
            failed == 0 and refused <= counts.requests / 100),
    ]  # fmt: skip


async def _use(client):
    with contextlib.suppress(Lost, NotSent):  # counted by the client
        created = await client.request("POST", PATH, PASSENGER)
        if created.status == 201:
            await client.request("GET", created.headers["location"])
        await client.request("GET", f"{PATH}?limit=10")


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
