"""Clients that write without a pause, and remember what became of each write."""

import asyncio
import contextlib
import threading
import time

from client import Client, Lost, NotSent
from support import PASSENGER

CLIENTS = 6
# Between two requests of a client, so that machine and log keep up.
PAUSE_SECONDS = 0.02

# docs/api.md, "Retrying after an unknown outcome".
SUCCESS = (200, 201)
NOT_DONE = ("unavailable", "too-many-requests", "request-timeout")


class Writers(threading.Thread):
    """`with Writers(port) as writers:` creates passengers and changes them until the end.

    acknowledged: {name: uuid} of creations answered with 201
    refused: names whose creation was answered with what promises that nothing was done
    counters: {uuid: (the newest acknowledged change, changes after it whose fate is unknown)}
    answers: (sent, answered, status) of everything, by the monotonic clock; status 0 for no answer
    unseen: acknowledged rows that a later read did not find
    """

    def __init__(self, port):
        super().__init__(daemon=True)
        self._port, self._ended = port, threading.Event()
        self.acknowledged, self.refused, self.counters = {}, set(), {}
        self.answers, self.unseen, self.wrong = [], [], []
        self._unknown = 0

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self.join()

    def run(self):
        asyncio.run(self._all())

    async def _all(self):
        async with asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self._one(number))

    async def _one(self, number):
        async with Client(self._port, seconds=30) as client:
            counter, count = None, 0
            while not self._ended.is_set():
                count += 1
                name = f"client {number} write {count}"
                answer = await self._ask(client, "POST", "/v1/passengers", PASSENGER | {"name": name})
                if answer is not None and answer.status == 201:
                    uuid = self.acknowledged[name] = answer.json()["uuid"]
                    counter = counter or uuid
                    seen = await self._ask(client, "GET", f"/v1/passengers/{uuid}")
                    if seen is not None and seen.status == 404:
                        self.unseen.append(name)
                elif answer is not None and answer.code() in NOT_DONE:
                    self.refused.add(name)
                if counter:
                    await self._change(client, counter, count)
                await asyncio.sleep(PAUSE_SECONDS)

    async def _change(self, client, uuid, count):
        newest, unknown = self.counters.get(uuid, (0, []))
        answer = await self._ask(client, "PATCH", f"/v1/passengers/{uuid}", {"fare": count})
        if answer is not None and answer.status == 200:
            self.counters[uuid] = (count, [])
        elif answer is not None and answer.code() in NOT_DONE:
            self.counters[uuid] = (newest, unknown)
        else:
            self.counters[uuid] = (newest, [*unknown, count])

    async def _ask(self, client, method, target, body=None):
        sent, status, answer = time.monotonic(), 0, None
        with contextlib.suppress(Lost, NotSent):
            answer = await client.ask(method, target, body)
            status = answer.status
        self.answers.append((sent, time.monotonic(), status))
        if status and status not in (200, 201, 404, 429, 502, 503, 504):
            self.wrong.append(answer)
        return answer

    def first_success_after(self, moment):
        """When a request was answered with success for the first time after this."""
        return min(done for _, done, status in list(self.answers) if done > moment and status in SUCCESS)

    def successes_after(self, moment):
        return sum(1 for sent, _, status in list(self.answers) if sent > moment and status in SUCCESS)

    def last_failure_after(self, moment):
        """When the last request failed that was sent after this; the moment itself when none did."""
        failed = (done for sent, done, status in list(self.answers) if sent > moment and status not in SUCCESS)
        return max(failed, default=moment)
