"""Hours of constant mixed load on the stack of `make up`, without faults: memory, descriptors, connections and the size of tables and
indexes reach a plateau. `make soak MINUTES=120`; WATCH=10 is the interval between two samples in seconds."""

import asyncio
import collections
import itertools
import os
import pathlib
import time

from client import Client, Counts, Lost, NotSent
from history import DONE
from single import single
from ledger import RESOURCES, Ledger
from open_loop import Timeline, open_loop, quantile
from scenario import Result

# Runs only when it is named.
WEIGHT = 0
SHORT = 0

ROWS, WORKERS = 2000, 24
# Short retentions, because these tables grow until the retention is reached.
SETTINGS = {"HISTORY_RETENTION": "60s", "IDEMPOTENCY_TTL": "60s"}
# Limit of the last quarter relative to the second one, in which all caches are full.
LEVEL = 1.15
# Below these values a ratio is not meaningful.
MINIMUM = {"descriptors": 40, "connections": 20}
TABLE_SIZE = "select coalesce(sum(pg_total_relation_size(c.oid)), 0) from pg_class c where c.relkind = 'r' and c.relnamespace = 'public'::regnamespace"
SESSIONS = "select count(*) from pg_stat_activity where backend_type = 'client backend'"


async def run(context):
    samples = collections.defaultdict(list)
    async with single(**SETTINGS) as deployment:
        ledger, timeline, rows = Ledger(context.random), Timeline(), collections.deque()
        counts, numbers = Counts(), itertools.count()

        async def act(client, due):
            timeline.record(due, await _one(client, context.random, rows, ledger, next(numbers)))

        clients = [Client(deployment.port, counts) for _ in range(WORKERS)]
        context.start_clock()
        load = asyncio.create_task(open_loop(context.number("RATE", 300), context.seconds, clients, act))
        while not load.done() and context.time_left() > 0:
            await asyncio.sleep(min(context.number("WATCH", 10), context.time_left() + 0.1))
            await _sample(deployment, samples)
        await load
        for client in clients:
            client.close()
    return [*_level(samples), _answered(counts, timeline)]


async def _one(client, rng, rows, ledger, number):
    """Sends one request; creations and deletions keep the number of rows constant."""
    resource = RESOURCES[number % 2]
    try:
        if len(rows) < ROWS or rng.random() < 0.1:
            headers = {"Idempotency-Key": f"soak-{number}"} if rng.random() < 0.3 else {}
            answer = await client.request("POST", resource.path, resource.body(f"soak {number}"), headers)
            if ledger.outcome(answer, bool(headers)) == DONE:
                rows.append((resource, answer.headers["location"]))
        elif len(rows) > ROWS:
            answer = await client.request("DELETE", rows.popleft()[1])
        else:
            resource, path = rng.choice(rows)
            body = resource.changed(f"soak {number}")
            request = rng.choice([("GET", path, None), ("PATCH", path, body), ("GET", f"{path}/history", None), ("GET", f"{resource.path}?limit=50", None)])
            answer = await client.request(*request)
    except (Lost, NotSent):
        return False
    return answer.status < 300


async def _sample(deployment, samples):
    for kind in ("server", "nginx worker", "supervisord"):
        for pid in deployment.pids(kind)[:1]:
            words = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii").split()
            samples[f"{kind}: resident memory, MiB"].append(int(words[words.index("VmRSS:") + 1]) / 1024)
            samples[f"{kind}: descriptors"].append(len(os.listdir(f"/proc/{pid}/fd")))
    for what, statement, unit in (("tables and indexes, MiB", TABLE_SIZE, 1 << 20), ("connections to PostgreSQL", SESSIONS, 1)):
        done, output = await deployment.psql(statement)
        if done:
            samples[what].append(int(output) / unit)


def _level(samples):
    for what, seen in samples.items():
        quarter = max(1, len(seen) // 4)
        second, last = quantile(seen[quarter : 2 * quarter] or seen, 0.5), quantile(seen[-quarter:], 0.5)
        minimum = next((least for word, least in MINIMUM.items() if word in what), 0)
        held = last <= max(second * LEVEL, minimum)
        counted = {"second quarter": round(second, 1), "last quarter": round(last, 1), "max": round(max(seen), 1), "samples": len(seen)}
        yield Result(f"{what} stays level", f"≤ {LEVEL} ×", counted, held)


def _answered(counts, timeline):
    failed = sum(counts.failed().values()) + counts.lost + counts.not_sent
    p99 = f"{quantile(timeline.all_latencies(), 0.99) * 1000:.0f} ms"
    return Result("no request fails", "0", {**counts.summary(), "p99": p99, "minutes": (time.monotonic() - timeline.start) / 60}, failed == 0)
