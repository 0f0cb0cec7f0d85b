"""Clients change two resources at a constant rate with all kinds of requests while faults are injected one after the other, in an order
chosen by the seed: on the stack of `make up`, and on two or three servers behind nginx, with and without authentication. Then every answer
is checked against the final state, and each row is checked by three checkers.

RATE=300 requests per second on each stack; EPISODE=60 seconds on one stack; TOGETHER=1 stacks at the same time."""

import asyncio
import collections
import os
import random
import traceback

from episode import RECOVERY_SECONDS, Episode
from faults import SINGLE, SCALED, all_faults
from scaled import scaled
from single import single
from open_loop import quantile
from publish import skipped
from scenario import Result, milliseconds
from stack import REPOSITORY

WEIGHT = 6
SHORT = 36
# Each episode starts a stack and checks its results.
TIMEOUT_FACTOR = 3.0
SECONDS_A_FAULT = 2.0
# The logs of a stack are kept if it was unavailable for longer than this after a fault, or has a violation.
SLOW_SECONDS = 2.0

# {topic of a violation: (promise, goal)}
PROMISES = {
    "lost": ("acknowledged creations, bulk bodies and imports are present", "0 lost"),
    "doubled": ("a request repeated with its key is applied once, and answered as the first time", "0 doubled"),
    "partial": ("no row, bulk body or import is applied partially", "0"),
    "wrong outcome": ("a request that is answered as not applied was not applied", "0"),
    "mixed": ("no answer belongs to another request", "0"),
    "linearizable": ("the operations on each row are linearizable, including answers 404, 409 and 412", "0 not linearizable"),
    "checkers": ("the checkers agree", "0 disagreements"),
    "history": ("each row's history is complete, in order, and has the right principals", "0 violations"),
    "versions": ("no version is assigned twice, not even by a restore", "0"),
    "lists": ("lists contain each untouched row exactly once while others change", "0 violations"),
    "errors": ("errors are problem documents with the right code, and Retry-After if a retry is safe", "0 violations"),
}


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
            _print_progress(f"episode {number + 1} of {count}, {kind}", one)
    context.publish("storm", episodes)
    ran = {"stacks": len(episodes), "failed": len(failed), **({"example": failed[0]} if failed else {})}
    return [*_promises(episodes), *_recovery(episodes), Result("the faults and checks of each stack complete", "0 failed", ran, not failed)]


def _print_progress(name, episode):
    violations = collections.Counter(topic for topic, _, _ in episode.ledger.violations)
    summary = ", ".join(f"{topic} {n}" for topic, n in violations.items()) or "all held"
    print(f"   {name}: {episode.ledger.counts.requests:,} requests, {len(episode.injections)} faults, {summary}", flush=True)
    for topic in violations:
        print(f"      {topic}: {next(description for its, _, description in episode.ledger.violations if its == topic)}", flush=True)


def shuffled(rng, faults, text):
    """The faults whose name contains the text, in random order."""
    chosen = [one for one in faults if not text or text in one.name]
    return rng.sample(chosen, len(chosen))


def rotated(order, turn, seconds):
    """Each stack starts where the previous one is expected to end, so that every kind is injected; where it really ended depends on the
    machine and is not repeatable."""
    start = turn * int(seconds / SECONDS_A_FAULT) % max(1, len(order))
    return order[start:] + order[:start]


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
        if episode.ledger.violations or any(injection.unavailable > SLOW_SECONDS for injection in episode.injections):
            _keep_log(f"episode-{number}.log", episode, deployment)
        return episode


def _keep_log(name, episode, deployment):
    """Writes the injections, the violations and the logs of the service to var/prove."""
    start, folder = episode.timeline.start, REPOSITORY / "var" / "prove"
    lines = [f"{injection.begun - start:8.2f} to {injection.healed - start:.2f}, recovered {injection.recovered - start:.2f}: {injection.name}" for injection in episode.injections]
    lines += [f"{at - start:8.2f} {topic}: {description}" for topic, at, description in episode.ledger.violations]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join([*lines, "", deployment.log()]), encoding="utf-8")
    print(f"   kept: {folder / name}", flush=True)


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
    for topic, (promise, goal) in PROMISES.items():
        found = [description for one, _, description in violations if one == topic]
        counted = {**details.get(topic, {}), "violations": len(found)}
        counted |= {str(number): description[:1500] for number, description in enumerate(sorted(set(found), key=len)[:3], 1)}
        yield Result(promise, goal, counted, not found and (topic != "linearizable" or checked["rows"] > 0))


def _recovery(episodes):
    injections = [injection for one in episodes for injection in one.injections]
    slowest = max(injections, key=lambda injection: injection.unavailable, default=None)
    counted = {
        "faults": len(injections),
        "kinds": len({injection.name for injection in injections}),
        "unavailable": milliseconds([injection.unavailable for injection in injections]),
        f"over {SLOW_SECONDS:g} s": sum(injection.unavailable > SLOW_SECONDS for injection in injections),
        **({"slowest after": slowest.name} if slowest else {}),
    }
    for name, why in skipped(episodes).items():
        print(f"   not injected: {name}: {why}", flush=True)
    left = [line for one in episodes for line in one.left_behind]
    failed = [description for one in episodes for topic, _, description in one.ledger.violations if topic == "recovery"]
    yield Result("every endpoint acknowledges creations again after each fault", f"within {RECOVERY_SECONDS} s",
              {**counted, "not recovered": len(failed), **{str(number): description for number, description in enumerate(failed[:3], 1)}}, bool(injections) and not failed)  # fmt: skip
    yield Result("no process outlives supervisord", "0", {"left behind": len(left), **({"example": left[0]} if left else {})}, not left)
