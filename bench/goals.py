"""The goals, most of them ratios within one run, and whether they are met."""

import math
from statistics import median

from contestants import AXUM, CHECKOUT_PEERS, FLASK, NGINX, OURS, PGBENCH, PLAIN, TOKEN, TRACED, TRACED_SOME


def ratio(numerators, denominators, field="per_second"):
    """Median, lowest and highest of the rounds' ratios."""
    each = [a[field] / b[field] for a, b in zip(numerators, denominators) if b[field]] or [math.inf]
    return median(each), min(each), max(each)


def fastest(contestants, names):
    """The fastest of the measured contestants among `names`."""
    measured = [name for name in names if contestants.get(name)]
    return max(measured, key=lambda name: median(run["per_second"] for run in contestants[name]), default=None)


class Goals:
    def __init__(self, results, notes):
        self._results = results
        self._notes = notes
        self.checked = []

    def _add(self, what, goal, value=None, spread=None, met=None, unit=" ×"):
        shown = "" if value is None else f"{value:.2f}{unit}" if unit == " ×" else f"{value:.1f}{unit}"
        between = "" if spread is None else f"{spread[0]:.2f} to {spread[1]:.2f}"
        self.checked.append({"what": what, "goal": goal, "measured": shown, "range": between, "met": met})

    def ratio(self, what, bound, ours, other, of, field="per_second", at_most=False):
        """`ours` and `other` are (phase, contestant); `of` describes the other."""
        goal = f"{'≤' if at_most else '≥'} {bound} × {of}"
        mine = self._results.get(ours[0], {}).get(ours[1])
        theirs = self._results.get(other[0], {}).get(other[1])
        if not mine or not theirs:
            return self._add(what, goal)
        value, low, high = ratio(mine, theirs, field)
        # Compared as it is shown: a third digit is noise.
        shown = round(value, 2)
        return self._add(what, goal, value, (low, high), shown <= bound if at_most else shown >= bound)

    def amount(self, what, bound, unit, value):
        goal = f"≤ {bound}{unit}"
        if value is None:
            return self._add(what, goal)
        return self._add(what, goal, value, None, value <= bound, unit)

    def list_rows(self, what, bound):
        """Rows per second of the list, relative to those of psql \\copy."""
        lists = self._results.get("list", {}).get(OURS)
        copies = self._results.get("export", {}).get("psql \\copy, CSV")
        goal = f"≥ {bound} × rows/s of psql \\copy out"
        if not lists or not copies:
            return self._add(what, goal)
        scaled = [{"per_second": 891 * run["per_second"]} for run in lists]
        value, low, high = ratio(scaled, copies)
        return self._add(what, goal, value, (low, high), round(value, 2) >= bound)


def check(results, notes):
    goals = Goals(results, notes)
    get64, create = results.get("get 64", {}), results.get("create", {})
    ours64 = ("get 64", OURS)
    goals.ratio("get, 64 connections", 1.0, ours64, ("get 64", PGBENCH), "pgbench's prepared select")
    peer = fastest(get64, CHECKOUT_PEERS)
    goals.ratio("get, 64 connections", 1.5, ours64, ("get 64", peer), peer or "the fastest pooled peer")
    goals.ratio("get, 64 connections", 25, ours64, ("get 64", FLASK), FLASK)
    goals.ratio("get, 256 connections", 1.2, ("get 256", OURS), ("get 256", PGBENCH), "pgbench's prepared select")
    goals.ratio("get, 1 connection: p50", 1.3, ("get 1", OURS), ("get 1", AXUM),
                f"the plain pooled path ({AXUM})", "p50_us", at_most=True)  # fmt: skip
    goals.ratio("get through nginx, 64 connections", 0.65, ("get 64", NGINX), ours64, "direct")
    goals.ratio("get with a token", 0.95, ("token", TOKEN), ("token", OURS), "one without")
    goals.ratio("get, 1 % of requests traced", 0.98, ("traces", TRACED_SOME), ("traces", OURS), "none")
    goals.ratio("get, every request traced", 0.85, ("traces", TRACED), ("traces", OURS), "none")
    goals.ratio("create without history, 64 connections", 2.0, ("create", PLAIN), ("create", PGBENCH),
                "pgbench's insert, 64 clients")  # fmt: skip
    peer = fastest(create, CHECKOUT_PEERS)
    goals.ratio("create without history, 64 connections", 3, ("create", PLAIN), ("create", peer),
                peer or "the fastest pooled peer")  # fmt: skip
    # A ratio of rates, so the one without history comes first.
    goals.ratio("create with history: time", 1.4, ("create", PLAIN), ("create", OURS), "without", at_most=True)
    goals.list_rows("`/passengerlist`, 891 rows", 1.2)
    goals.ratio("`/passengerlist`, 891 rows", 10, ("list", OURS), ("list", FLASK), FLASK)
    copy = ("export", "psql \\copy, CSV")
    goals.ratio("export over HTTP, CSV", 0.9, ("export", "GET /passengerlist, CSV"), copy, "psql \\copy out")
    goals.ratio("`pycrudapi export`, CSV", 0.9, ("export", "pycrudapi export, CSV"), copy, "psql \\copy out")
    exports = results.get("export", {})
    growths = [run["rss_growth_mb"] for runs in exports.values() for run in runs if "rss_growth_mb" in run]
    goals.amount("export: growth of the server's memory", 16, " MiB", max(growths, default=None))
    goals.ratio("import without history, CSV", 0.9, ("import", "pycrudapi import, CSV"), ("import", "psql \\copy, CSV"),
                "psql \\copy in")  # fmt: skip
    sizes = list(results.get("growth", {})) or ["many rows", "few rows"]
    goals.ratio("get in a large table", 0.85, ("growth", sizes[0]), ("growth", sizes[-1]), f"with {sizes[-1]}")
    goals.ratio("page 10,000 by keyset", 0.95, ("page", "page 10,000"), ("page", "page 1"), "page 1")
    goals.ratio("get during an export: p99", 2, ("fairness", "during exports"), ("fairness", "alone"), "alone",
                "p99_us", at_most=True)  # fmt: skip
    goals.amount("memory under 64 connections", 25, " MiB", max(notes.get("peak_rss_mb", {}).values(), default=None))
    goals.amount("start to ready", 300, " ms", notes.get("ready_ms"))
    return goals.checked
