"""An open loop: requests are due at a fixed rate whether or not earlier ones were answered, and latency counts from then.

A closed loop sends nothing while it waits for an answer, and so under-reports a stall of the service (coordinated omission).
Here a stall of one second at 200 requests per second delays 200 requests.
"""

import asyncio
import collections
import time

BUCKET_SECONDS = 0.5


class Timeline:
    """Results of the requests, in buckets of half a second by their completion; times count from the construction."""

    def __init__(self):
        self.start = time.monotonic()
        self.good, self.failed = collections.Counter(), collections.Counter()
        self.latencies = collections.defaultdict(list)
        self.marks = []  # (begin, end, name) of faults

    def record(self, due, ok):
        now = time.monotonic()
        bucket = int((now - self.start) / BUCKET_SECONDS)
        (self.good if ok else self.failed)[bucket] += 1
        self.latencies[bucket].append(now - due)

    def mark(self, begun, ended, name):
        self.marks.append((begun - self.start, ended - self.start, name))

    def points(self):
        """(seconds, good per second, failed per second, p50, p99) of each bucket; the last two are None without requests."""
        last = max([*self.good, *self.failed], default=-1)
        for bucket in range(last + 1):
            ordered = sorted(self.latencies.get(bucket, ()))
            p50, p99 = (ordered[int(len(ordered) * part)] if ordered else None for part in (0.5, 0.99))
            yield bucket * BUCKET_SECONDS, self.good[bucket] / BUCKET_SECONDS, self.failed[bucket] / BUCKET_SECONDS, p50, p99

    def all_latencies(self):
        return [one for bucket in self.latencies.values() for one in bucket]


async def open_loop(rate, seconds, workers, act):
    """Calls `act(worker, due)` for each due time, with the first worker that is free."""
    begin = time.monotonic()
    numbers = iter(range(int(rate * seconds)))

    async def work(worker):
        for number in numbers:
            due = begin + number / rate
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            await act(worker, due)

    async with asyncio.TaskGroup() as tasks:
        for worker in workers:
            tasks.create_task(work(worker))


def quantile(numbers, part):
    """The quantile `part` of `numbers`; 0 if there are none."""
    ordered = sorted(numbers)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0
