"""The context that a scenario receives, the results that it returns, and the table of the results."""

import dataclasses
import random
import time


@dataclasses.dataclass(frozen=True)
class Result:
    """One promise and what was counted for it."""

    promise: str
    # Text with its number: "0", "≥ 0.7 × the rate before".
    goal: str
    # Numbers or texts by name, in the order in which they are shown.
    counted: dict
    held: bool


class Context:
    """The only inputs of a scenario: its random generator, its time, and the numbers given on the command line."""

    def __init__(self, name, seconds, options):
        self.name, self.seconds = name, seconds
        # One generator for each scenario, so that it makes the same choices whether or not others run.
        self.random = random.Random(f"{options.seed}:{name}")
        self.short = options.short
        # Only faults whose name contains this text are injected; None for all.
        self.fault = options.fault
        self.published = {}
        self.stop_requested = options.stop_requested
        self._numbers = options.numbers
        self._end = None

    def number(self, name, default):
        """An integer given as NAME=VALUE, such as WRITES or ROWS."""
        return self._numbers.get(name, default)

    def publish(self, name, found):
        """Stores results for docs/reliability.md, which publish.py writes."""
        self.published[name] = found

    def start_clock(self):
        """Called when the load begins, so that starting the stack does not shorten the load."""
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
    """{scenario: results} as a Markdown table."""
    lines = ["| scenario | promise | goal | counted | held |", "| --- | --- | --- | --- | --- |"]
    for name, found in results.items():
        for result in found:
            counted = "; ".join(f"{what} {_shown(value)}" for what, value in result.counted.items())
            cells = [name, result.promise, result.goal, counted, "yes" if result.held else "**no**"]
            lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines)


def _shown(value):
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
