"""docs/reliability.md: each fault with what it did to the service, and the promises that were counted meanwhile."""

import collections
import datetime
import os
import platform

import timeline_picture
from scenario import table

HEAD = """# Reliability

Written by `make prove`: clients change two resources at a steady rate while one thing after the other breaks; then everything
that they were told is compared with what there is. [Decision 0034](decisions/0034-faults-by-seed-and-three-judges.md) says how it is judged,
[operations](operations.md#seeing-it-hold) how to run it.

"""

EXPLANATION = """
- `away`: from the end of the fault (of PostgreSQL's own restart, where it restarted) until each entrance, nginx and each server past it, has
  made a row that was sent after that.
- `failed`: answers with that status from the beginning of the fault until then. Many are due to what lasts as long as the fault: while
  a table is locked, changes of it are told to come back.
- `not sent`: requests that found no connection.
- `no answer`: requests whose connection broke. Nobody knows whether they were carried out; clients find out by sending them again with
  their `Idempotency-Key`.

![Requests a second and their latency, with the faults]({picture})

Requests are due at a steady rate whether or not earlier ones were answered, and their latency counts from when they were due: a table
that is locked for three seconds is seconds of latency. The time between two stacks is left out.
"""


# Between what a run of storm writes and what those of other scenarios do: each is replaced by its own runs alone.
OTHERS = "\n## Other scenarios\n"


def write(folder, results, episodes, seed, commands):
    """Puts what was run in the place of what an earlier run has left in the folder. `commands` say how to run each again."""
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "reliability.md"
    before, _, sections = (page.read_text(encoding="utf-8") if page.exists() else HEAD).partition(OTHERS)
    others = dict(section.split("\n", 1) for section in sections.split("\n### ")[1:])
    for name, rows in results.items():
        if name == "storm":
            if not episodes:  # it did not run to its end
                continue
            image = folder / "reliability.svg"
            image.write_text(timeline_picture.draw([one.timeline for one in episodes]), encoding="utf-8")
            before = HEAD + _storm(rows, episodes, seed, commands[name], image.name)
        else:
            others[name] = f"\n{_where()} To repeat it:\n\n    {commands[name]}\n\n{table({name: rows})}\n"
    text = "".join(f"\n### {name}\n{section.rstrip()}\n" for name, section in sorted(others.items()))
    page.write_text(before + (OTHERS + text if text else ""), encoding="utf-8")


def _storm(rows, episodes, seed, command, image):
    requests = sum(one.ledger.counts.requests for one in episodes)
    blows = [blow for one in episodes for blow in one.blows]
    seconds = sum(point[0] for one in episodes for point in list(one.timeline.points())[-1:])
    said = (
        f"{len(blows):,} faults of {len({blow.name for blow in blows})} kinds, {requests:,} requests, {seconds / 60:.1f} minutes of load on "
        f"{len(episodes)} stacks, seed {seed}. {_where()} To repeat it:\n\n    {command}\n\n"
    )
    explained = EXPLANATION.format(picture=image)
    return f"{said}{_faults(episodes)}{_not_injected(episodes)}{explained}\n## Promises\n\n{table({'storm': rows})}\n"


def _where():
    """When, and on what machine."""
    memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    system = platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return f"{datetime.date.today()}, {_processor()}, {os.cpu_count()} cores, {memory} GiB, {system}."


def skipped(episodes):
    """{fault: why it was never injected}"""
    injected = {blow.name for one in episodes for blow in one.blows}
    return {name: why for one in episodes for name, why in one.skipped.items() if name not in injected}


def _not_injected(episodes):
    found = "; ".join(f"{name} ({why})" for name, why in sorted(skipped(episodes).items()))
    return f"\nNot injected on this machine: {found}.\n" if found else ""


def _processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _faults(episodes):
    """A line for each kind of fault."""
    blows, wrong = collections.defaultdict(list), collections.Counter()
    for one in episodes:
        for blow in one.blows:
            blows[blow.name].append(blow)
        for topic, at, _ in one.ledger.complaints:
            # What is noticed in the end belongs to the last fault before it was done.
            before = [blow.name for blow in one.blows if blow.begun <= at]
            wrong[before[-1] if before else "none", topic] += 1
    lines = [
        "| fault | times | requests | failed | away p50, ms | away max, ms | lost | doubled | not linearizable | other |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    names = sorted(blows) + (["none"] if any(name == "none" for name, _ in wrong) else [])
    for name in names:
        found = blows[name]
        counts = sum((collections.Counter(blow.counts) for blow in found), collections.Counter())
        requests = counts.pop("requests", 0)
        failed = ", ".join(f"{what} {n:,}" for what, n in counts.items()) or "none"
        away = sorted(blow.away * 1000 for blow in found) or [0]
        others = sum(n for (at, topic), n in wrong.items() if at == name and topic not in ("lost", "doubled", "linearizable"))
        numbers = [wrong[name, topic] for topic in ("lost", "doubled", "linearizable")]
        cells = [name, len(found), f"{requests:,}", failed, f"{away[len(away) // 2]:.0f}", f"{away[-1]:.0f}", *numbers, others]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"
