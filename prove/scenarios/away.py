"""PostgreSQL is stopped for six seconds and started again, repeatedly, under load on three servers behind nginx, one of which is
started while PostgreSQL is down. Requests that need no database are always answered, the others quickly receive 503 with Retry-After,
readiness for load balancers does not fail, and requests succeed again soon after PostgreSQL's return."""

import asyncio
import contextlib
import time

from client import Client, Counts, Lost, NotSent
from scenario import Result, milliseconds
from stack import servers, support, until

WEIGHT = 1
SHORT = 10

DOWN_SECONDS = 6.0
CLIENTS = 16
# The promises; the maximum may be BUSY times as long, because the machine may be busy with something else.
SERVED_SECONDS, REFUSED_SECONDS, BUSY = 2.0, 1.0, 3

PROBE = "/readyz?exclude=postgres"
WITHOUT_DATABASE = ("/hello", "/docs", "/openapi.json", "/livez", PROBE)
WITH_DATABASE = ("/v1/passengers?limit=1", "/v1/passengers/stats", "/v1/steps", "/v1/air-quality")


class Observations:
    def __init__(self):
        self.counts = Counts()
        self.failures, self.waits, self.is_down = [], [], False


async def run(context):
    seen, returns = Observations(), []
    async with servers(2, nginx=True) as stack:
        context.start_clock()
        ended = asyncio.Event()
        clients = [asyncio.create_task(_send_requests(stack.port, seen, ended, number)) for number in range(CLIENTS)]
        probes = [asyncio.create_task(_probe(port, seen, ended)) for port in stack.ports]
        late = None
        while not returns or context.time_left() > DOWN_SECONDS:
            seen.is_down = True
            await asyncio.to_thread(stack.cluster.stop)
            if late is None:
                late = await asyncio.to_thread(_start_without_database, stack)
                probes.append(asyncio.create_task(_probe(late, seen, ended)))
            await asyncio.sleep(DOWN_SECONDS)
            await asyncio.to_thread(stack.cluster.start)
            began = time.monotonic()
            await asyncio.gather(*(_served(port) for port in [*stack.ports, late]))
            returns.append(time.monotonic() - began)
            seen.is_down = False
            await asyncio.sleep(min(1.0, context.time_left()))
        ended.set()
        await asyncio.gather(*clients, *probes)
    unanswered = seen.counts.not_sent + seen.counts.lost
    slowest = max(seen.waits, default=0.0)
    return [
        Result("while PostgreSQL is down each request is answered: 200 if it needs no database, otherwise 503 with Retry-After", "0 others",
            {**seen.counts.summary(), "others": len(seen.failures), **({"first": seen.failures[0]} if seen.failures else {})},
            not seen.failures and not unanswered),
        Result("such a 503 is sent soon", f"≤ {REFUSED_SECONDS:g} s, max ≤ {REFUSED_SECONDS * BUSY:g} s", {"answers": len(seen.waits), "waits": milliseconds(seen.waits)},
            slowest <= REFUSED_SECONDS * BUSY),
        Result("all servers succeed again soon after its return", f"≤ {SERVED_SECONDS:g} s, max ≤ {SERVED_SECONDS * BUSY:g} s", {"returns": len(returns), "after": milliseconds(returns)},
            max(returns) <= SERVED_SECONDS * BUSY),
    ]  # fmt: skip


async def _send_requests(port, seen, ended, number):
    client = Client(port, seen.counts)
    targets = WITHOUT_DATABASE + WITH_DATABASE
    while not ended.is_set():
        number += 1
        target = targets[number % len(targets)]
        was_down, began = seen.is_down, time.monotonic()
        with contextlib.suppress(NotSent, Lost):  # counted by the client
            answer = await client.request("GET", target)
            if answer.status == 503 and "retry-after" in answer.headers and target in WITH_DATABASE and (was_down or seen.is_down):
                seen.waits.append(time.monotonic() - began)
            elif answer.status != 200:
                seen.failures.append(f"{target}: {answer!r}")
        await asyncio.sleep(0.01)
    client.close()


async def _probe(port, seen, ended):
    client = Client(port, seen.counts)
    while not ended.is_set():
        with contextlib.suppress(NotSent, Lost):
            answer = await client.request("GET", PROBE)
            if answer.status != 200:
                seen.failures.append(f"probe of {port}: {answer!r}")
        await asyncio.sleep(0.1)
    client.close()


async def _served(port):
    async with Client(port) as client:
        while (await client.request("GET", "/v1/passengers?limit=1")).status != 200:
            await asyncio.sleep(0.02)


def _start_without_database(stack):
    """Starts another server, which has never reached its database."""
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
