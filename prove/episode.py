"""A stretch of time on one stack: clients at a rate, one fault after the other, and then the judging."""

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import random
import time

import beside
import verdict
from actions import Worker
from client import Client
from faults import Skip
from ledger import Ledger
from open_loop import Timeline, open_loop

WORKERS = 48
# Generous: what was counted says how long it takes.
RECOVERY_SECONDS = 120
PROBE_SECONDS = 0.05
# Probes that wait at the same time at one entrance: of ten seconds.
PROBES = 200
# Of the service without a fault, before the first and after the last one.
CALM_SECONDS = 1.0


@dataclasses.dataclass
class Blow:
    """One fault that was injected. Times are of time.monotonic."""

    name: str
    begun: float
    healed: float
    back: float  # every entrance has made a row
    postgres_back: float  # when PostgreSQL itself answered again, if it ever did not
    counts: dict  # of the requests that were answered from `begun` to `back`
    waits_for_postgres: bool

    @property
    def away(self):
        """Seconds from what the service can do something about."""
        since = max(self.healed, self.postgres_back) if self.waits_for_postgres else self.healed
        return max(0.0, self.back - since)


class Episode:
    """Run it once with `run`; then `ledger`, `timeline`, `blows`, `skipped` and `rows` say what happened."""

    def __init__(self, world, dice, seconds, rate, tokens=()):
        self.world, self._seconds, self._rate = world, seconds, rate
        # Faults have dice of their own: how many times clients throw theirs depends on the machine.
        self._dice, clients = random.Random(dice.random()), random.Random(dice.random())
        # (token, principal) of each client in turn: with the names that histories give them.
        self._tokens = tokens
        self.ledger, self.timeline = Ledger(clients), Timeline()
        self.blows, self.skipped, self.judged = [], {}, collections.Counter()
        self.left_behind = getattr(world, "left_behind", [])

    def _worker(self, port, number=0):
        if not self._tokens:
            return Worker(self.ledger, port, self.timeline)
        token, principal = self._tokens[number % len(self._tokens)]
        return Worker(self.ledger, port, self.timeline, {"Authorization": f"Bearer {token}"}, principal)

    async def run(self, faults):
        """`faults` are injected one after the other, from the first again after the last."""
        world = self.world
        headers = {"Authorization": f"Bearer {self._tokens[0][0]}"} if self._tokens else {}
        await beside.make_still(self.ledger, world.port, headers)
        self.timeline.start = time.monotonic()
        workers = [self._worker(world.entrances[number % len(world.entrances)], number) for number in range(WORKERS)]
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            others = [
                tasks.create_task(beside.walk(self.ledger, world.port, headers, ended)),
                tasks.create_task(beside.stream(self.ledger, world.entrances[-1], headers, ended)),
                tasks.create_task(beside.imports(self.ledger, world, ended)),
            ]
            load = tasks.create_task(open_loop(self._rate, self._seconds, workers, Worker.act))
            await self._break(faults, time.monotonic() + self._seconds - CALM_SECONDS)
            await load
            ended.set()
            await asyncio.gather(*others)
        closer = self._worker(world.port)
        await beside.answer_all(self.ledger, closer)
        readers = [self._worker(port) for port in world.entrances]
        async with Client(world.port, self.ledger.counts) as client:
            self.judged = await verdict.look(self.ledger, client, headers, readers)
        for one in (*workers, *readers, closer):
            one.close()
        return self

    async def _break(self, faults, end):
        await asyncio.sleep(CALM_SECONDS)
        for fault in itertools.cycle(faults):
            if time.monotonic() >= end:
                return
            try:
                await self._blow(fault)
            except Skip as skip:
                self.skipped[fault.name] = str(skip)
            except TimeoutError:
                self.ledger.complain("away", f"{fault.name}: what was broken did not end or begin in time")
            await asyncio.sleep(self._dice.uniform(0.05, 0.25))

    async def _blow(self, fault):
        counts, statuses = self.ledger.counts, collections.Counter(self.ledger.counts.statuses)
        before = counts.requests, counts.not_sent, counts.lost
        begun = time.monotonic()
        seen = {"postgres_back": 0.0}
        watching = asyncio.create_task(self._watch_postgres(seen))
        try:
            async with fault.inject(self.world, self._dice) as seconds:
                await asyncio.sleep(seconds or 0)
            healed = begun if seconds is None else time.monotonic()
            try:
                back = await self._back()
            except TimeoutError:
                self.ledger.complain("away", f"not back {RECOVERY_SECONDS} s after {fault.name}")
                back = time.monotonic()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        failed = {str(status): n for status, n in sorted((counts.statuses - statuses).items()) if status == 429 or status >= 500}
        requests, not_sent, lost = counts.requests - before[0], counts.not_sent - before[1], counts.lost - before[2]
        told = {"requests": requests, **failed, "not sent": not_sent, "no answer": lost}
        self.blows.append(Blow(fault.name, begun, healed, back, seen["postgres_back"], told, fault.waits_for_postgres))
        self.timeline.mark(begun, back, fault.name)

    async def _watch_postgres(self, seen):
        """When it was last seen to come back."""
        was_away = False
        while True:
            answers = await self.world.postgres_answers()
            if answers and was_away:
                seen["postgres_back"] = time.monotonic()
            was_away = not answers
            await asyncio.sleep(0.01 if was_away else 0.03)

    async def _back(self):
        """When a row could be made at each entrance, of requests that were sent from now on."""
        async with asyncio.timeout(RECOVERY_SECONDS):
            return max(await asyncio.gather(*(self._probe(port) for port in self.world.entrances)))

    async def _probe(self, port):
        answered, asking = asyncio.get_running_loop().create_future(), set()

        async def ask():
            worker = self._worker(port)
            try:
                is_good = await worker._create(self.ledger.dice.choice(beside.RESOURCES))
                if is_good and not answered.done():
                    answered.set_result(time.monotonic())
            finally:
                worker.close()

        try:
            while not answered.done():
                if len(asking) < PROBES:
                    task = asyncio.create_task(ask())
                    asking.add(task)
                    task.add_done_callback(asking.discard)
                await asyncio.wait([answered], timeout=PROBE_SECONDS)
            return answered.result()
        finally:
            for task in asking:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*asking, return_exceptions=True)
