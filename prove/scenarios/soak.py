"""Hours of the same mixed load on the stack of `make up`, without faults: memory, descriptors, connections and the room of tables
and indexes rise to a level and stay there. `make soak MINUTES=120`; WATCH=10 are the seconds between two looks."""

import asyncio
import collections
import itertools
import os
import pathlib
import time

from client import Client, Counts, Lost, NotSent
from history import DONE
from laptop import laptop
from ledger import RESOURCES, Ledger
from open_loop import Timeline, open_loop, quantile
from scenario import Row

# By its name alone.
WEIGHT = 0
SHORT = 0

ROWS, WORKERS = 2000, 24
# What grows by design is forgotten soon.
SETTINGS = {"HISTORY_RETENTION": "60s", "IDEMPOTENCY_TTL": "60s"}
# Of the last quarter over the second one, in which all caches are full.
LEVEL = 1.15
# Below this much a ratio says nothing.
ENOUGH = {"descriptors": 40, "connections": 20}
ROOM = "select coalesce(sum(pg_total_relation_size(c.oid)), 0) from pg_class c where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace"
SESSIONS = "select count(*) from pg_stat_activity where backend_type = 'client backend'"


async def run(context):
    watched = collections.defaultdict(list)
    async with laptop(**SETTINGS) as world:
        ledger, timeline, rows = Ledger(context.random), Timeline(), collections.deque()
        counts, numbers = Counts(), itertools.count()

        async def act(client, due):
            timeline.record(due, await _one(client, context.random, rows, ledger, next(numbers)))

        clients = [Client(world.port, counts) for _ in range(WORKERS)]
        context.start_clock()
        load = asyncio.create_task(open_loop(context.number("RATE", 300), context.seconds, clients, act))
        while not load.done() and context.time_left() > 0:
            await asyncio.sleep(min(context.number("WATCH", 10), context.time_left() + 0.1))
            await _look(world, watched)
        await load
        for client in clients:
            client.close()
    return [*_level(watched), _answered(counts, timeline)]


async def _one(client, dice, rows, ledger, number):
    """A change, and one of its kind in the other direction: as many rows come as go."""
    resource = RESOURCES[number % 2]
    try:
        if len(rows) < ROWS or dice.random() < 0.1:
            headers = {"Idempotency-Key": f"soak-{number}"} if dice.random() < 0.3 else {}
            answer = await client.ask("POST", resource.path, resource.body(f"soak {number}"), headers)
            if ledger.outcome(answer, bool(headers)) == DONE:
                rows.append((resource, answer.headers["location"]))
        elif len(rows) > ROWS:
            answer = await client.ask("DELETE", rows.popleft()[1])
        else:
            resource, path = dice.choice(rows)
            body = resource.changed(f"soak {number}")
            asked = dice.choice([("GET", path, None), ("PATCH", path, body), ("GET", f"{path}/history", None), ("GET", f"{resource.path}?limit=50", None)])
            answer = await client.ask(*asked)
    except (Lost, NotSent):
        return False
    return answer.status < 300


async def _look(world, watched):
    for kind in ("server", "nginx worker", "supervisord"):
        for pid in world.pids(kind)[:1]:
            words = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii").split()
            watched[f"{kind}: resident memory, MiB"].append(int(words[words.index("VmRSS:") + 1]) / 1024)
            watched[f"{kind}: descriptors"].append(len(os.listdir(f"/proc/{pid}/fd")))
    for what, statement, unit in (("tables and indexes, MiB", ROOM, 1 << 20), ("connections to PostgreSQL", SESSIONS, 1)):
        done, said = await world.psql(statement)
        if done:
            watched[what].append(int(said) / unit)


def _level(watched):
    for what, seen in watched.items():
        quarter = max(1, len(seen) // 4)
        then, now = quantile(seen[quarter : 2 * quarter] or seen, 0.5), quantile(seen[-quarter:], 0.5)
        enough = next((least for word, least in ENOUGH.items() if word in what), 0)
        held = now <= max(then * LEVEL, enough)
        counted = {"second quarter": round(then, 1), "last quarter": round(now, 1), "most": round(max(seen), 1), "looks": len(seen)}
        yield Row(f"{what} stays level", f"≤ {LEVEL} ×", counted, held)


def _answered(counts, timeline):
    failed = sum(counts.failed().values()) + counts.lost + counts.not_sent
    p99 = f"{quantile(timeline.all_latencies(), 0.99) * 1000:.0f} ms"
    return Row("no request fails", "0", {**counts.shown(), "p99": p99, "minutes": (time.monotonic() - timeline.start) / 60}, failed == 0)
