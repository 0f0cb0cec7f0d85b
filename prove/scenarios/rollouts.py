"""Servers are restarted one after the other, over and over, under clients that keep their connections and never ask twice: three
servers behind nginx, and the server of `make up` below supervisord. No request fails.

RATE=400 requests a second."""

import asyncio
import contextlib
import itertools
import signal
import time

from client import Client, Counts, Lost, NotSent
from ledger import RESOURCES
from open_loop import Timeline, open_loop, quantile
from scenario import Row
from stack import is_ready, servers, support, whole

WEIGHT = 1
SHORT = 8

WORKERS = 32
PASSENGERS = RESOURCES[0]
# nginx leaves a server alone for two seconds after two failures (nginx/nginx.conf.template); orchestrators are slower than this.
TURN_SECONDS = 3.0
# What exits five times in a minute ends the container: so it is promised.
SUPERVISED_SECONDS = 16.0


async def run(context):
    half = context.seconds / 2
    rows = []
    async with servers(3, nginx=True) as stack:
        rows.append(await _under_load("three servers behind nginx", stack.port, half, context, _turns(stack), TURN_SECONDS))
    async with whole() as stack:
        rows.append(await _under_load("the server of make up", stack.port, half, context, _supervised(stack), SUPERVISED_SECONDS))
    return rows


def _turns(stack):
    """Restarts one of them each time it is called."""
    places = itertools.cycle(range(len(stack.processes)))

    async def restart():
        place = next(places)
        process, port = stack.processes[place], stack.ports[place]
        process.signal(signal.SIGTERM)
        status = await asyncio.to_thread(process.wait)
        if status:
            raise RuntimeError(f"a server that was told to end did so with status {status}: {process.output[-2000:]}")
        environment = support.clean_environment(
            DATABASE_URL=stack.url, LISTEN=f"127.0.0.1:{port}", METRICS_LISTEN="off", LOG="warn,access=off", SEED="false"
        )
        stack.processes[place] = support.Process([support.BINARY_DIR / "pycrudapi", "serve"], environment)
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
                answer = await client.ask("POST", PASSENGERS.path, PASSENGERS.body(f"rollout {number}"))
                if answer.status == 201:
                    seen.append(answer.headers["location"])
            elif number % 3 == 1:
                answer = await client.ask("GET", seen[number % len(seen)])
            else:
                answer = await client.ask("PUT", seen[number % len(seen)], PASSENGERS.body(f"rollout {number}"))
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
    told = {"restarts": restarts, **counts.shown(), "failed": len(wrong), "p99": f"{quantile(timeline.all_latencies(), 0.99) * 1000:.0f} ms"}
    return Row(f"no request fails while servers are restarted: {what}", "0", told | ({"such as": wrong[0]} if wrong else {}), not wrong and restarts > 0)
