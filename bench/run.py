#!/usr/bin/env python3
"""`make bench`: measures the server, its peers and PostgreSQL's own tools side by side and writes the results.

One durable PostgreSQL, one table, 1,000,000 generated passengers. The contestants are measured interleaved, A B C A B C, for
several rounds, with the load generator on the same cores; figures are medians, ratios are medians of the ratio of each
round, so a temporary slowdown of the machine affects all contestants.

    run.py              write results.md, results.json and picture.svg to this folder
    run.py --quick      the same in three minutes, written to var/bench
    run.py --only get,list --seconds 3 --rounds 5 --against old-binary
                        only some phases, and another build of the server as an additional contestant
"""

import argparse
import contextlib
import os
import sys
import time

import contestants
import machine
import needs
import report
from phases import PHASES, Phases
from postgres import Cluster

HERE = os.path.dirname(os.path.abspath(__file__))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three minutes, written to var/bench")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the table (default 1000000)")
    parser.add_argument("--seconds", type=int, help="length of a measurement (default 8, quick 1)")
    parser.add_argument("--rounds", type=int, help="rounds of each measurement (default 3, quick 1)")
    parser.add_argument("--only", help=f"only these phases: {','.join(PHASES)}")
    parser.add_argument("--no-peers", action="store_true", help="measure the server and PostgreSQL's tools only")
    parser.add_argument("--binary", help="the server's binary (default: build it)")
    parser.add_argument("--against", help="another build of the server, as an additional contestant")
    options = parser.parse_args()
    options.seconds = options.seconds or (1 if options.quick else 8)
    options.rounds = options.rounds or (1 if options.quick else 3)
    # The results of a partial run are not published.
    options.partial = options.quick or bool(options.only or options.no_peers or options.against)
    return options


def main():
    options = arguments()
    chosen = options.only.split(",") if options.only else list(PHASES)
    if unknown := [name for name in chosen if name not in PHASES]:
        sys.exit(f"--only {','.join(unknown)}: no such phase; expected {', '.join(PHASES)}")
    os.makedirs(needs.VAR, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(contestants.LOG_FILE)
    needs.install("wrk", "nginx", "initdb", *([] if options.no_peers else ["npm"]))
    binary = os.path.abspath(options.binary) if options.binary else needs.build_server()
    if not options.no_peers:
        needs.build_peers()
    with Cluster() as cluster:
        run = Phases(options, cluster, binary)
        print(f"loading {options.rows:,} passengers", flush=True)
        run.load()
        about = machine.describe(cluster, options)
        for name in chosen:
            begun = time.monotonic()
            PHASES[name](run)
            print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
    folder = needs.VAR if options.partial else HERE
    report.write(folder, about, run.results, run.notes)
    print(f"see {os.path.relpath(folder, needs.ROOT)}/results.md")


if __name__ == "__main__":
    main()
