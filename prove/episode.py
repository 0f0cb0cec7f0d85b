"""One episode: a deployment under load at a fixed rate, faults injected one after the other, and then the checks."""

import asyncio
import collections
import time

import background
import checker
from actions import Worker
from client import Client
from injector import FAULT_FREE_SECONDS, Injector
from open_loop import open_loop

WORKERS = 48


class Episode(Injector):
    """Call `run` once; `checked` then holds the counts of the checks, beside the results of Injector."""

    def __init__(self, deployment, rng, seconds, rate, tokens=()):
        super().__init__(deployment, rng, tokens)
        self._seconds, self._rate = seconds, rate
        self.checked = collections.Counter()

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
            end = time.monotonic() + self._seconds - FAULT_FREE_SECONDS
            await self._inject_all(faults, lambda: time.monotonic() >= end)
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
