"""Injects faults into a deployment one after the other, and measures after each how long the service takes to recover."""

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import random
import time

from actions import Worker
from faults import Skip
from ledger import RESOURCES, Ledger
from open_loop import Timeline

# Generous: the counted times show how long recovery takes.
RECOVERY_SECONDS = 120
PROBE_SECONDS = 0.05
# Concurrent probes of one endpoint: those of ten seconds.
PROBES = 200
# Without faults, before the first and after the last one.
FAULT_FREE_SECONDS = 1.0
# An estimate, for the fault with which the next stack begins.
SECONDS_A_FAULT = 2.0


def shuffled(rng, faults, text):
    """The faults whose name contains the text, in random order."""
    chosen = [one for one in faults if not text or text in one.name]
    return rng.sample(chosen, len(chosen))


def rotated(order, turn, seconds, seconds_a_fault=SECONDS_A_FAULT):
    """Each stack starts where the previous one is expected to end, so that every kind is injected; where it really ended depends on the
    machine and is not repeatable."""
    start = turn * int(seconds / seconds_a_fault) % max(1, len(order))
    return order[start:] + order[:start]


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


class Injector:
    """A subclass has the load; `ledger`, `timeline`, `injections`, `skipped` and `left_behind` hold the results."""

    def __init__(self, deployment, rng, tokens=()):
        self.deployment = deployment
        # Faults have a random generator of their own: how often the clients use theirs depends on the machine.
        self._rng, clients = random.Random(rng.random()), random.Random(rng.random())
        # (token, principal as named in histories), assigned to the clients in turn.
        self._tokens = tokens
        self.ledger, self.timeline = Ledger(clients), Timeline()
        self.injections, self.skipped = [], {}
        self.left_behind = getattr(deployment, "left_behind", [])

    def _worker(self, port, number=0):
        if not self._tokens:
            return Worker(self.ledger, port, self.timeline)
        token, principal = self._tokens[number % len(self._tokens)]
        return Worker(self.ledger, port, self.timeline, {"Authorization": f"Bearer {token}"}, principal)

    async def _inject_all(self, faults, is_over, every=0.0):
        """Injects the faults cyclically until `is_over()`, `every` seconds from the beginning of one to that of the next at least."""
        await asyncio.sleep(FAULT_FREE_SECONDS)
        for fault in itertools.cycle(faults):
            if is_over():
                return
            next_begin = time.monotonic() + every
            try:
                await self._inject(fault)
            except Skip as skip:
                self.skipped[fault.name] = str(skip)
            except TimeoutError:
                self.ledger.violation("recovery", f"{fault.name}: the target did not exit or start in time")
            await asyncio.sleep(max(self._rng.uniform(0.05, 0.25), next_begin - time.monotonic()))

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
