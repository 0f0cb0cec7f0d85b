"""PostgreSQL is stopped for six seconds and started again, by turns, under clients of three servers behind nginx, one of
which is started while it is away. What needs no database is answered all the time, what does is told soon when to come
back, no load balancer takes a server out, and clients are served again soon after its return."""

import asyncio
import contextlib
import time

from client import Client, Counts, Lost, NotSent
from scenario import Row, milliseconds
from stack import servers, support, until

WEIGHT = 1
SHORT = 10

AWAY_SECONDS = 6.0
CLIENTS = 16
# What is promised; the machine may be busy with something else, so the worst of all may be as many times as late.
SERVED_SECONDS, TOLD_SECONDS, BUSY = 2.0, 1.0, 3

PROBE = "/readyz?exclude=postgres"
WITHOUT_DATABASE = ("/hello", "/docs", "/openapi.json", "/livez", PROBE)
WITH_DATABASE = ("/v1/passengers?limit=1", "/v1/passengers/stats", "/v1/steps", "/v1/air-quality")


class Seen:
    def __init__(self):
        self.counts = Counts()
        self.broken, self.waits, self.away = [], [], False


async def run(context):
    seen, returns = Seen(), []
    async with servers(2, nginx=True) as stack:
        context.start_clock()
        ended = asyncio.Event()
        clients = [asyncio.create_task(_ask(stack.port, seen, ended, turn)) for turn in range(CLIENTS)]
        probes = [asyncio.create_task(_probe(port, seen, ended)) for port in stack.ports]
        fresh = None
        while not returns or context.time_left() > AWAY_SECONDS:
            seen.away = True
            await asyncio.to_thread(stack.cluster.stop)
            if fresh is None:
                fresh = await asyncio.to_thread(_start_meanwhile, stack)
                probes.append(asyncio.create_task(_probe(fresh, seen, ended)))
            await asyncio.sleep(AWAY_SECONDS)
            await asyncio.to_thread(stack.cluster.start)
            began = time.monotonic()
            await asyncio.gather(*(_served(port) for port in [*stack.ports, fresh]))
            returns.append(time.monotonic() - began)
            seen.away = False
            await asyncio.sleep(min(1.0, context.time_left()))
        ended.set()
        await asyncio.gather(*clients, *probes)
    unanswered = seen.counts.not_sent + seen.counts.lost
    slowest = max(seen.waits, default=0.0)
    return [
        Row("while PostgreSQL is away each request is answered: 200 without it, 503 with Retry-After that needs it", "0 others",
            {**seen.counts.shown(), "others": len(seen.broken), **({"first": seen.broken[0]} if seen.broken else {})},
            not seen.broken and not unanswered),
        Row("such a 503 comes soon", f"≤ {TOLD_SECONDS:g} s, the worst ≤ {TOLD_SECONDS * BUSY:g} s", {"answers": len(seen.waits), "waits": milliseconds(seen.waits)},
            slowest <= TOLD_SECONDS * BUSY),
        Row("all servers serve again soon after its return", f"≤ {SERVED_SECONDS:g} s, the worst ≤ {SERVED_SECONDS * BUSY:g} s", {"returns": len(returns), "after": milliseconds(returns)},
            max(returns) <= SERVED_SECONDS * BUSY),
    ]  # fmt: skip


async def _ask(port, seen, ended, turn):
    client = Client(port, seen.counts)
    targets = WITHOUT_DATABASE + WITH_DATABASE
    while not ended.is_set():
        turn += 1
        target = targets[turn % len(targets)]
        away, began = seen.away, time.monotonic()
        with contextlib.suppress(NotSent, Lost):  # they are counted
            answer = await client.ask("GET", target)
            if answer.status == 503 and "retry-after" in answer.headers and target in WITH_DATABASE and (away or seen.away):
                seen.waits.append(time.monotonic() - began)
            elif answer.status != 200:
                seen.broken.append(f"{target}: {answer!r}")
        await asyncio.sleep(0.01)
    client.close()


async def _probe(port, seen, ended):
    client = Client(port, seen.counts)
    while not ended.is_set():
        with contextlib.suppress(NotSent, Lost):
            answer = await client.ask("GET", PROBE)
            if answer.status != 200:
                seen.broken.append(f"probe of {port}: {answer!r}")
        await asyncio.sleep(0.1)
    client.close()


async def _served(port):
    async with Client(port) as client:
        while (await client.ask("GET", "/v1/passengers?limit=1")).status != 200:
            await asyncio.sleep(0.02)


def _start_meanwhile(stack):
    """One more server, which has never seen its database."""
    port = support.free_port()
    environment = support.clean_environment(
        DATABASE_URL=stack.url, LISTEN=f"127.0.0.1:{port}", METRICS_LISTEN="off", LOG="error,access=off", SEED="false"
    )
    process = support.Process([support.BINARY_DIR / "pycrudapi", "serve"], environment)
    stack.processes.append(process)

    def ready():
        with contextlib.suppress(OSError):
            return support.request(port, "GET", PROBE, timeout=5).status == 200
        return False

    until(lambda: not process.running or ready(), f"a server without its database is ready: {process.output[-2000:]}")
    return port
