"""What a scenario is given and what it answers with; and the table made of the answers."""

import dataclasses
import random
import time


@dataclasses.dataclass(frozen=True)
class Row:
    """One promise and what was counted of it."""

    what: str
    # In words, with its number: "0", "≥ 0.7 × of the rate before".
    goal: str
    # What was counted, by name: numbers or texts, in the order in which they are shown.
    counted: dict
    held: bool


class Context:
    """What a scenario may depend on: its own random numbers, its time, and the numbers given on the command line."""

    def __init__(self, name, seconds, options):
        self.name, self.seconds = name, seconds
        # Of its own, so that a scenario makes the same choices whether it runs alone or among others.
        self.random = random.Random(f"{options.seed}:{name}")
        self.short = options.short
        # A part of the names of the faults that are injected; None for all.
        self.fault = options.fault
        self.published = {}
        self.told_to_end = options.told_to_end
        self._numbers = options.numbers
        self._end = None

    def number(self, name, default):
        """A whole number given as NAME=VALUE, such as WRITES or ROWS."""
        return self._numbers.get(name, default)

    def publish(self, name, found):
        """For docs/reliability.md, which report.py makes of it."""
        self.published[name] = found

    def start_clock(self):
        """The stack runs, the load begins: what a start takes does not shorten the time of the load."""
        self._end = time.monotonic() + self.seconds

    def time_left(self):
        """Seconds until the load should end, never below 0."""
        if self._end is None:
            self.start_clock()
        return max(0.0, self._end - time.monotonic())


def milliseconds(seconds):
    """"p50 12 ms, max 80 ms" of a list of seconds."""
    if not seconds:
        return "none"
    ordered = sorted(seconds)
    return f"p50 {ordered[len(ordered) // 2] * 1000:.0f} ms, max {ordered[-1] * 1000:.0f} ms"


def table(results):
    """Markdown of {scenario: rows}."""
    lines = ["| scenario | promise | goal | counted | held |", "| --- | --- | --- | --- | --- |"]
    for name, rows in results.items():
        for row in rows:
            counted = "; ".join(f"{what} {_shown(value)}" for what, value in row.counted.items())
            cells = [name, row.what, row.goal, counted, "yes" if row.held else "**no**"]
            lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)


def _shown(value):
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
