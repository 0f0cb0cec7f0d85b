"""Overload with 64 to 12,000 connections, direct and through nginx: goodput stays near its peak, refusals carry Retry-After, memory
stays within its budget, and a second later the service answers normally.

First a closed loop, in which each connection sends its next request as soon as the last one was answered; the highest rate is the capacity of
the service. Then an open loop at ten times that rate: requests are due whether or not earlier ones were answered, and each is sent by the
first connection that is free, late if none is free in time.

wrk uses the same processors, and needs more of them the more connections it has. The same loads of an nginx that answers every request by
itself show how much of a fall is due to that."""

import asyncio
import contextlib
import json
import pathlib
import signal
import socket
import subprocess
import tempfile
import time

from client import Client
from open_loop import quantile
from scenario import Result
from stack import REPOSITORY, servers
from support import Process, clean_environment, free_port, until

WEIGHT = 1

ROWS = 20_000
CONNECTIONS = (64, 512, 4096, 12_000)
# Of the open loop: its rate as a multiple of the capacity, and its connections.
TIMES, OPEN_CONNECTIONS = 10, 4096
THREADS = 2
# MEMORY_BUDGET is a quarter of what a container has, unless it is set (docs/settings.md).
BUDGET_MIB = 64
LIMIT_MIB = 4 * BUDGET_MIB
IDLE_REQUESTS = 200
# Opening 12,000 connections takes part of it.
MINIMUM_SECONDS = 6
REFERENCE = """
daemon off; pid pid; error_log stderr emerg; worker_processes auto; worker_rlimit_nofile 40000;
events {{ worker_connections 16384; }}
http {{ access_log off; keepalive_requests 1000000000; server {{ listen 127.0.0.1:{port} backlog=16384; location / {{ return 200 "{answer}"; }} }} }}
"""


async def run(context):
    results = []
    seconds = max(MINIMUM_SECONDS, int(context.seconds / (3 * len(CONNECTIONS) + 2)))
    async with servers(1, nginx=True, MEMORY_BUDGET=f"{BUDGET_MIB}MiB") as stack:
        with tempfile.TemporaryDirectory() as folder:
            keys = pathlib.Path(folder) / "keys"
            await asyncio.to_thread(_fill, stack, keys)
            for where, port in (("direct", stack.ports[0]), ("through nginx", stack.port)):
                results += await _measure(where, port, stack, keys, seconds)
            results.append(await asyncio.to_thread(_reference, pathlib.Path(folder), keys, seconds))
    return results


async def _measure(where, port, stack, keys, seconds):
    before, rates, p99s, refused, broken, afters = await _idle_p99(port), {}, {}, 0, 0, []
    _reset_peak(stack.processes[0].pid)
    for connections in CONNECTIONS:
        found = await asyncio.to_thread(_load, port, keys, connections, seconds)
        rates[connections] = (found["requests"] - found["bad_status"]) / found["seconds"]
        p99s[connections] = found["p99_us"] / 1000
        refused, broken = refused + found["bad_status"], broken + found["broken"]
        begun = time.monotonic()
        async with Client(port) as client:
            while (await client.request("GET", "/v1/passengers?limit=1")).status != 200:
                await asyncio.sleep(0.02)
        afters.append(time.monotonic() - begun)
    peak = max(rates.values())
    due = int(TIMES * peak)
    found = await asyncio.to_thread(_load, port, keys, OPEN_CONNECTIONS, seconds, due)
    open_rate = (found["requests"] - found["bad_status"]) / found["seconds"]
    open_loop = {"due": f"{due:,}/s", "sent": f"{found['requests'] / found['seconds']:,.0f}/s", "answered": f"{open_rate:,.0f}/s",
                 "of the peak": open_rate / peak, "refused": found["bad_status"], "broken": found["broken"]}  # fmt: skip
    after = await _idle_p99(port)
    memory = _peak_mib(stack.processes[0].pid)
    return [
        Result(f"goodput of reads and creations, {where}", "≥ 0.9 of the peak", {f"{n} connections": f"{rate:,.0f}/s, p99 {p99s[n]:.0f} ms" for n, rate in rates.items()},
            min(rates.values()) >= 0.9 * peak),
        Result(f"goodput of an open loop at {TIMES} × the peak, {where}", "≥ 0.9 of the peak", open_loop, open_rate >= 0.9 * peak and not found["broken"]),
        Result(f"no connection breaks, {where}", "0", {"broken": broken, "refused": refused}, broken == 0),
        Result(f"a read is answered within a second afterwards, {where}", "≤ 1 s", {"s": max(afters), "p99 before, ms": before * 1000, "p99 after, ms": after * 1000}, max(afters) <= 1),
        Result(f"the server's memory, {where}", f"≤ {LIMIT_MIB} MiB", {"MiB": memory}, memory <= LIMIT_MIB),
    ]  # fmt: skip


def _reference(folder, keys, seconds):
    port = free_port()
    file = folder / "nginx.conf"
    file.write_text(REFERENCE.format(port=port, answer="x" * 300), encoding="ascii")
    nginx = Process(["/usr/sbin/nginx", "-e", "stderr", "-p", folder, "-c", file], clean_environment())
    try:
        until(lambda: _listens(port), "nginx listens")
        counts = {connections: _load(port, keys, connections, seconds) for connections in CONNECTIONS}
    finally:
        nginx.signal(signal.SIGTERM)
        nginx.wait()
    rates = {connections: found["requests"] / found["seconds"] for connections, found in counts.items()}
    least = min(rates.values()) / max(rates.values())
    counted = {f"{n} connections": f"{rate:,.0f}/s" for n, rate in rates.items()}
    return Result("for comparison: an nginx that answers by itself", "none", {**counted, "of the peak": least}, True)


def _listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True


def _fill(stack, keys):
    stack.fill(ROWS)
    keys.write_text(stack.psql("select uuid from passengers") + "\n", encoding="ascii")


def _load(port, keys, connections, seconds, rate=None):
    """Runs wrk; an open loop if `rate` is given."""
    script = "paced.lua" if rate else "mix.lua"
    command = ["wrk", f"-t{THREADS}", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "--latency", "-s", script,
               f"http://127.0.0.1:{port}", "--", str(keys), *([str(rate // THREADS)] if rate else [])]  # fmt: skip
    output = subprocess.run(command, cwd=REPOSITORY / "bench" / "lua", check=True, capture_output=True, text=True).stdout
    return json.loads(output[output.index("RESULT ") + 7 :])


async def _idle_p99(port):
    """The p99 of one client without other load."""
    times = []
    async with Client(port) as client:
        for _ in range(IDLE_REQUESTS):
            begun = time.monotonic()
            await client.request("GET", "/v1/passengers?limit=1")
            times.append(time.monotonic() - begun)
    return quantile(times, 0.99)


def _reset_peak(pid):
    pathlib.Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def _peak_mib(pid):
    """The greatest resident memory since the last reset."""
    words = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="ascii").split()
    return int(words[words.index("VmHWM:") + 1]) // 1024
