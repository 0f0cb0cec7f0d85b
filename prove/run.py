#!/usr/bin/env python3
"""`make prove`: breaks real stacks for a while and counts what became of the service's promises.

    run.py [--minutes M] [--seed N] [--only NAME,NAME] [--short] [NAME=NUMBER…]

A scenario is a file scenarios/NAME.py; being there is all it takes to be run. Its docstring says what is broken and what
must hold. It has:

    WEIGHT = 1          (optional) its part of the time, compared with others; 0 is run by its name alone
    SHORT = 10          (optional) seconds of load in the short form, which `make test` runs; without it, it has none
    PATIENCE = 1        (optional) times its load that it may take besides, on top of ten minutes
    async def run(context) -> list[Row]

`context` (scenario.py) has `random` (seeded), `seconds` of load, `time_left()`, `short`, `number("WRITES", default)`. A Row
is one promise: what, goal, counted, held. What is broken is started and ended by stack.py, laptop.py and fleet.py, and breaks by
faults/; client.py asks and tells "not sent", "answer lost" and answers apart; actions.py is the clients of `storm`, and verdict.py judges
what they were told, each row by history.py, search.py and chain.py. Counts decide, times do not: the machine may be busy.

The exit status is 1 when a promise was broken, and the table says which; it is written to var/prove/report.md too. `--publish`
puts what was run into docs/reliability.md. Told SIGUSR1, `storm` ends after the stack that it is at.
"""

import argparse
import asyncio
import concurrent.futures
import contextlib
import importlib
import pathlib
import random
import signal
import sys
import time
import traceback

import publish
from scenario import Context, Row, table

HERE = pathlib.Path(__file__).resolve().parent
# The tests' stack and the benchmark's PostgreSQL are what is broken here.
sys.path += [str(HERE.parent / "tests" / "stack"), str(HERE.parent / "bench")]
VAR, DOCS = HERE.parent / "var" / "prove", HERE.parent / "docs"

# Of seconds that a scenario may take besides its load: starts, tables to fill, looking at everything in the end. It is cut off then.
PATIENCE_SECONDS = 600
THREADS = 32


def arguments(words):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=3.0, help="time of all loads together (default 3)")
    parser.add_argument("--seed", type=int, help="repeats the choices of an earlier run (default: random, printed)")
    parser.add_argument("--only", help="some scenarios, separated by commas")
    parser.add_argument("--fault", help="only faults whose name has this text")
    parser.add_argument("--publish", action="store_true", help="write docs/reliability.md and docs/reliability.svg")
    parser.add_argument("--short", action="store_true", help="the short forms of those that have one")
    parser.add_argument("numbers", nargs="*", metavar="NAME=NUMBER", help="what scenarios ask for, such as WRITES=1000000")
    options = parser.parse_args(words)
    if options.minutes <= 0:
        parser.error(f"--minutes {options.minutes:g}: must be above 0; example: --minutes 3")
    given = {}
    for word in options.numbers:
        name, _, value = word.partition("=")
        if not value.isdecimal():
            parser.error(f"{word}: expected NAME=NUMBER, such as WRITES=1000000")
        given[name] = int(value)
    options.numbers = given
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1_000_000)
    return options


def choose(options):
    """{name: module} of what is to be run."""
    names = sorted(path.stem for path in (HERE / "scenarios").glob("*.py"))
    if options.only:
        chosen = options.only.split(",")
        if unknown := [name for name in chosen if name not in names]:
            sys.exit(f"--only {','.join(unknown)}: no such scenario; there are {', '.join(names)}")
        return {name: importlib.import_module(f"scenarios.{name}") for name in chosen}
    modules = {name: importlib.import_module(f"scenarios.{name}") for name in names}
    if options.short:
        return {name: module for name, module in modules.items() if getattr(module, "SHORT", None)}
    return {name: module for name, module in modules.items() if getattr(module, "WEIGHT", 1)}


def share_of_time(options, modules):
    """{name: seconds of load}"""
    if options.short:
        return {name: float(getattr(module, "SHORT", 10)) for name, module in modules.items()}
    weights = {name: getattr(module, "WEIGHT", 1) or 1 for name, module in modules.items()}
    return {name: 60 * options.minutes * weight / sum(weights.values()) for name, weight in weights.items()}


async def run_one(name, module, seconds, options):
    """The rows of one scenario, which is bounded whatever it does, and what it publishes."""
    context = Context(name, seconds, options)
    patience = PATIENCE_SECONDS + seconds * getattr(module, "PATIENCE", 0)
    try:
        async with asyncio.timeout(seconds + patience) as limit:
            return list(await module.run(context)), context.published
    except Exception as error:
        traceback.print_exc()
        reason = f"not over {patience:.0f} s after its load" if limit.expired() else f"{type(error).__name__}: {str(error)[:300]}"
    return [Row("the scenario runs to its end", "it does", {"instead": reason}, False)], context.published


async def run_all(options):
    loop = asyncio.get_running_loop()
    # Stacks wait in threads for their processes: more than there are processors.
    loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(THREADS))
    # A stack is ended in `finally`, so being told to end must arrive as Ctrl-C does.
    loop.add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    # For runs that would last too long: storm ends after the stack that it is at, and what was counted until then is published.
    ending = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, ending.set)
    options.told_to_end = ending.is_set
    modules = choose(options)
    times = share_of_time(options, modules)
    results, published = {}, {}
    for name, module in modules.items():
        begun = time.monotonic()
        print(f"{name}: {times[name]:.0f} s of load", flush=True)
        results[name], found = await run_one(name, module, times[name], options)
        published |= found
        held = sum(row.held for row in results[name])
        print(f"   {held} of {len(results[name])} held, {time.monotonic() - begun:.0f} s", flush=True)
    return results, times, published


def again(name, seconds, options):
    """The command that repeats one scenario with the same choices."""
    numbers = "".join(f" {key}={value}" for key, value in options.numbers.items())
    how = f"make prove-short ONLY={name}" if options.short else f"make prove ONLY={name} MINUTES={seconds / 60:.3g}"
    fault = f' FAULT="{options.fault}"' if options.fault else ""
    return f"{how} SEED={options.seed}{numbers}{fault}"


def main(words):
    options = arguments(words)
    begun = time.monotonic()
    print(f"seed {options.seed}", flush=True)
    try:
        results, times, published = asyncio.run(run_all(options))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("interrupted", flush=True)
        return 130
    broken = {name: rows for name, rows in results.items() if not all(row.held for row in rows)}
    commands = {name: again(name, times[name], options) for name in results}
    repeat = [f"again: {commands[name]}" for name in broken]
    text = "\n".join([f"Seed {options.seed}.", "", table(results), "", *repeat])
    VAR.mkdir(parents=True, exist_ok=True)
    (VAR / "report.md").write_text(text + "\n", encoding="utf-8")
    publish.write(DOCS if options.publish else VAR, results, published.get("storm", []), options.seed, commands)
    print(text)
    rows = [row for found in results.values() for row in found]
    held = sum(row.held for row in rows)
    # As pytest says it, so that scripts/test counts promises as tests.
    print(f"{held} passed, {len(rows) - held} failed in {time.monotonic() - begun:.1f}s", flush=True)
    return 1 if broken or not rows else 0


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main(sys.argv[1:]))
