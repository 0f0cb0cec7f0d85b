"""Servers are restarted one after the other, repeatedly, under clients that keep their connections open and never retry: three
servers behind nginx, and the server of `make up` under supervisord. No request fails.

RATE=400 requests per second."""

import asyncio
import contextlib
import itertools
import signal
import time

from client import Client, Counts, Lost, NotSent
from ledger import RESOURCES
from open_loop import Timeline, open_loop, quantile
from scenario import Result
from stack import is_ready, ready_stack, servers, support

WEIGHT = 1
SHORT = 8

WORKERS = 32
PASSENGERS = RESOURCES[0]
# nginx sends no requests to a server for two seconds after two failures (nginx/nginx.conf.template); orchestrators are slower than this.
RESTART_SECONDS = 3.0
# By design a program that exits five times in a minute stops the container.
SUPERVISED_SECONDS = 16.0


async def run(context):
    half = context.seconds / 2
    results = []
    async with servers(3, nginx=True) as stack:
        results.append(await _under_load("three servers behind nginx", stack.port, half, context, _one_by_one(stack), RESTART_SECONDS))
    async with ready_stack() as stack:
        results.append(await _under_load("the server of make up", stack.port, half, context, _supervised(stack), SUPERVISED_SECONDS))
    return results


def _one_by_one(stack):
    """Returns a function that restarts the next server."""
    indexes = itertools.cycle(range(len(stack.processes)))

    async def restart():
        index = next(indexes)
        process, port = stack.processes[index], stack.ports[index]
        process.signal(signal.SIGTERM)
        status = await asyncio.to_thread(process.wait)
        if status:
            raise RuntimeError(f"a server exited with status {status} after SIGTERM: {process.output[-2000:]}")
        environment = support.clean_environment(
            DATABASE_URL=stack.url, LISTEN=f"127.0.0.1:{port}", METRICS_LISTEN="off", LOG="warn,access=off", SEED="false"
        )
        stack.processes[index] = support.Process([support.BINARY_DIR / "pycrudapi", "serve"], environment)
        await _until(lambda: is_ready(port))

    return restart


def _supervised(stack):
    async def restart():
        (before,) = stack.pids("server")[:1]
        with contextlib.suppress(ProcessLookupError):
            support.os.kill(before, signal.SIGTERM)
        await _until(lambda: before not in stack.pids("server") and stack.pids("server") and is_ready(stack.port))

    return restart


async def _until(condition):
    async with asyncio.timeout(120):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


async def _under_load(what, port, seconds, context, restart, pause):
    counts, timeline, wrong, numbers = Counts(), Timeline(), [], itertools.count()
    seen = []

    async def act(client, due):
        number = next(numbers)
        try:
            if number % 3 == 0 or not seen:
                answer = await client.request("POST", PASSENGERS.path, PASSENGERS.body(f"rollout {number}"))
                if answer.status == 201:
                    seen.append(answer.headers["location"])
            elif number % 3 == 1:
                answer = await client.request("GET", seen[number % len(seen)])
            else:
                answer = await client.request("PUT", seen[number % len(seen)], PASSENGERS.body(f"rollout {number}"))
            if answer.status >= 300:
                wrong.append(f"{answer.status} {answer.code()}")
        except (Lost, NotSent) as error:
            wrong.append(repr(error))
        timeline.record(due, not wrong)

    clients = [Client(port, counts) for _ in range(WORKERS)]
    restarts, end = 0, time.monotonic() + seconds
    load = asyncio.create_task(open_loop(context.number("RATE", 400), seconds, clients, act))
    try:
        while time.monotonic() < end - 1 or not restarts:
            await restart()
            restarts += 1
            await asyncio.sleep(pause)
        await load
    finally:
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
        for client in clients:
            client.close()
    counted = {"restarts": restarts, **counts.summary(), "failed": len(wrong), "p99": f"{quantile(timeline.all_latencies(), 0.99) * 1000:.0f} ms"}
    return Result(f"no request fails while servers are restarted: {what}", "0", counted | ({"example": wrong[0]} if wrong else {}), not wrong and restarts > 0)
