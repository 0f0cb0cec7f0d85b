"""An open loop: requests are due at a rate, whether or not earlier ones were answered, and are late from then on.

A client that waits for its answer before it asks again asks nothing while the service stands still, and so does not see that
it does (coordinated omission). Here a stall of one second at 200 a second is 200 late requests.
"""

import asyncio
import collections
import time

# Of the picture.
BUCKET_SECONDS = 0.5


class Timeline:
    """What became of the requests, by half seconds of their ends; times count from its making."""

    def __init__(self):
        self.start = time.monotonic()
        self.good, self.failed = collections.Counter(), collections.Counter()
        self.latencies = collections.defaultdict(list)
        self.marks = []  # (begin, end, name) of faults

    def record(self, due, is_good):
        now = time.monotonic()
        bucket = int((now - self.start) / BUCKET_SECONDS)
        (self.good if is_good else self.failed)[bucket] += 1
        self.latencies[bucket].append(now - due)

    def mark(self, begun, ended, name):
        self.marks.append((begun - self.start, ended - self.start, name))

    def points(self):
        """(seconds, good a second, failed a second, p50, p99) of each half second; the last two are None without requests."""
        last = max([*self.good, *self.failed], default=-1)
        for bucket in range(last + 1):
            ordered = sorted(self.latencies.get(bucket, ()))
            p50, p99 = (ordered[int(len(ordered) * part)] if ordered else None for part in (0.5, 0.99))
            yield bucket * BUCKET_SECONDS, self.good[bucket] / BUCKET_SECONDS, self.failed[bucket] / BUCKET_SECONDS, p50, p99

    def all_latencies(self):
        return [one for bucket in self.latencies.values() for one in bucket]


async def open_loop(rate, seconds, workers, act):
    """`act(worker, due)` at each time that is due, by the first of the workers that is free."""
    begin = time.monotonic()
    turns = iter(range(int(rate * seconds)))

    async def work(worker):
        for turn in turns:
            due = begin + turn / rate
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            await act(worker, due)

    async with asyncio.TaskGroup() as tasks:
        for worker in workers:
            tasks.create_task(work(worker))


def quantile(numbers, part):
    """0 of nothing."""
    ordered = sorted(numbers)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0
