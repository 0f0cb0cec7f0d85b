"""Two servers and 128 clients that replace, patch, delete and create the same 200 rows: no statement waits for another in
a circle, so PostgreSQL ends none. WRITES=1000000 writes that many instead of writing for a time."""

import asyncio
import contextlib
import itertools

from client import Client, Counts, Lost, NotSent
from scenario import Row
from stack import servers, support, until

WEIGHT = 1
SHORT = 8

CLIENTS = 128
ROWS = 200
# Each commit takes 5 ms, and holds the locks of its rows: what can wait for each other in a circle does so soon.
LOCKS_HELD_LONGER = {"commit_delay": "5000", "commit_siblings": "0"}
KINDS = ("PUT", "PATCH", "PUT", "PATCH", "DELETE")
PATH = "/v1/passengers"
PASSENGER = support.PASSENGER | {"name": "Dead Lock"}
MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}


async def run(context):
    async with servers(2, postgres=LOCKS_HELD_LONGER) as stack:
        counts, rows = Counts(), []
        async with Client(stack.ports[0]) as client:
            for _ in range(ROWS):
                rows.append((await client.ask("POST", PATH, PASSENGER)).json()["uuid"])
        writes = context.number("WRITES", 0)
        context.start_clock()

        async def write(number):
            # The clients of a server do the same at about the same time, so that it changes many rows in one statement.
            async with Client(stack.ports[number % 2], counts) as client:
                for turn in itertools.count(number % 2):
                    if counts.requests >= writes if writes else context.time_left() <= 0:
                        return
                    await _write(context.random, KINDS[turn % len(KINDS)], client, rows)

        await asyncio.gather(*(write(number) for number in range(CLIENTS)))
        deadlocks = await asyncio.to_thread(_deadlocks, stack)
    failed = sum(counts.failed().values()) + counts.lost + counts.not_sent
    return [
        Row("writes to the same rows through two servers deadlock", "0", {**counts.shown(), "deadlocks": deadlocks}, deadlocks == 0),
        Row("each of them is answered, and none with 5xx", "0", {"failed": failed}, failed == 0),
    ]


async def _write(dice, kind, client, rows):
    place = dice.randrange(ROWS)
    path = f"{PATH}/{rows[place]}"
    with contextlib.suppress(Lost, NotSent):  # they are counted
        if kind == "PUT":
            await client.ask("PUT", path, PASSENGER)
        elif kind == "PATCH":
            await client.ask("PATCH", path, {"age": dice.randrange(1, 99)}, MERGE_PATCH)
        elif (await client.ask("DELETE", path)).status == 204:
            created = await client.ask("POST", PATH, PASSENGER)
            if created.status == 201:
                rows[place] = created.json()["uuid"]


def _deadlocks(stack):
    """PostgreSQL's own count. Its sessions have reported at the latest when they have ended."""
    stack.end()
    others = f"select count(*) from pg_stat_activity where datname = '{stack.database}' and pid <> pg_backend_pid()"
    until(lambda: stack.psql(others) == "0", "the servers' sessions have ended")
    return int(stack.psql(f"select deadlocks from pg_stat_database where datname = '{stack.database}'"))
