"""Two servers and 128 clients that replace, patch, delete and create the same 200 rows: no statements deadlock, so PostgreSQL
cancels none. WRITES=1000000 sends that many writes instead of writing for a time."""

import asyncio
import contextlib
import itertools

from client import Client, Counts, Lost, NotSent
from scenario import Result
from stack import servers, support, until

WEIGHT = 1
SHORT = 8

CLIENTS = 128
ROWS = 200
# Each commit takes 5 ms while it holds the locks of its rows, which makes a possible deadlock likely.
SLOW_COMMITS = {"commit_delay": "5000", "commit_siblings": "0"}
KINDS = ("PUT", "PATCH", "PUT", "PATCH", "DELETE")
PATH = "/v1/passengers"
PASSENGER = support.PASSENGER | {"name": "Dead Lock"}
MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}


async def run(context):
    async with servers(2, postgres=SLOW_COMMITS) as stack:
        counts, rows = Counts(), []
        async with Client(stack.ports[0]) as client:
            for _ in range(ROWS):
                rows.append((await client.request("POST", PATH, PASSENGER)).json()["uuid"])
        writes = context.number("WRITES", 0)
        context.start_clock()

        async def write(number):
            # The clients of one server send the same kind of write at about the same time, so that it batches them into one statement.
            async with Client(stack.ports[number % 2], counts) as client:
                for step in itertools.count(number % 2):
                    if counts.requests >= writes if writes else context.time_left() <= 0:
                        return
                    await _write(context.random, KINDS[step % len(KINDS)], client, rows)

        await asyncio.gather(*(write(number) for number in range(CLIENTS)))
        deadlocks = await asyncio.to_thread(_deadlocks, stack)
    failed = sum(counts.failed().values()) + counts.lost + counts.not_sent
    return [
        Result("writes to the same rows through two servers deadlock", "0", {**counts.summary(), "deadlocks": deadlocks}, deadlocks == 0),
        Result("each write is answered, none with 429 or 5xx", "0", {"failed": failed}, failed == 0),
    ]


async def _write(rng, kind, client, rows):
    index = rng.randrange(ROWS)
    path = f"{PATH}/{rows[index]}"
    with contextlib.suppress(Lost, NotSent):  # counted by the client
        if kind == "PUT":
            await client.request("PUT", path, PASSENGER)
        elif kind == "PATCH":
            await client.request("PATCH", path, {"age": rng.randrange(1, 99)}, MERGE_PATCH)
        elif (await client.request("DELETE", path)).status == 204:
            created = await client.request("POST", PATH, PASSENGER)
            if created.status == 201:
                rows[index] = created.json()["uuid"]


def _deadlocks(stack):
    """PostgreSQL's own count; sessions have reported their statistics when they end, at the latest."""
    stack.end()
    others = f"select count(*) from pg_stat_activity where datname = '{stack.database}' and pid <> pg_backend_pid()"
    until(lambda: stack.psql(others) == "0", "the servers' sessions have ended")
    return int(stack.psql(f"select deadlocks from pg_stat_database where datname = '{stack.database}'"))
