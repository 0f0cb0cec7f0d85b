"""As many requests as the service answers while faults are injected: the connections of prove/load read, replace, patch, delete and
restore the same rows, on the stack of `make up` and on two or three servers behind nginx. The history of each row is checked while the load
continues, by zones or, if the row was restored, by search; a part of the rows by both and against the history that the service recorded. At
the end every row has a state that the answers allow.

OPERATIONS=10000000 ends the run when that many have been checked; it fails if MINUTES is over before. CONNECTIONS=96; EVERY=3 seconds
from fault to fault; SEARCH=10: each tenth row is checked by both; EPISODE=240 seconds on one stack."""

import asyncio
import collections
import contextlib
import json
import os
import random
import sys
import time
import traceback

import chain
import checker
from background import all_rows
from client import Client
from faults import SINGLE, SCALED, all_faults
from histories import operations_of, wrong_states
from injector import FAULT_FREE_SECONDS, Injector, rotated, shuffled
from ledger import RESOURCES
from promises import PROMISES, keep_log, print_progress, promises, recovery
from scaled import scaled
from scenario import Result
from single import single
from stack import REPOSITORY, SETTINGS

WEIGHT = 1
SHORT = 8
TIMEOUT_FACTOR = 1.0

LOAD = REPOSITORY / "var" / "prove" / "target" / "release" / "prove-load"
# A line with the history of one row is longer than asyncio's limit.
LINE_BYTES = 16 << 20
# Rows of a stack whose recorded history is checked, the last ones that both checkers have checked.
CHAINED = 40
TEXTS = PROMISES | {
    "lost": ("acknowledged changes are present after the last fault", "0 lost"),
    "partial": ("no change is applied partially", "0"),
    "history": ("the history that the service records explains every answer (a sample)", "0 violations"),
}


async def run(context):
    seconds, wanted = context.number("EPISODE", 240), context.number("OPERATIONS", 0)
    count = 1 if context.short else max(2, round(context.seconds / seconds))
    seconds = context.seconds / count
    first = context.random.randrange(2)
    orders = {kind: shuffled(context.random, all_faults(kind), context.fault) for kind in (SINGLE, SCALED)}
    rngs = [random.Random(context.random.random()) for _ in range(count)]
    episodes, failed, checked = [], [], 0
    for number, rng in enumerate(rngs):
        if context.stop_requested() or wanted and checked >= wanted:
            break
        kind = (SINGLE, SCALED)[(first + number) % 2]
        faults = rotated(orders[kind], number // 2, seconds, context.number("EVERY", 3))
        try:
            one = await _episode(context, rng, number + 1, kind, seconds, faults, wanted - checked)
        except Exception as error:
            traceback.print_exc()
            failed.append(f"{kind}: {error!r}"[:300])
            continue
        episodes.append(one)
        checked += one.counted["operations"]
        print_progress(f"episode {number + 1} of {count}, {kind}", f"{one.counted['operations']:,} operations checked, {one.rate:,.0f}/s", one)
    ran = {"stacks": len(episodes), "failed": len(failed), **({"example": failed[0]} if failed else {})}
    return [
        Result("operations are checked", f"≥ {max(wanted, 1):,}", _volume(episodes), checked >= max(wanted, 1)),
        *promises([violation for one in episodes for violation in one.ledger.violations], _details(episodes), TEXTS),
        *recovery(episodes),
        Result("the faults and checks of each stack complete", "0 failed", ran, not failed),
    ]


async def _episode(context, rng, number, kind, seconds, faults, missing):
    # Those of nginx, too, whose rate limit would refuse most requests, and no access log, which would be longer than the histories.
    opening = single(**SETTINGS) if kind == SINGLE else scaled(rng.choice((2, 3)), with_standby=rng.random() < 0.5, **SETTINGS)
    async with opening as deployment:
        episode = await Episode(deployment, rng, context).run(faults, seconds, missing)
        keep_log(f"volume-{number}.log", episode, deployment)
        return episode


class Episode(Injector):
    """Call `run` once; `counted`, `summary` and `rate` then hold the results of the load, beside those of Injector."""

    def __init__(self, deployment, rng, context):
        super().__init__(deployment, rng)
        self._seed, self._number = rng.randrange(1_000_000), context.number
        self.counted, self.summary, self.rate = collections.Counter(), {}, 0.0
        # {path: (names, whether it may be absent)} of the rows that are no longer changed.
        self._states = {}
        self._sampled = collections.deque(maxlen=CHAINED)

    async def run(self, faults, seconds, missing):
        """Ends before its time when `missing` operations have been checked, unless that is not above 0."""
        begun = self.timeline.start = time.monotonic()

        def is_over(margin=0.0):
            is_enough = 0 < missing <= self.counted["operations"]
            return is_enough or load.has_ended or time.monotonic() >= begun + seconds - margin

        numbers = self._number("CONNECTIONS", 96), self._number("SEARCH", 10), self._seed
        async with running_load(self.deployment.endpoints, *numbers, self._found) as load:
            await self._inject_all(faults, lambda: is_over(FAULT_FREE_SECONDS), self._number("EVERY", 3))
            while not is_over():
                await asyncio.sleep(0.1)
            await load.finish()
        self.rate = self.counted["operations"] / (time.monotonic() - begun)
        async with Client(self.deployment.port) as client:
            for resource in RESOURCES:
                await self._check_rows(client, resource)
        return self

    def _found(self, found):
        """Stores what histories.py writes for one line."""
        self.counted = collections.Counter(found["counted"])
        self.ledger.violations += map(tuple, found["violations"])
        self.summary = found.get("summary", self.summary)
        if path := found.get("path"):
            self._states[path] = found["names"], found["absent"]
            if "operations" in found:
                self._sampled.append((path, found["operations"]))

    async def _check_rows(self, client, resource):
        """Compares the final state with all answers, and a sample with the history that the service recorded."""
        prefix = f"{resource.path}/"
        present = await all_rows(client, resource, {})
        checker.check_creations(self.ledger, resource, present)
        expected = {path.removeprefix(prefix): state for path, state in self._states.items() if path.startswith(prefix)}
        for description in wrong_states(expected, present):
            self.ledger.violation("lost", f"{prefix}{description}")
        for path, operations in self._sampled:
            if path.startswith(prefix):
                entries = await checker.entries_of(client, path, {})
                current = present.get(path.removeprefix(prefix), {}).get("name")
                for anomaly in chain.anomalies(operations_of(operations), entries, current):
                    self.ledger.violation("history", f"{path}: {anomaly}")
                self.counted["histories"] += 1


class _Load:
    """prove/load and, reading its output, histories.py."""

    def __init__(self, load, checking, found):
        self._load, self._checking = load, checking
        self._reading = asyncio.create_task(self._read(found))

    async def _read(self, found):
        async for line in self._checking.stdout:
            found(json.loads(line))

    @property
    def has_ended(self):
        return self._reading.done() or self._load.returncode is not None

    async def finish(self):
        """Ends the load and waits until every row has been checked."""
        self._load.stdin.close()
        await self._reading
        statuses = await self._load.wait(), await self._checking.wait()
        if any(statuses):
            raise RuntimeError(f"the load and its checker ended with the statuses {statuses}")


@contextlib.asynccontextmanager
async def running_load(ports, connections, search, seed, found):
    """Runs the load and its checker during the block; `found` is called with each line of the checker."""
    reading, writing = os.pipe()
    try:
        words = [f"seed={seed}", f"connections={connections}", *map(str, ports)]
        begin = time.monotonic()
        load = await asyncio.create_subprocess_exec(LOAD, *words, stdin=asyncio.subprocess.PIPE, stdout=writing, start_new_session=True)
        words = [REPOSITORY / "prove" / "histories.py", str(search), str(seed), str(begin)]
        checking = await asyncio.create_subprocess_exec(
            sys.executable, *words, stdin=reading, stdout=asyncio.subprocess.PIPE, limit=LINE_BYTES, start_new_session=True
        )
    finally:
        os.close(reading)
        os.close(writing)
    both = _Load(load, checking, found)
    try:
        yield both
    finally:
        for process in (load, checking):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await asyncio.gather(both._reading, return_exceptions=True)


def _volume(episodes):
    summaries = [one.summary for one in episodes]
    return {
        "operations": sum(one.counted["operations"] for one in episodes),
        "a second": f"{sum(one.rate for one in episodes) / max(1, len(episodes)):,.0f}",
        "requests": sum(summary.get("requests", 0) for summary in summaries),
        **_sum(summary.get("statuses", {}) for summary in summaries),
        **{name: sum(summary.get(name, 0) for summary in summaries) for name in ("not sent", "no answer")},
    }


def _sum(counts):
    return dict(sorted(sum(map(collections.Counter, counts), collections.Counter()).items()))


def _details(episodes):
    counted = sum((one.counted for one in episodes), collections.Counter())
    rows = {name: counted[name] for name in ("operations", "rows", "checked by both", "undecided", "not linearizable")}
    return {
        "linearizable": rows,
        "checkers": {},
        "lost": {"rows": counted["rows"], "creations": sum(len(one.ledger.creations) for one in episodes)},
        "wrong outcome": {},
        "doubled": {},
        "partial": {},
        "mixed": {},
        "versions": {},
        "history": {"rows": counted["histories"]},
        "errors": _sum(one.summary.get("failures", {}) for one in episodes),
    }
