"""Requests by key and for pages run on analysed tables of 0, 1, 10 and 891 rows, which then grow to ROWS (100,000) without another
ANALYZE: no request uses a sequential scan, and (in the long form) each is as cheap as after ANALYZE. PG_BIN selects another
PostgreSQL."""

import asyncio
import itertools
import re
import os

from client import Client
from scenario import Result
from stack import servers, support, until

WEIGHT = 2
SHORT = 10

SIZES = (0, 1, 10, 891)
# More executions than PostgreSQL needs before it caches a generic plan.
PLANNED = 8
# Fewer would not measure the cost of one reliably.
MEASURED, RUNS = 200, 3
CLIENTS = 16
# The next page of a page is requested, too.
NEXT = re.compile(r'<([^>]*)>; rel="next"')
GOAL = 0.8
TABLES = ("passengers", "steps", "air_quality", "idempotency_keys")
PASSENGER = support.PASSENGER | {"name": "Steady Plan"}
MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}
FILL = (
    "insert into passengers select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, n % 2 = 0, 1 + n % 3,"
    " 'Number ' || n, 'male', case when n % 5 > 0 then n % 80 end, n % 5, n % 7, n % 500 from generate_series({}, {}) n",
    "insert into steps (ts, component, version, owner, status) select timestamptz '2026-01-01Z' + n * interval '1 second',"
    " 'c' || n % 7, '1.' || n / 100, 'o' || n % 3, 's' || n % 4 from generate_series({}, {}) n",
    "insert into air_quality select 's' || n % 50, timestamptz '2026-01-01Z' + n * interval '1 minute', 1, 1, 1, 1, 1, 1"
    " from generate_series({}, {}) n",
    "insert into idempotency_keys (key, fingerprint, status, content_type, body) select 'key ' || n,"
    " decode(repeat('00', 16), 'hex'), 201, 'text/plain', '' from generate_series({}, {}) n",
)


SESSIONS = (
    "select {} from pg_stat_activity"
    " where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()"
)


def passenger(rows, number):
    return f"/v1/passengers/00000000-0000-4000-8000-{1 + number * 7919 % max(rows, 1):012}"


# {kind: (rows in the table, number of the request) -> request}
REQUESTS = {
    "get": lambda rows, n: ("GET", passenger(rows, n)),
    "put": lambda rows, n: ("PUT", passenger(rows, n), PASSENGER),
    "put if-match": lambda rows, n: ("PUT", passenger(rows, n), PASSENGER, {"If-Match": '"0"'}),
    "patch": lambda rows, n: ("PATCH", passenger(rows, n), {"age": n % 99}, MERGE_PATCH),
    "delete": lambda rows, n: ("DELETE", f"/v1/passengers/ffffffff-0000-4000-8000-{n:012}"),
    "post with key": lambda rows, n: ("POST", "/v1/passengers", PASSENGER, {"Idempotency-Key": f"{os.getpid()} {n}"}),
    "pages": lambda rows, n: ("GET", f"/v1/passengers?limit={5 + n % 40}"),
    "pages by age": lambda rows, n: ("GET", f"/v1/passengers?order=age&limit={5 + n % 40}"),
    "pages by fare": lambda rows, n: ("GET", f"/v1/passengers?order=fare.desc&limit={5 + n % 40}"),
    "pages by name": lambda rows, n: ("GET", f"/v1/passengers?order=name&limit={5 + n % 40}"),
    "post step": lambda rows, n: ("POST", f"/v1/steps?component=c{n % 7}&version=1.{n % 9}&owner=o&status=s"),
    "steps": lambda rows, n: ("GET", f"/v1/steps?format=json&limit={5 + n % 40}"),
    "steps of component": lambda rows, n: ("GET", f"/v1/steps?format=json&limit={5 + n % 40}&component=c{n % 7}"),
    "steps of owner": lambda rows, n: ("GET", f"/v1/steps?format=json&limit={5 + n % 40}&owner=o{n % 3}"),
    "durations": lambda rows, n: ("GET", f"/v1/steps/durations?limit={5 + n % 40}&component=c{n % 7}"),
    "air quality": lambda rows, n: ("GET", f"/v1/air-quality?entity=none{n}"),
}


async def run(context):
    rows = context.number("ROWS", 20_000 if context.short else 100_000)
    # Each kind is measured before ANALYZE and after it, for each size.
    seconds = context.seconds / len(SIZES) / len(REQUESTS) / 2
    ratios, scanned, failed = {kind: [] for kind in REQUESTS}, 0, 0
    for size in SIZES[::3] if context.short else SIZES:
        async with servers(1, postgres={"autovacuum": "off"}, POOL_SIZE="4", LIST_POOL_SIZE="1") as stack:
            load = Load(stack)
            stack.psql(*(statement.format(1, size) for statement in FILL), "analyze")
            await load.run_all(size)
            await asyncio.to_thread(stack.psql, *(statement.format(size + 1, rows) for statement in FILL))
            if context.short:
                await load.run_all(rows)
            else:
                before = await load.rates(rows, seconds)
                stack.psql("analyze")
                after = await load.rates(rows, seconds)
                for kind in REQUESTS:
                    ratios[kind].append(before[kind] / after[kind])
            failed += load.failed
            load.close()
            scanned += await asyncio.to_thread(_scanned, stack)
    counts = [
        Result("rows read by sequential scans", "0", {"rows": scanned}, scanned == 0),
        Result("requests that failed", "0", {"requests": failed}, failed == 0),
    ]
    if context.short:
        return counts
    worst = {kind: round(min(each), 2) for kind, each in ratios.items()}
    return [
        Result(f"requests per second of PostgreSQL's CPU time before ANALYZE, relative to after it, {rows:,} rows", f"≥ {GOAL} ×", worst,
            min(worst.values()) >= GOAL),
        *counts,
    ]  # fmt: skip


def _scanned(stack):
    """PostgreSQL's own count; sessions have reported their statistics when they end, at the latest."""
    stack.end()
    until(lambda: stack.psql(SESSIONS.format("count(*)")) == "0", "the server's sessions have ended")
    names = ", ".join(f"'{table}'" for table in TABLES)
    return int(stack.psql(f"select sum(seq_tup_read) from pg_stat_user_tables where relname in ({names})"))


class Load:
    """Sends requests of one kind at a time, each of them distinct."""

    def __init__(self, stack):
        self._stack = stack
        self._numbers = itertools.count()
        self._clients = [Client(stack.ports[0]) for _ in range(CLIENTS)]
        self.failed = 0

    async def rates(self, rows, seconds):
        """The best of several runs of each kind, because other load can only make a run slower."""
        await self.run_all(rows)
        runs = [{kind: await self.run(kind, rows, MEASURED, seconds / RUNS) for kind in REQUESTS} for _ in range(RUNS)]
        return {kind: max(each[kind] for each in runs) for kind in REQUESTS}

    async def run_all(self, rows):
        """Runs each kind until PostgreSQL caches its plans."""
        for kind in REQUESTS:
            await self.run(kind, rows, PLANNED * CLIENTS)

    async def run(self, kind, rows, count, seconds=0):
        """Requests per second of CPU time of PostgreSQL's sessions; sends at least `count` requests for at least `seconds`."""
        loop = asyncio.get_running_loop()
        begun, done = self._cpu_seconds(), 0
        end = loop.time() + seconds

        async def client(one):
            nonlocal done
            while done < count or loop.time() < end:
                done += 1
                answer = await one.request(*REQUESTS[kind](rows, next(self._numbers)))
                self.failed += answer.status >= 500
                if target := NEXT.search(answer.headers.get("link", "")):
                    self.failed += (await one.request("GET", target[1])).status >= 500

        await asyncio.gather(*(client(one) for one in self._clients))
        return done / (self._cpu_seconds() - begun)

    def _cpu_seconds(self):
        spent = 0
        for pid in self._stack.psql(SESSIONS.format("pid")).split():
            with open(f"/proc/{pid}/schedstat", encoding="ascii") as file:
                spent += int(file.read().split()[0])
        return spent / 1e9

    def close(self):
        for one in self._clients:
            one.close()
