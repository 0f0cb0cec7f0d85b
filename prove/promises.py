"""The promises under faults as results, and the log of a stack that broke one."""

import collections

from injector import RECOVERY_SECONDS
from publish import skipped
from scenario import Result, milliseconds
from stack import REPOSITORY

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


def promises(violations, details, texts=PROMISES):
    """One result for each topic in `details`, {topic: what was counted for it}."""
    for topic, counts in details.items():
        promise, goal = texts[topic]
        found = [description for one, _, description in violations if one == topic]
        counted = {**counts, "violations": len(found)}
        counted |= {str(number): description[:1500] for number, description in enumerate(sorted(set(found), key=len)[:3], 1)}
        yield Result(promise, goal, counted, not found and (topic != "linearizable" or counts.get("rows", 0) > 0))


def recovery(episodes):
    """The results of the faults themselves; `episodes` are of the class Injector."""
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


def print_progress(name, requests, episode):
    violations = collections.Counter(topic for topic, _, _ in episode.ledger.violations)
    summary = ", ".join(f"{topic} {n}" for topic, n in violations.items()) or "all held"
    print(f"   {name}: {requests}, {len(episode.injections)} faults, {summary}", flush=True)
    for topic in violations:
        print(f"      {topic}: {next(description for its, _, description in episode.ledger.violations if its == topic)}", flush=True)


def keep_log(name, episode, deployment):
    """Writes the injections, the violations and the logs of the service to var/prove if the episode has a violation or was slow."""
    if not episode.ledger.violations and all(injection.unavailable <= SLOW_SECONDS for injection in episode.injections):
        return
    start, folder = episode.timeline.start, REPOSITORY / "var" / "prove"
    lines = [f"{injection.begun - start:8.2f} to {injection.healed - start:.2f}, recovered {injection.recovered - start:.2f}: {injection.name}" for injection in episode.injections]
    lines += [f"{at - start:8.2f} {topic}: {description}" for topic, at, description in episode.ledger.violations]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join([*lines, "", deployment.log()]), encoding="utf-8")
    print(f"   kept: {folder / name}", flush=True)
