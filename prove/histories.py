"""Checks the histories of rows while prove/load writes them, in a process of its own: as many operations as the load sends.

    prove-load … | histories.py SEARCH SEED BEGIN

Each row is checked by zones (history.py), or by search (search.py) if it was restored. Each SEARCH-th row, as chosen by SEED, is checked
by both. Times in the lines count from BEGIN on the monotonic clock. For each line that it reads it writes one with the counts so far,
the violations that the line shows, and the states that the row may have after it (JSON).
"""

import collections
import json
import random
import sys

import checker
from history import DONE, NOT_DONE, NOT_FOUND, UNKNOWN, Operation
from ledger import Ledger


def operations_of(fields, begin=0.0):
    """The operations of a line: lists in the order of the members of Operation, times in nanoseconds."""
    return [
        Operation(kind, begin + begun / 1e9, float("inf") if ended is None else begin + ended / 1e9, *more)
        for kind, begun, ended, *more in fields
    ]


class Histories:
    """Call `add` for each line; `counted` and `ledger.violations` then hold the results."""

    def __init__(self, search, seed, begin=0.0):
        self._search, self._seed, self._begin = search, seed, begin
        self.counted, self.ledger = collections.Counter(), Ledger(random.Random(seed))

    def add(self, line):
        """What the scenario must know of one line."""
        record = json.loads(line)
        if "violation" in record:
            self.ledger.violation(*record["violation"])
        if "row" not in record:
            return {key: value for key, value in record.items() if key == "summary"}
        path, operations = record["path"], operations_of(record["operations"], self._begin)
        is_searched = (record["row"] + self._seed) % self._search == 0
        self.counted["rows"] += 1
        # Reads without an answer and requests that were not executed carry no information.
        self.counted["operations"] += sum(op.outcome != NOT_DONE and (op.outcome != UNKNOWN or op.kind != "read") for op in operations)
        self._check_versions(path, operations)
        checker.check_row(self.ledger, path, operations, self.counted, is_searched)
        names, may_be_absent = states_after(operations)
        if not names and not may_be_absent:
            self.ledger.violation("errors", f"{path} cannot be read after the last fault: {operations[-1]}")
        found = {"path": path, "names": sorted(names), "absent": may_be_absent}
        return found | ({"operations": record["operations"]} if is_searched else {})

    def _check_versions(self, path, operations):
        states = {}
        for op in operations:
            if op.outcome == DONE and op.version and states.setdefault(op.version, op.name) != op.name:
                self.ledger.violation("versions", f"{path} {op.version} was {states[op.version]} and is {op.name}", op.ended)


def states_after(operations):
    """(names, whether it may be absent): what the row can be when nothing more is sent to it. The last operation is a read; only
    those without a known outcome can still take effect after it."""
    last = operations[-1]
    if last.kind != "read" or last.outcome not in (DONE, NOT_FOUND):
        return set(), False
    names = {last.name} if last.outcome == DONE else set()
    unknown = [op for op in operations if op.outcome == UNKNOWN]
    names |= {op.name for op in unknown if op.kind == "write"}
    if any(op.kind == "restore" for op in unknown):
        names |= {op.name for op in operations if op.name}
    return names, last.outcome == NOT_FOUND or any(op.kind == "delete" for op in unknown)


def wrong_states(expected, present):
    """Descriptions of rows that are not as `states_after` allows: {uuid: (names, whether it may be absent)} and {uuid: row}."""
    for uuid, (names, may_be_absent) in expected.items():
        row = present.get(uuid)
        if row is None and not may_be_absent:
            yield f"{uuid} was {' or '.join(names)} and is missing"
        elif row is not None and row["name"] not in names:
            yield f"{uuid} was {' or '.join(names) or 'deleted'} and is {row['name']}"


def main(search, seed, begin):
    histories = Histories(int(search), int(seed), float(begin))
    for line in sys.stdin.buffer:
        found = histories.add(line)
        violations, histories.ledger.violations = histories.ledger.violations, []
        print(json.dumps({**found, "counted": histories.counted, "violations": violations}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
