#!/usr/bin/env python3
"""`make prove`: injects faults into real stacks under load and checks the promises of the service.

    run.py [--minutes M] [--seed N] [--only NAME,NAME] [--short] [NAME=NUMBER…]

A scenario is a file scenarios/NAME.py; every file there is run. Its docstring states what is broken and what must hold. It
defines:

    WEIGHT = 1          (optional) relative share of the time; with 0 it runs only when it is named
    SHORT = 10          (optional) seconds of load in the short form, which `make test` runs; without it there is no short form
    TIMEOUT_FACTOR = 1  (optional) further time allowed, as a multiple of the load, in addition to ten minutes
    async def run(context) -> list[Result]

`context` (scenario.py) has `random` (seeded), `seconds` of load, `time_left()`, `short`, `number("WRITES", default)`. A Result
is one promise: promise, goal, counted, held. stack.py, single.py and scaled.py start and stop the systems under test, faults/
breaks them; client.py sends requests and distinguishes "not sent", "answer lost" and answers; actions.py is the workload of
`storm`, and checker.py checks its answers, each row with history.py, search.py and chain.py. load/, a program in Rust, is that of
`volume`, and histories.py checks its lines. Counts decide, times do not, because the machine may be busy.

The exit status is 1 if a promise was broken; the table shows which one, and is also written to var/prove/report.md.
`--publish` writes the results into docs/reliability.md. On SIGUSR1 `storm` ends after the current stack.
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
from scenario import Context, Result, table

HERE = pathlib.Path(__file__).resolve().parent
# The stack of the tests and the PostgreSQL of the benchmark are the systems under test.
sys.path += [str(HERE.parent / "tests" / "stack"), str(HERE.parent / "bench")]
VAR, DOCS = HERE.parent / "var" / "prove", HERE.parent / "docs"

# Time allowed in addition to the load, for starting stacks, filling tables and the final checks; then a scenario is cancelled.
TIMEOUT_SECONDS = 600
THREADS = 32


def arguments(words):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=3.0, help="total duration of the load (default 3)")
    parser.add_argument("--seed", type=int, help="repeat the choices of an earlier run (default: random, printed)")
    parser.add_argument("--only", help="only these scenarios, separated by commas")
    parser.add_argument("--fault", help="only faults whose name contains this text")
    parser.add_argument("--publish", action="store_true", help="write docs/reliability.md and docs/reliability.svg")
    parser.add_argument("--short", action="store_true", help="run the short form of the scenarios that have one")
    parser.add_argument("numbers", nargs="*", metavar="NAME=NUMBER", help="parameters of scenarios, such as WRITES=1000000")
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


def select(options):
    """{name: module} of the scenarios to run."""
    names = sorted(path.stem for path in (HERE / "scenarios").glob("*.py"))
    if options.only:
        chosen = options.only.split(",")
        if unknown := [name for name in chosen if name not in names]:
            sys.exit(f"--only {','.join(unknown)}: no such scenario; expected {', '.join(names)}")
        return {name: importlib.import_module(f"scenarios.{name}") for name in chosen}
    modules = {name: importlib.import_module(f"scenarios.{name}") for name in names}
    if options.short:
        return {name: module for name, module in modules.items() if getattr(module, "SHORT", None)}
    return {name: module for name, module in modules.items() if getattr(module, "WEIGHT", 1)}


def durations(options, modules):
    """{name: seconds of load}"""
    if options.short:
        return {name: float(getattr(module, "SHORT", 10)) for name, module in modules.items()}
    weights = {name: getattr(module, "WEIGHT", 1) or 1 for name, module in modules.items()}
    return {name: 60 * options.minutes * weight / sum(weights.values()) for name, weight in weights.items()}


async def run_one(name, module, seconds, options):
    """The results of one scenario and what it publishes; a scenario that exceeds its timeout is cancelled."""
    context = Context(name, seconds, options)
    timeout = TIMEOUT_SECONDS + seconds * getattr(module, "TIMEOUT_FACTOR", 0)
    try:
        async with asyncio.timeout(seconds + timeout) as limit:
            return list(await module.run(context)), context.published
    except Exception as error:
        traceback.print_exc()
        reason = f"not finished {timeout:.0f} s after its load" if limit.expired() else f"{type(error).__name__}: {str(error)[:300]}"
    return [Result("the scenario completes", "it does", {"error": reason}, False)], context.published


async def run_all(options):
    loop = asyncio.get_running_loop()
    # Stacks block threads while they wait for processes, so there are more threads than processors.
    loop.set_default_executor(concurrent.futures.ThreadPoolExecutor(THREADS))
    # Stacks are stopped in `finally`, so SIGTERM must cancel the task as Ctrl-C does.
    loop.add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)
    # Ends a long run early: storm stops after the current stack and publishes what was counted until then.
    stopping = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, stopping.set)
    options.stop_requested = stopping.is_set
    modules = select(options)
    times = durations(options, modules)
    results, published = {}, {}
    for name, module in modules.items():
        begun = time.monotonic()
        print(f"{name}: {times[name]:.0f} s of load", flush=True)
        results[name], found = await run_one(name, module, times[name], options)
        published |= found
        held = sum(result.held for result in results[name])
        print(f"   {held} of {len(results[name])} held, {time.monotonic() - begun:.0f} s", flush=True)
    return results, times, published


def repeat_command(name, seconds, options):
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
    broken = {name: found for name, found in results.items() if not all(result.held for result in found)}
    commands = {name: repeat_command(name, times[name], options) for name in results}
    repeat = [f"repeat with: {commands[name]}" for name in broken]
    text = "\n".join([f"Seed {options.seed}.", "", table(results), "", *repeat])
    VAR.mkdir(parents=True, exist_ok=True)
    (VAR / "report.md").write_text(text + "\n", encoding="utf-8")
    publish.write(DOCS if options.publish else VAR, results, published.get("storm", []), options.seed, commands)
    print(text)
    every = [result for found in results.values() for result in found]
    held = sum(result.held for result in every)
    # In pytest's format, so that scripts/test counts promises as tests.
    print(f"{held} passed, {len(every) - held} failed in {time.monotonic() - begun:.1f}s", flush=True)
    return 1 if broken or not every else 0


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main(sys.argv[1:]))
