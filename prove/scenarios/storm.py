"""Clients at a steady rate change two resources in all ways there are, while one thing after the other breaks, in an order that
the seed chooses: on the stack of `make up`, and on two or three servers behind nginx, with and without authentication. Then
everything that was told is compared with what there is, and each row is judged by three judges.

RATE=300 requests a second on each; EPISODE=60 seconds on one stack; TOGETHER=1 stacks at the same time."""

import asyncio
import collections
import os
import random
import traceback

from episode import RECOVERY_SECONDS, Episode
from faults import LAPTOP, SERVERS, all_faults
from fleet import fleet
from laptop import laptop
from open_loop import quantile
from publish import skipped
from scenario import Row, milliseconds
from stack import REPOSITORY

WEIGHT = 6
SHORT = 36
# Each episode starts a stack and judges what happened on it.
PATIENCE = 3.0
SECONDS_A_FAULT = 2.0
# The logs of a stack that was away for longer after a fault are kept, as those of one with a complaint are.
SLOW_SECONDS = 2.0

# {topic of a complaint: (promise, goal)}
PROMISES = {
    "lost": ("acknowledged creations, bulk bodies and imports are there", "0 lost"),
    "doubled": ("what was sent again with its key is there once, and is answered as the first time", "0 doubled"),
    "half": ("nothing is carried out by half: rows, bulk bodies, imports", "0"),
    "untruthful": ("what is answered as not carried out was not", "0"),
    "mixed": ("no answer is another's", "0"),
    "linearizable": ("some order explains every answer about a row, 404, 409 and 412 included", "0 without"),
    "judges": ("the judges agree", "0 times not"),
    "history": ("each row's history is complete, in order, and names who it was", "0 otherwise"),
    "versions": ("no version is given twice, by a restore neither", "0"),
    "lists": ("lists have each row that nobody touched exactly once, while others change", "0 otherwise"),
    "errors": ("errors are problem documents with the right code, and Retry-After where it helps", "0 otherwise"),
}


async def run(context):
    seconds, together = context.number("EPISODE", 60), context.number("TOGETHER", 1)
    count = max(2, round(context.seconds / seconds))
    seconds = context.seconds / count
    orders = {place: shuffled(context.random, all_faults(place), context.fault) for place in (LAPTOP, SERVERS)}
    dice = [random.Random(context.random.random()) for _ in range(count)]
    episodes, broken = [], []
    for first in range(0, count, together):
        if context.told_to_end():
            break
        numbers = range(first, min(first + together, count))
        places = [(LAPTOP, SERVERS)[number % 2] for number in numbers]
        orders_now = [from_turn(orders[place], number // 2, seconds) for number, place in zip(numbers, places)]
        starting = [_episode(context, dice[number], number + 1, place, seconds, faults) for number, place, faults in zip(numbers, places, orders_now)]
        for number, place, one in zip(numbers, places, await asyncio.gather(*starting, return_exceptions=True)):
            if isinstance(one, Exception):
                traceback.print_exception(one)
                broken.append(f"{place}: {one!r}"[:300])
                continue
            episodes.append(one)
            _tell(f"episode {number + 1} of {count}, {place}", one)
    context.publish("storm", episodes)
    ran = {"stacks": len(episodes), "otherwise": len(broken), **({"such as": broken[0]} if broken else {})}
    return [*_rows(episodes), *_returns(episodes), Row("each stack is broken, and judged, to the end", "0 otherwise", ran, not broken)]


def _tell(name, episode):
    complaints = collections.Counter(topic for topic, _, _ in episode.ledger.complaints)
    said = ", ".join(f"{topic} {n}" for topic, n in complaints.items()) or "all held"
    print(f"   {name}: {episode.ledger.counts.requests:,} requests, {len(episode.blows)} faults, {said}", flush=True)
    for topic in complaints:
        print(f"      {topic}: {next(sentence for its, _, sentence in episode.ledger.complaints if its == topic)}", flush=True)


def shuffled(dice, faults, text):
    """An order of those whose name has the text."""
    chosen = [one for one in faults if not text or text in one.name]
    return dice.sample(chosen, len(chosen))


def from_turn(order, turn, seconds):
    """Each stack goes on where the one before it will have been, so that all kinds have their turn; where it really was depends on the
    machine, and would not be repeated."""
    start = turn * int(seconds / SECONDS_A_FAULT) % max(1, len(order))
    return order[start:] + order[:start]


async def _episode(context, dice, number, place, seconds, faults):
    settings = {"AUTH": "on"} if dice.random() < 0.5 else {}
    if place == LAPTOP:
        opening = laptop(with_disk=os.geteuid() == 0 and dice.random() < 0.5, **settings)
    else:
        opening = fleet(dice.choice((2, 3)), with_standby=dice.random() < 0.5, **settings)
    async with opening as world:
        tokens = [_token(world, name) for name in ("ada", "bea")] if settings else []
        if provider := getattr(world, "identity", None):
            tokens.append((provider.token, provider.principal))
        episode = await Episode(world, dice, seconds, context.number("RATE", 300), tokens).run(faults)
        if episode.ledger.complaints or any(blow.away > SLOW_SECONDS for blow in episode.blows):
            _keep(f"episode-{number}.log", episode, world)
        return episode


def _keep(name, episode, world):
    """What was injected, what is wrong, and what the service's logs said, for whoever looks for the reason."""
    start, folder = episode.timeline.start, REPOSITORY / "var" / "prove"
    lines = [f"{blow.begun - start:8.2f} to {blow.healed - start:.2f}, back {blow.back - start:.2f}: {blow.name}" for blow in episode.blows]
    lines += [f"{at - start:8.2f} {topic}: {sentence}" for topic, at, sentence in episode.ledger.complaints]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join([*lines, "", world.said()]), encoding="utf-8")
    print(f"   kept: {folder / name}", flush=True)


def _token(world, name):
    """(token, principal): the token is on standard output alone, its number beside it."""
    status, token, said = world.run("token", "create", "--name", name, "--scope", "admin")
    if status:
        raise RuntimeError(f"token create: {said}")
    status, listed, _ = world.run("token", "list")
    number = next(line for line in listed.splitlines() if f" {name} " in f" {line} ").split()[0]
    return token.strip(), f"token:{number}"


def _rows(episodes):
    """One for each promise."""
    ledgers = [one.ledger for one in episodes]
    complaints = [complaint for ledger in ledgers for complaint in ledger.complaints]
    judged = sum((one.judged for one in episodes), collections.Counter())
    done = collections.Counter(creation.how for ledger in ledgers for creation in ledger.creations if creation.outcome == "done")
    codes = sum((ledger.codes for ledger in ledgers), collections.Counter())
    latencies = [one for episode in episodes for one in episode.timeline.all_latencies()]
    beside = {
        "lost": dict(done),
        "doubled": {"sent again": sum(ledger.resent for ledger in ledgers)},
        "linearizable": dict(judged),
        "history": {"rows": judged["rows"], "creations": judged["creations"]},
        "lists": {"lists": sum(ledger.walks for ledger in ledgers), "rows in them": sum(ledger.in_walks for ledger in ledgers)},
        "errors": {
            "requests": sum(ledger.counts.requests for ledger in ledgers),
            "p99": f"{quantile(latencies, 0.99) * 1000:.0f} ms from when they were due",
            **dict(sorted(codes.items())),
            "not sent": sum(ledger.counts.not_sent for ledger in ledgers),
            "no answer": sum(ledger.counts.lost for ledger in ledgers),
        },
    }
    for topic, (what, goal) in PROMISES.items():
        sentences = [sentence for one, _, sentence in complaints if one == topic]
        counted = {**beside.get(topic, {}), "otherwise": len(sentences)}
        counted |= {str(place): sentence[:1500] for place, sentence in enumerate(sorted(set(sentences), key=len)[:3], 1)}
        yield Row(what, goal, counted, not sentences and (topic != "linearizable" or judged["rows"] > 0))


def _returns(episodes):
    blows = [blow for one in episodes for blow in one.blows]
    slowest = max(blows, key=lambda blow: blow.away, default=None)
    told = {
        "faults": len(blows),
        "kinds": len({blow.name for blow in blows}),
        "away": milliseconds([blow.away for blow in blows]),
        f"over {SLOW_SECONDS:g} s": sum(blow.away > SLOW_SECONDS for blow in blows),
        **({"slowest after": slowest.name} if slowest else {}),
    }
    for name, why in skipped(episodes).items():
        print(f"   not injected: {name}: {why}", flush=True)
    left = [line for one in episodes for line in one.left_behind]
    away = [sentence for one in episodes for topic, _, sentence in one.ledger.complaints if topic == "away"]
    yield Row("the service makes rows again at every entrance after each fault", f"within {RECOVERY_SECONDS} s",
              {**told, "otherwise": len(away), **{str(place): sentence for place, sentence in enumerate(away[:3], 1)}}, bool(blows) and not away)  # fmt: skip
    yield Row("nothing outlives supervisord", "0", {"left behind": len(left), **({"such as": left[0]} if left else {})}, not left)
