"""10,000 clients that send their headers or bodies one byte at a time, or do not read the requested list: reads of single rows by other
clients are as fast as without them, lists of other clients are answered or refused with Retry-After within CHECKOUT_TIMEOUT_MS, and the
memory of the server stays within that of a container.

SLOW=10000 is the number of slow clients, ROWS=200000 the size of the table (1000000 by hand)."""

import asyncio
import contextlib
import itertools
import pathlib
import subprocess
import sys
import time

from client import Client, Counts, Lost, NotSent
from open_loop import Timeline, open_loop, quantile
from scenario import Result, milliseconds
from stack import servers

WEIGHT = 1

# MEMORY_BUDGET is a quarter of what a container has, unless it is set (docs/settings.md).
BUDGET_MIB = 128
LIMIT_MIB = 4 * BUDGET_MIB
# CHECKOUT_TIMEOUT_MS; the machine may be busy.
LIST_SECONDS, BUSY = 1.0, 3
RATE, WORKERS = 100, 16
# One request in this many is a list.
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
            loaded, lists = await _others(port, seconds, counts)
        memory = _peak_mib(stack.processes[0].process.pid)
    times = quantile(loaded, 0.99) / max(quantile(alone, 0.99), 0.001)
    # A list may be refused with 503.
    failed = sum(counts.failed().values()) - counts.statuses[503] + counts.lost + counts.not_sent
    slowest = max(lists, default=0.0)
    return [
        Result(f"p99 of reads of single rows with {slow:,} slow clients", "≤ 1.5 × (of at least 1 ms)",
            {"×": times, "alone": f"{quantile(alone, 0.99) * 1000:.1f} ms", "with slow clients": f"{quantile(loaded, 0.99) * 1000:.1f} ms"}, times <= 1.5),
        Result("lists are answered, or refused with Retry-After", f"≤ {LIST_SECONDS:g} s, max ≤ {LIST_SECONDS * BUSY:g} s",
            {"lists": len(lists), "answers": milliseconds(lists)}, bool(lists) and slowest <= LIST_SECONDS * BUSY),
        Result("no other request fails", "0, except lists refused with 503", {**counts.summary(), "failed": failed}, failed == 0),
        Result("the server's memory", f"≤ {LIMIT_MIB} MiB", {"MiB": memory}, memory <= LIMIT_MIB),
    ]  # fmt: skip


async def _others(port, seconds, counts):
    """(latencies of reads of single rows from their due time, durations of lists)"""
    timeline, lists, numbers = Timeline(), [], itertools.count()
    async with Client(port, counts) as client:
        while (first := await client.request("GET", "/v1/passengers?limit=1")).status != 200:
            await asyncio.sleep(0.1)
    uuid = first.json()[0]["uuid"]

    async def act(client, due):
        is_list, begun = next(numbers) % LISTS == 0, time.monotonic()
        with contextlib.suppress(Lost, NotSent):  # counted by the client
            await client.request("GET", "/v1/passengers?limit=1" if is_list else f"/v1/passengers/{uuid}")
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
def _slow(port, count):
    program = pathlib.Path(__file__).parent.parent / "slow.py"
    process = subprocess.Popen([sys.executable, program, str(port), str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the slow clients did not connect")
        yield
    finally:
        process.stdin.close()
        process.kill()
        process.wait()
        process.stdout.close()


def _peak_mib(pid):
    words = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii").split()
    return int(words[words.index("VmHWM:") + 1]) // 1024
