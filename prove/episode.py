"""One episode: a deployment under load at a fixed rate, faults injected one after the other, and then the checks."""

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import random
import time

import background
import checker
from actions import Worker
from client import Client
from faults import Skip
from ledger import RESOURCES, Ledger
from open_loop import Timeline, open_loop

WORKERS = 48
# Generous: the counted times show how long recovery takes.
RECOVERY_SECONDS = 120
PROBE_SECONDS = 0.05
# Concurrent probes of one endpoint: those of ten seconds.
PROBES = 200
# Without faults, before the first and after the last one.
FAULT_FREE_SECONDS = 1.0


@dataclasses.dataclass
class Injection:
    """One injected fault. Times are those of time.monotonic."""

    name: str
    begun: float
    healed: float
    recovered: float  # when every endpoint had acknowledged a creation
    postgres_recovered: float  # when PostgreSQL itself answered again; 0 if it always did
    counts: dict  # of the requests completed between `begun` and `recovered`
    waits_for_postgres: bool

    @property
    def unavailable(self):
        """Seconds until the recovery, from the time at which the service could recover."""
        since = max(self.healed, self.postgres_recovered) if self.waits_for_postgres else self.healed
        return max(0.0, self.recovered - since)


class Episode:
    """Call `run` once; `ledger`, `timeline`, `injections`, `skipped`, `checked` and `left_behind` then hold the results."""

    def __init__(self, deployment, rng, seconds, rate, tokens=()):
        self.deployment, self._seconds, self._rate = deployment, seconds, rate
        # Faults have a random generator of their own: how often the clients use theirs depends on the machine.
        self._rng, clients = random.Random(rng.random()), random.Random(rng.random())
        # (token, principal as named in histories), assigned to the clients in turn.
        self._tokens = tokens
        self.ledger, self.timeline = Ledger(clients), Timeline()
        self.injections, self.skipped, self.checked = [], {}, collections.Counter()
        self.left_behind = getattr(deployment, "left_behind", [])

    def _worker(self, port, number=0):
        if not self._tokens:
            return Worker(self.ledger, port, self.timeline)
        token, principal = self._tokens[number % len(self._tokens)]
        return Worker(self.ledger, port, self.timeline, {"Authorization": f"Bearer {token}"}, principal)

    async def run(self, faults):
        """Injects `faults` one after the other, cyclically, until the time is over."""
        deployment = self.deployment
        headers = {"Authorization": f"Bearer {self._tokens[0][0]}"} if self._tokens else {}
        await background.insert_untouched_rows(self.ledger, deployment.port, headers)
        self.timeline.start = time.monotonic()
        workers = [self._worker(deployment.endpoints[number % len(deployment.endpoints)], number) for number in range(WORKERS)]
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            others = [
                tasks.create_task(background.page_through_lists(self.ledger, deployment.port, headers, ended)),
                tasks.create_task(background.stream_lists(self.ledger, deployment.endpoints[-1], headers, ended)),
                tasks.create_task(background.imports(self.ledger, deployment, ended)),
            ]
            load = tasks.create_task(open_loop(self._rate, self._seconds, workers, Worker.act))
            await self._inject_all(faults, time.monotonic() + self._seconds - FAULT_FREE_SECONDS)
            await load
            ended.set()
            await asyncio.gather(*others)
        finisher = self._worker(deployment.port)
        await background.retry_all(self.ledger, finisher)
        readers = [self._worker(port) for port in deployment.endpoints]
        async with Client(deployment.port, self.ledger.counts) as client:
            self.checked = await checker.check(self.ledger, client, headers, readers)
        for one in (*workers, *readers, finisher):
            one.close()
        return self

    async def _inject_all(self, faults, end):
        await asyncio.sleep(FAULT_FREE_SECONDS)
        for fault in itertools.cycle(faults):
            if time.monotonic() >= end:
                return
            try:
                await self._inject(fault)
            except Skip as skip:
                self.skipped[fault.name] = str(skip)
            except TimeoutError:
                self.ledger.violation("recovery", f"{fault.name}: the target did not exit or start in time")
            await asyncio.sleep(self._rng.uniform(0.05, 0.25))

    async def _inject(self, fault):
        counts, statuses = self.ledger.counts, collections.Counter(self.ledger.counts.statuses)
        before = counts.requests, counts.not_sent, counts.lost
        begun = time.monotonic()
        seen = {"postgres_recovered": 0.0}
        watching = asyncio.create_task(self._watch_postgres(seen))
        try:
            async with fault.inject(self.deployment, self._rng) as seconds:
                await asyncio.sleep(seconds or 0)
            healed = begun if seconds is None else time.monotonic()
            try:
                recovered = await self._recovered()
            except TimeoutError:
                self.ledger.violation("recovery", f"not recovered {RECOVERY_SECONDS} s after {fault.name}")
                recovered = time.monotonic()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        failed = {str(status): n for status, n in sorted((counts.statuses - statuses).items()) if status == 429 or status >= 500}
        requests, not_sent, lost = counts.requests - before[0], counts.not_sent - before[1], counts.lost - before[2]
        counted = {"requests": requests, **failed, "not sent": not_sent, "no answer": lost}
        self.injections.append(Injection(fault.name, begun, healed, recovered, seen["postgres_recovered"], counted, fault.waits_for_postgres))
        self.timeline.mark(begun, recovered, fault.name)

    async def _watch_postgres(self, seen):
        """Records when PostgreSQL was last seen to answer again."""
        was_unavailable = False
        while True:
            answers = await self.deployment.postgres_answers()
            if answers and was_unavailable:
                seen["postgres_recovered"] = time.monotonic()
            was_unavailable = not answers
            await asyncio.sleep(0.01 if was_unavailable else 0.03)

    async def _recovered(self):
        """When each endpoint had acknowledged a creation that was sent after this call."""
        async with asyncio.timeout(RECOVERY_SECONDS):
            return max(await asyncio.gather(*(self._probe(port) for port in self.deployment.endpoints)))

    async def _probe(self, port):
        answered, running = asyncio.get_running_loop().create_future(), set()

        async def probe():
            worker = self._worker(port)
            try:
                ok = await worker._create(self.ledger.rng.choice(RESOURCES))
                if ok and not answered.done():
                    answered.set_result(time.monotonic())
            finally:
                worker.close()

        try:
            while not answered.done():
                if len(running) < PROBES:
                    task = asyncio.create_task(probe())
                    running.add(task)
                    task.add_done_callback(running.discard)
                await asyncio.wait([answered], timeout=PROBE_SECONDS)
            return answered.result()
        finally:
            for task in running:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*running, return_exceptions=True)
