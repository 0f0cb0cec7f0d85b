"""Judges what several clients did to one row: whether some order of all of it explains every answer.

Each state of a row has a version (its ETag) and a name that no other change writes, so a read says whose write it saw.
With such histories linearizability is checked without search (Gibbons and Korach, "Testing shared memories", 1997): the
times at which a state was surely there form a zone, and zones must not lie in each other. Versions are compared for
equality only. What is checked is necessary for linearizability, not sufficient for it: what is reported is a fault.
A restore brings a name back, so rows with restores are for search.py and chain.py, which judge the others too.
"""

import bisect
import collections
import dataclasses
import math

# How a request ended.
DONE = "done"  # answered 2xx
UNKNOWN = "unknown"  # no answer, or one that says that its fate is unknown: at any time after its begin, or never
UNDONE = "undone"  # answered with an error that means that nothing was done
REFUSED = "refused"  # 412
MISSING = "missing"  # 404
PRESENT = "present"  # 409: it is not deleted, so there is nothing to bring back


@dataclasses.dataclass(slots=True)
class Operation:
    """One request on the row; times are seconds of one monotonic clock."""

    kind: str  # create, read, write, delete, restore
    begun: float
    ended: float
    outcome: str
    # Of the state that was written, by a write's answer, or read.
    version: str | None = None
    # What was written, or read.
    name: str | None = None
    # The version that If-Match named.
    expected: str | None = None
    # The version that a restore brings back; without one it is the state before the deletion.
    source: str | None = None
    # Who asked, as the history names them.
    principal: str | None = None

    def __str__(self):
        condition = f" if {self.expected}" if self.expected else ""
        source = f" of {self.source}" if self.source else ""
        shown = f" {self.name} {self.version}" if self.name else ""
        return f"{self.kind}{condition}{source}{shown}: {self.outcome}, {self.begun:.4f} to {self.ended:.4f}"


def faults(operations):
    """Sentences about what no order explains; empty when all is well."""
    history = _History(operations)
    return [
        *history.answered_otherwise(),
        *history.out_of_order(),
        *history.lost_updates(),
        *history.wrong_refusals(),
        *history.wrong_absences(),
    ]


class _History:
    def __init__(self, operations):
        self._operations = operations
        self._writers = {op.name: op for op in operations if op.kind in ("create", "write")}
        self._reads = [op for op in operations if op.kind == "read" and op.outcome == DONE]
        self._deletes = [op for op in operations if op.kind == "delete" and op.outcome in (DONE, UNKNOWN)]
        # The version that each writer's state was seen to have.
        self._versions = {op.name: op.version for op in self._writers.values() if op.outcome == DONE}
        for read in self._reads:
            self._versions.setdefault(read.name, read.version)
        self._writer_of = {version: self._writers.get(name) for name, version in self._versions.items()}
        # Those that needed a version to be the current one, and found it so.
        self._uses = collections.defaultdict(list)
        for op in operations:
            if op.outcome == DONE and (op.expected or op.kind == "read"):
                self._uses[op.expected or op.version].append(op)

    def answered_otherwise(self):
        """States that nobody wrote, or whose writer was told that nothing was done, or that exist twice."""
        for read in self._reads:
            writer = self._writers.get(read.name)
            if writer is None:
                yield f"read what nobody wrote: {read}"
            elif writer.outcome not in (DONE, UNKNOWN):
                yield f"carried out although answered otherwise: {writer}; {read}"
            elif self._versions[read.name] != read.version:
                yield f"carried out twice: {writer}; {read}"
            elif read.ended < writer.begun:
                yield f"read before it was written: {writer}; {read}"

    def out_of_order(self):
        """Zones that overlap: a state that was there, was replaced, and was there again."""
        forward, backward = [], []
        for version, writer in self._writer_of.items():
            if writer is None:
                continue
            cluster = [*self._uses.get(version, ()), writer]
            first_end = min(op.ended for op in cluster)
            last_begin = max(op.begun for op in cluster)
            if first_end < last_begin:
                forward.append((first_end, last_begin, writer))
            else:
                backward.append((last_begin, first_end, writer))
        forward.sort(key=lambda zone: zone[:2])
        for before, after in zip(forward, forward[1:]):
            if after[0] < before[1]:
                yield f"stale: the state of one was there both before and after the other's: {before[2]}; {after[2]}"
        begins = [zone[0] for zone in forward]
        for begin, end, writer in backward:
            place = bisect.bisect_left(begins, begin) - 1
            if place >= 0 and end < forward[place][1]:
                yield f"stale: written while another state was there throughout: {writer}; {forward[place][2]}"

    def lost_updates(self):
        """Two changes of the same state, each of which was told that it was the one."""
        changed = {}
        for op in self._operations:
            if op.expected and op.outcome == DONE:
                if first := changed.get(op.expected):
                    yield f"both changed the same state: {first}; {op}"
                changed[op.expected] = op

    def wrong_refusals(self):
        """412 although the state named was there throughout, or although nobody else can have changed it."""
        last_use = {version: max(op.begun for op in uses) for version, uses in self._uses.items()}
        changes = sorted(
            (op for op in self._operations if op.kind == "write" and op.outcome in (DONE, UNKNOWN)),
            key=lambda op: op.begun,
        )
        begins = [op.begun for op in changes]
        # The two that end last of each beginning of that list: one of them may be the writer of the state itself.
        latest = [()]
        for op in changes:
            latest.append(tuple(sorted((*latest[-1], op), key=lambda op: -op.ended)[:2]))
        for op in self._operations:
            if op.outcome != REFUSED:
                continue
            if last_use.get(op.expected, -math.inf) > op.ended:
                yield f"refused although its state was there later: {op}"
                continue
            writer = self._writer_of.get(op.expected)
            since = writer.begun if writer else -math.inf
            others = latest[bisect.bisect_left(begins, op.ended)]
            if not any(other is not writer and other.ended > since for other in others):
                yield f"refused although nobody else can have changed it: {op}"

    def wrong_absences(self):
        """404 although nobody can have deleted it, or although it was there later; and deletions that did not last."""
        gone_at = min((op.ended for op in self._deletes if op.outcome == DONE), default=math.inf)
        first_delete = min((op.begun for op in self._deletes), default=math.inf)
        seen = [op for op in self._operations if op.kind != "delete" and op.outcome == DONE]
        last_seen = max((op.begun for op in seen), default=-math.inf)
        if last_seen > gone_at:
            yield f"there after it was deleted: {max(seen, key=lambda op: op.begun)}"
        done = [op for op in self._deletes if op.outcome == DONE]
        if len(done) > 1:
            yield f"deleted twice: {done[0]}; {done[1]}"
        for op in self._operations:
            if op.outcome == MISSING:
                if first_delete >= op.ended:
                    yield f"missing although nobody else can have deleted it: {op}"
                elif last_seen > op.ended:
                    yield f"missing although it was there later: {op}"
            elif op.outcome == REFUSED and op.begun > gone_at:
                yield f"refused by a condition after it was deleted: {op}"
