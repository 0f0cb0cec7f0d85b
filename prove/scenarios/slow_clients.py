"""10,000 clients that send their headers or bodies a byte at a time, or do not read the list they have asked for: others' gets
are answered as quickly as without them, their lists are answered or told to come back within CHECKOUT_TIMEOUT_MS, and the server's
memory stays within what a container has.

SLOW=10000 is how many; ROWS=200000 the size of the table (1000000 by hand)."""

import asyncio
import contextlib
import itertools
import pathlib
import subprocess
import sys
import time

from client import Client, Counts, Lost, NotSent
from open_loop import Timeline, open_loop, quantile
from scenario import Row, milliseconds
from stack import servers

WEIGHT = 1

# MEMORY_BUDGET is a quarter of what a container has, unless it is set (docs/settings.md).
BUDGET_MIB = 128
LIMIT_MIB = 4 * BUDGET_MIB
# CHECKOUT_TIMEOUT_MS; the machine may be busy.
LIST_SECONDS, BUSY = 1.0, 3
RATE, WORKERS = 100, 16
# One in so many is a list.
LISTS = 10


async def run(context):
    slow, rows = context.number("SLOW", 10_000), context.number("ROWS", 200_000)
    seconds = max(3.0, context.seconds / 2)
    async with servers(1, MEMORY_BUDGET=f"{BUDGET_MIB}MiB") as stack:
        await asyncio.to_thread(stack.fill, rows)
        port, counts = stack.ports[0], Counts()
        alone, _ = await _others(port, seconds, Counts())
        with contextlib.ExitStack() as opened:
            await asyncio.to_thread(opened.enter_context, _slow(port, slow))
            beside, lists = await _others(port, seconds, counts)
        memory = _peak_mib(stack.processes[0].process.pid)
    times = quantile(beside, 0.99) / max(quantile(alone, 0.99), 0.001)
    # A list may be told to come back.
    failed = sum(counts.failed().values()) - counts.statuses[503] + counts.lost + counts.not_sent
    slowest = max(lists, default=0.0)
    return [
        Row(f"others' gets: p99 beside {slow:,} slow clients", "≤ 1.5 × (of 1 ms at least)",
            {"×": times, "alone": f"{quantile(alone, 0.99) * 1000:.1f} ms", "beside": f"{quantile(beside, 0.99) * 1000:.1f} ms"}, times <= 1.5),
        Row("others' lists are answered, or told to come back", f"≤ {LIST_SECONDS:g} s, the worst ≤ {LIST_SECONDS * BUSY:g} s",
            {"lists": len(lists), "answers": milliseconds(lists)}, bool(lists) and slowest <= LIST_SECONDS * BUSY),
        Row("none of the others fails", "0, but lists that are told to come back", {**counts.shown(), "failed": failed}, failed == 0),
        Row("the server's memory", f"≤ {LIMIT_MIB} MiB", {"MiB": memory}, memory <= LIMIT_MIB),
    ]  # fmt: skip


async def _others(port, seconds, counts):
    """(latencies of gets from when they were due, times of lists)"""
    timeline, lists, numbers = Timeline(), [], itertools.count()
    async with Client(port, counts) as client:
        while (first := await client.ask("GET", "/v1/passengers?limit=1")).status != 200:
            await asyncio.sleep(0.1)
    uuid = first.json()[0]["uuid"]

    async def act(client, due):
        is_list, begun = next(numbers) % LISTS == 0, time.monotonic()
        with contextlib.suppress(Lost, NotSent):  # they are counted
            await client.ask("GET", "/v1/passengers?limit=1" if is_list else f"/v1/passengers/{uuid}")
        if is_list:
            lists.append(time.monotonic() - begun)
        else:
            timeline.record(due, True)

    clients = [Client(port, counts) for _ in range(WORKERS)]
    await open_loop(RATE, seconds, clients, act)
    for client in clients:
        client.close()
    return timeline.all_latencies(), lists


@contextlib.contextmanager
def _slow(port, many):
    program = pathlib.Path(__file__).parent.parent / "slow.py"
    process = subprocess.Popen([sys.executable, program, str(port), str(many)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the slow clients did not come")
        yield
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
        process.stdout.close()


def _peak_mib(pid):
    words = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii").split()
    return int(words[words.index("VmHWM:") + 1]) // 1024
