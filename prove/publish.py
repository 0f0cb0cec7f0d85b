"""Writes docs/reliability.md: the effect of each kind of fault, and the promises checked under the faults."""

import collections
import datetime
import os
import platform

import timeline_picture
from scenario import table

HEAD = """# Reliability

Written by `make prove`: clients change two resources at a constant rate while faults are injected one after the other; then every answer
is checked against the final state and the history of each row. [Decision 0034](decisions/0034-faults-by-seed-and-three-checkers.md) describes the
checkers, [operations](operations.md#fault-injection-tests) how to run it.

"""

EXPLANATION = """
- `unavailable`: from the end of the fault (from the end of PostgreSQL's own restart, if it restarted) until each endpoint, nginx and each
  server directly, has acknowledged a creation that was sent after that.
- `failed by status`: answers with that status from the beginning of the fault until then. Many are a direct effect of the fault: while a
  table is locked, changes to it are answered with 503 and `Retry-After`.
- `502` while servers are killed or restarted: nginx reaches each server through a link of the harness, which accepts connections while
  the server is down. nginx repeats a change only if no byte of it was sent, and cannot know that the link forwarded none. Without links
  rolling restarts fail no request: see `rollouts` below.
- `not sent`: requests for which no connection could be opened, for example directly to a server that is being restarted.
- `no answer`: requests whose connection broke. Their outcome is unknown; clients learn it by repeating them with the same
  `Idempotency-Key`.

![Requests per second and latency, with the faults marked]({picture})

Requests are due at a constant rate whether or not earlier ones were answered, and latency counts from the time they were due: a table
that is locked for three seconds causes seconds of latency. The time between two stacks is omitted.
"""

# Separates the results of storm from those of the other scenarios; a run replaces only the results of its own scenarios.
OTHERS = "\n## Other scenarios\n"


def write(folder, results, episodes, seed, commands):
    """Replaces the results of an earlier run in the folder. `commands` holds the command that repeats each scenario."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "reliability.md"
    before, _, sections = (page.read_text(encoding="utf-8") if page.exists() else HEAD).partition(OTHERS)
    others = dict(section.split("\n", 1) for section in sections.split("\n### ")[1:])
    for name, found in results.items():
        if name == "storm":
            if not episodes:  # it did not complete
                continue
            image = folder / "reliability.svg"
            image.write_text(timeline_picture.draw([one.timeline for one in episodes]), encoding="utf-8")
            before = HEAD + _storm(found, episodes, seed, commands[name], image.name)
        else:
            others[name] = f"\n{_date_and_machine()} To repeat it:\n\n    {commands[name]}\n\n{table({name: found})}\n"
    text = "".join(f"\n### {name}\n{section.rstrip()}\n" for name, section in sorted(others.items()))
    page.write_text(before + (OTHERS + text if text else ""), encoding="utf-8")


def _storm(results, episodes, seed, command, image):
    requests = sum(one.ledger.counts.requests for one in episodes)
    injections = [injection for one in episodes for injection in one.injections]
    seconds = sum(point[0] for one in episodes for point in list(one.timeline.points())[-1:])
    summary = (
        f"{len(injections):,} faults of {len({injection.name for injection in injections})} kinds, {requests:,} requests, {seconds / 60:.1f} minutes of load on "
        f"{len(episodes)} stacks, seed {seed}. {_date_and_machine()} To repeat it:\n\n    {command}\n\n"
    )
    explained = EXPLANATION.format(picture=image)
    return f"{summary}{_faults(episodes)}{_not_injected(episodes)}{explained}\n## Promises\n\n{table({'storm': results})}\n"


def _date_and_machine():
    """The date and the machine."""
    memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return f"{datetime.date.today()}, {_processor()}, {os.cpu_count()} cores, {memory} GiB, {system}."


def skipped(episodes):
    """{fault: the reason why it was never injected}"""
    injected = {injection.name for one in episodes for injection in one.injections}
    return {name: why for one in episodes for name, why in one.skipped.items() if name not in injected}


def _not_injected(episodes):
    found = "; ".join(f"{name} ({why})" for name, why in sorted(skipped(episodes).items()))
    return f"\nNot injected on this machine: {found}.\n" if found else ""


def _processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _faults(episodes):
    """The table with one line for each kind of fault."""
    injections, violations = collections.defaultdict(list), collections.Counter()
    for one in episodes:
        for injection in one.injections:
            injections[injection.name].append(injection)
        for topic, at, _ in one.ledger.violations:
            # A violation that the final check finds is attributed to the last fault before the operation.
            before = [injection.name for injection in one.injections if injection.begun <= at]
            violations[before[-1] if before else "none", topic] += 1
    lines = [
        "| fault | times | requests | failed by status | unavailable p50, ms | unavailable max, ms | lost | doubled | not linearizable | other |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    names = sorted(injections) + (["none"] if any(name == "none" for name, _ in violations) else [])
    for name in names:
        found = injections[name]
        counts = sum((collections.Counter(injection.counts) for injection in found), collections.Counter())
        requests = counts.pop("requests", 0)
        failed = ", ".join(f"{what} {n:,}" for what, n in counts.items()) or "none"
        unavailable = sorted(injection.unavailable * 1000 for injection in found) or [0]
        others = sum(n for (at, topic), n in violations.items() if at == name and topic not in ("lost", "doubled", "linearizable"))
        numbers = [violations[name, topic] for topic in ("lost", "doubled", "linearizable")]
        cells = [name, len(found), f"{requests:,}", failed, f"{unavailable[len(unavailable) // 2]:.0f}", f"{unavailable[-1]:.0f}", *numbers, others]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"
