"""Writes the results: results.json (everything), results.md (ratios first) and picture.svg."""

import json
from statistics import median

import goals
import picture
from contestants import OURS, PGBENCH_EIGHT, PGBENCH_SOCKET
from load import KEYS_PER_PACK

# In this order; phases that were not measured are omitted.
TABLES = {
    "get 1": "Get by key, 1 connection",
    "get 16": "Get by key, 16 connections",
    "get 64": "Get by key, 64 connections",
    "get 256": "Get by key, 256 connections",
    "token": "Get by key with a token of the service's own (AUTH=on), 64 connections",
    "growth": "Get by key in a large and in a small table, 64 connections",
    "page": "A page of 100 by keyset, near and far, 16 connections",
    "create": "Create, 64 connections, durable",
    "replace": "Replace, 64 connections, durable",
    "mix": "Nine gets to one create, 64 connections",
    "list": "`/passengerlist` with 891 rows, 64 connections",
    "export": "Export of the whole table (per row)",
    "import": "Import of the whole table (per row)",
    "fairness": "Get by key during exports of the whole table, 16 connections",
    "air quality": "Cached air quality, 64 connections",
    "traces": "Get by key, traces of no request, of one in a hundred and of each recorded, 64 connections",
    "access log": "Get by key with and without an access log, 64 connections",
}
BY_ROWS = ("export", "import")

METHOD = """\
{rows:,} generated passengers in a PostgreSQL started by the benchmark, with `fsync` and `synchronous_commit` on; \
autovacuum is off, and a checkpoint precedes each measurement of writes, so that neither affects only one \
contestant. The load comes from `wrk` (Lua scripts in `bench/lua`) and `pgbench -M prepared` on the same \
cores; all contestants connect to PostgreSQL over TCP on loopback. Contestants are measured interleaved, {rounds} \
rounds of {seconds} s each after a warm-up; figures are medians, ratios are medians of the ratio of each round, with \
the lowest and the highest. Peers run in their usual production setup: a process or thread per core, pools of \
10 connections, statements prepared once if their driver supports it; actix-web has one pipelined connection per \
thread. Access logs are off, unless the table says otherwise. Keys are drawn without repetition in a random \
order prepared beforehand: `wrk` reads them sequentially, and pgbench reads {keys} at a time from a table, whose time \
is subtracted; its latency is a mean. All clients request the same list and page, which \
pycrudapi reads once for concurrent requests; with 1 connection nothing is shared. CPU time is that of the \
process and its children, from `/proc/PID/stat`; peak memory is `VmHWM`, summed over processes.
"""


def figures(runs):
    """The medians over the rounds of a contestant."""
    found = {"per_second": median(run["per_second"] for run in runs)}
    for name in ("p50_us", "p99_us", "mean_us", "rss_growth_mb"):
        if name in runs[0]:
            found[name] = median(run[name] for run in runs)
    found["cpu_us"] = {name: median(run["cpu_us"][name] for run in runs) for name in runs[0]["cpu_us"]}
    if "rss_mb" in runs[0]:
        found["rss_mb"] = max(sum(run["rss_mb"].values()) for run in runs)
    return found


def write(folder, about, results, notes):
    checked = goals.check(results, notes)
    with open(f"{folder}/results.json", "w", encoding="utf-8") as file:
        json.dump(about | {"notes": notes, "goals": checked, "results": results}, file, indent=1)
        file.write("\n")
    with open(f"{folder}/results.md", "w", encoding="utf-8") as file:
        file.write(page(about, results, notes, checked))
    if "get 64" in results:
        omitted = (PGBENCH_SOCKET, PGBENCH_EIGHT)
        rates = {name: figures(runs)["per_second"] for name, runs in results["get 64"].items() if name not in omitted}
        with open(f"{folder}/picture.svg", "w", encoding="utf-8") as file:
            file.write(picture.draw(rates, about))


def page(about, results, notes, checked):
    machine, method = about["machine"], about["method"]
    lines = [
        "# Benchmark results",
        "",
        f"Written by `make bench` on {about['date']}; raw figures are in `results.json`.",
        "",
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}; "
        f"one flush to the disk takes {machine['flush_us']} µs.",
        "",
        "## Goals",
        "",
        "| what | goal | measured | lowest to highest | met |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    for goal in checked:
        met = {True: "yes", False: "**no**", None: "not measured"}[goal["met"]]
        lines.append(f"| {goal['what']} | {goal['goal']} | {goal['measured']} | {goal['range']} | {met} |")
    for phase, title in TABLES.items():
        if results.get(phase):
            lines += ["", f"## {title}", "", *table(phase, results[phase])]
    lines += ["", "## Notes", ""]
    lines += [f"- {name}: {value}" for name, value in notes.items()]
    lines += ["", "## Method", "", METHOD.format(keys=KEYS_PER_PACK, **method), "## Versions", ""]
    lines.append(", ".join(f"{name} {version}" for name, version in about["versions"].items()))
    return "\n".join(lines) + "\n"


def table(phase, contestants):
    """One row per contestant; the ratio is relative to ours, or to the first one if ours has no row."""
    unit = "rows/s" if phase in BY_ROWS else "requests/s"
    measured = {name: figures(runs) for name, runs in contestants.items() if runs}
    first = OURS if OURS in measured else next(iter(measured))
    parties = [
        party
        for party in ("server", "nginx", "postgres", "load generator")
        if any(party in row["cpu_us"] for row in measured.values())
    ]
    timed = any("p50_us" in row for row in measured.values())
    memory = any("rss_mb" in row or "rss_growth_mb" in row for row in measured.values())
    head = ["", f"of {first}", unit]
    if timed:
        head += ["p50 ms", "p99 ms"]
    head += [f"{'client' if party == 'load generator' else party} CPU µs" for party in parties]
    if memory:
        head.append("growth MiB" if phase in BY_ROWS else "peak MiB")
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for name, row in measured.items():
        ratio, _, _ = goals.ratio(contestants[name], contestants[first])
        cells = [name, f"{ratio:.2f}", f"{row['per_second']:,.0f}"]
        if timed:
            cells += [milliseconds(row.get("p50_us"), row.get("mean_us")), milliseconds(row.get("p99_us"))]
        cells += [f"{row['cpu_us'][party]:.1f}" if party in row["cpu_us"] else "" for party in parties]
        if memory:
            size = row.get("rss_mb", row.get("rss_growth_mb"))
            cells.append("" if size is None else f"{size:.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def milliseconds(microseconds, mean=None):
    if microseconds is None:
        return "" if mean is None else f"{mean / 1000:.2f} (mean)"
    return f"{microseconds / 1000:.2f}"
