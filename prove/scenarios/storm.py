"""Clients change two resources at a constant rate with all kinds of requests while faults are injected one after the other, in an order
chosen by the seed: on the stack of `make up`, and on two or three servers behind nginx, with and without authentication. Then every answer
is checked against the final state, and each row is checked by three checkers.

RATE=300 requests per second on each stack; EPISODE=60 seconds on one stack; TOGETHER=1 stacks at the same time."""

import asyncio
import collections
import os
import random
import traceback

from episode import Episode
from faults import SINGLE, SCALED, all_faults
from injector import rotated, shuffled
from promises import PROMISES, keep_log, print_progress, promises, recovery
from scaled import scaled
from single import single
from open_loop import quantile
from scenario import Result

WEIGHT = 6
SHORT = 36
# Each episode starts a stack and checks its results.
TIMEOUT_FACTOR = 3.0


async def run(context):
    seconds, together = context.number("EPISODE", 60), context.number("TOGETHER", 1)
    count = max(2, round(context.seconds / seconds))
    seconds = context.seconds / count
    orders = {kind: shuffled(context.random, all_faults(kind), context.fault) for kind in (SINGLE, SCALED)}
    rngs = [random.Random(context.random.random()) for _ in range(count)]
    episodes, failed = [], []
    for first in range(0, count, together):
        if context.stop_requested():
            break
        numbers = range(first, min(first + together, count))
        kinds = [(SINGLE, SCALED)[number % 2] for number in numbers]
        orders_now = [rotated(orders[kind], number // 2, seconds) for number, kind in zip(numbers, kinds)]
        starting = [_episode(context, rngs[number], number + 1, kind, seconds, faults) for number, kind, faults in zip(numbers, kinds, orders_now)]
        for number, kind, one in zip(numbers, kinds, await asyncio.gather(*starting, return_exceptions=True)):
            if isinstance(one, Exception):
                traceback.print_exception(one)
                failed.append(f"{kind}: {one!r}"[:300])
                continue
            episodes.append(one)
            print_progress(f"episode {number + 1} of {count}, {kind}", f"{one.ledger.counts.requests:,} requests", one)
    context.publish("storm", episodes)
    ran = {"stacks": len(episodes), "failed": len(failed), **({"example": failed[0]} if failed else {})}
    return [*_promises(episodes), *recovery(episodes), Result("the faults and checks of each stack complete", "0 failed", ran, not failed)]


async def _episode(context, rng, number, kind, seconds, faults):
    settings = {"AUTH": "on"} if rng.random() < 0.5 else {}
    if kind == SINGLE:
        opening = single(with_disk=os.geteuid() == 0 and rng.random() < 0.5, **settings)
    else:
        opening = scaled(rng.choice((2, 3)), with_standby=rng.random() < 0.5, **settings)
    async with opening as deployment:
        tokens = [_token(deployment, name) for name in ("ada", "bea")] if settings else []
        if provider := getattr(deployment, "identity", None):
            tokens.append((provider.token, provider.principal))
        episode = await Episode(deployment, rng, seconds, context.number("RATE", 300), tokens).run(faults)
        keep_log(f"episode-{number}.log", episode, deployment)
        return episode


def _token(deployment, name):
    """(token, principal): standard output has only the token, so its number is read from the list."""
    status, token, errors = deployment.run("token", "create", "--name", name, "--scope", "admin")
    if status:
        raise RuntimeError(f"token create: {errors}")
    status, listed, _ = deployment.run("token", "list")
    number = next(line for line in listed.splitlines() if f" {name} " in f" {line} ").split()[0]
    return token.strip(), f"token:{number}"


def _promises(episodes):
    """One result for each promise."""
    ledgers = [one.ledger for one in episodes]
    violations = [violation for ledger in ledgers for violation in ledger.violations]
    checked = sum((one.checked for one in episodes), collections.Counter())
    done = collections.Counter(creation.how for ledger in ledgers for creation in ledger.creations if creation.outcome == "done")
    codes = sum((ledger.codes for ledger in ledgers), collections.Counter())
    latencies = [one for episode in episodes for one in episode.timeline.all_latencies()]
    details = {
        "lost": dict(done),
        "doubled": {"retries": sum(ledger.retries for ledger in ledgers)},
        "linearizable": dict(checked),
        "history": {"rows": checked["rows"], "creations": checked["creations"]},
        "lists": {"lists": sum(ledger.lists_read for ledger in ledgers), "rows": sum(ledger.rows_listed for ledger in ledgers)},
        "errors": {
            "requests": sum(ledger.counts.requests for ledger in ledgers),
            "p99": f"{quantile(latencies, 0.99) * 1000:.0f} ms from the due time",
            **dict(sorted(codes.items())),
            "not sent": sum(ledger.counts.not_sent for ledger in ledgers),
            "no answer": sum(ledger.counts.lost for ledger in ledgers),
        },
    }
    return promises(violations, {topic: details.get(topic, {}) for topic in PROMISES})
