"""More than the service can do, from 64 connections to 12,000, direct and through nginx: what it does stays what it can do, what
it refuses says when to come back, memory stays within its budget, and a second later all is as before.

First each connection asks again as soon as it was answered: what waits is as many requests as there are connections. The best of it is what
the service can do. Then an open loop: ten times as many requests are due, whether or not earlier ones were answered, each is sent by the
first connection that is free, and what none was free for in time is late."""

import asyncio
import json
import pathlib
import subprocess
import tempfile
import time

from client import Client
from open_loop import quantile
from scenario import Row
from stack import REPOSITORY, servers

WEIGHT = 1

ROWS = 20_000
CONNECTIONS = (64, 512, 4096, 12_000)
# Of an open loop, of what the service can do.
TIMES, OPEN_CONNECTIONS = 10, 4096
THREADS = 2
# MEMORY_BUDGET is a quarter of what a container has, unless it is set (docs/settings.md).
BUDGET_MIB = 64
LIMIT_MIB = 4 * BUDGET_MIB
CALM_ASKS = 200
# 12,000 connections take a part of it to come.
MINIMUM_SECONDS = 6


async def run(context):
    rows = []
    seconds = max(MINIMUM_SECONDS, int(context.seconds / (2 * (len(CONNECTIONS) + 1))))
    async with servers(1, nginx=True, MEMORY_BUDGET=f"{BUDGET_MIB}MiB") as stack:
        with tempfile.TemporaryDirectory() as place:
            keys = pathlib.Path(place) / "keys"
            await asyncio.to_thread(_fill, stack, keys)
            for where, port in (("direct", stack.ports[0]), ("through nginx", stack.port)):
                rows += await _rows(where, port, stack, keys, seconds)
    return rows


async def _rows(where, port, stack, keys, seconds):
    before, rates, p99s, refused, broken, afters = await _calm(port), {}, {}, 0, 0, []
    for connections in CONNECTIONS:
        found = await asyncio.to_thread(_load, port, keys, connections, seconds)
        rates[connections] = (found["requests"] - found["bad_status"]) / found["seconds"]
        p99s[connections] = found["p99_us"] / 1000
        refused, broken = refused + found["bad_status"], broken + found["broken"]
        begun = time.monotonic()
        async with Client(port) as client:
            while (await client.ask("GET", "/v1/passengers?limit=1")).status != 200:
                await asyncio.sleep(0.02)
        afters.append(time.monotonic() - begun)
    best = max(rates.values())
    due = int(TIMES * best)
    found = await asyncio.to_thread(_load, port, keys, OPEN_CONNECTIONS, seconds, due)
    open_rate = (found["requests"] - found["bad_status"]) / found["seconds"]
    open_loop = {"due": f"{due:,}/s", "sent": f"{found['requests'] / found['seconds']:,.0f}/s", "answered": f"{open_rate:,.0f}/s",
                 "of the best": open_rate / best, "refused": found["bad_status"], "broken": found["broken"]}  # fmt: skip
    after = await _calm(port)
    memory = _peak_mib(stack.processes[0].pid)
    return [
        Row(f"goodput of gets and creates, {where}", "≥ 0.9 of the best", {f"{n} connections": f"{rate:,.0f}/s, p99 {p99s[n]:.0f} ms" for n, rate in rates.items()},
            min(rates.values()) >= 0.9 * best),
        Row(f"goodput of an open loop at {TIMES} × the best, {where}", "≥ 0.9 of the best", open_loop, open_rate >= 0.9 * best and not found["broken"]),
        Row(f"none is broken off, {where}", "0", {"broken": broken, "refused": refused}, broken == 0),
        Row(f"a get is answered within a second afterwards, {where}", "≤ 1 s", {"s": max(afters), "p99 before, ms": before * 1000, "p99 after, ms": after * 1000}, max(afters) <= 1),
        Row(f"the server's memory, {where}", f"≤ {LIMIT_MIB} MiB", {"MiB": memory}, memory <= LIMIT_MIB),
    ]  # fmt: skip


def _fill(stack, keys):
    stack.fill(ROWS)
    keys.write_text(stack.psql("select uuid from passengers") + "\n", encoding="ascii")


def _load(port, keys, connections, seconds, rate=None):
    """With a rate an open loop."""
    script = "paced.lua" if rate else "mix.lua"
    command = ["wrk", f"-t{THREADS}", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "--latency", "-s", script,
               f"http://127.0.0.1:{port}", "--", str(keys), *([str(rate // THREADS)] if rate else [])]  # fmt: skip
    said = subprocess.run(command, cwd=REPOSITORY / "bench" / "lua", check=True, capture_output=True, text=True).stdout
    return json.loads(said[said.index("RESULT ") + 7 :])


async def _calm(port):
    """The p99 of one client alone."""
    times = []
    async with Client(port) as client:
        for _ in range(CALM_ASKS):
            begun = time.monotonic()
            await client.ask("GET", "/v1/passengers?limit=1")
            times.append(time.monotonic() - begun)
    return quantile(times, 0.99)


def _peak_mib(pid):
    words = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii").split()
    return int(words[words.index("VmHWM:") + 1]) // 1024
