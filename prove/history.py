"""Checks the operations of several clients on one row: whether some order of all of them explains every answer.

Each state of a row has a version (its ETag) and a name that no other change writes, so a read identifies the write that it
observed. Linearizability of such histories is checked without search (Gibbons and Korach, "Testing shared memories", 1997):
the times at which a state was certainly current form a zone, and zones must not overlap. Versions are compared for equality
only. The conditions checked are necessary for linearizability, not sufficient: there are no false positives, but false
negatives. A restore makes an earlier name current again, so rows with restores are checked by search.py and chain.py alone.
"""

import bisect
import collections
import dataclasses
import math

# The outcome of a request.
DONE = "done"  # answered 2xx
UNKNOWN = "unknown"  # no answer, or one with an unknown outcome: applied at any time after its begin, or never
NOT_DONE = "not done"  # answered with an error that states that nothing was changed
PRECONDITION_FAILED = "precondition failed"  # 412
NOT_FOUND = "not found"  # 404
CONFLICT = "conflict"  # 409: a restore of a row that is not deleted


@dataclasses.dataclass(slots=True)
class Operation:
    """One request on the row; times are seconds of one monotonic clock."""

    kind: str  # create, read, write, delete, restore
    begun: float
    ended: float
    outcome: str
    # The version of the state that was read, or written according to the answer.
    version: str | None = None
    # The name that was written or read.
    name: str | None = None
    # The version in If-Match.
    expected: str | None = None
    # The version to restore; None for the state before the deletion.
    source: str | None = None
    # The principal, as the history names it.
    principal: str | None = None

    def __str__(self):
        condition = f" if {self.expected}" if self.expected else ""
        source = f" of {self.source}" if self.source else ""
        shown = f" {self.name} {self.version}" if self.name else ""
        return f"{self.kind}{condition}{source}{shown}: {self.outcome}, {self.begun:.4f} to {self.ended:.4f}"


def anomalies(operations):
    """Descriptions of what no order explains; empty if there is no anomaly."""
    history = _History(operations)
    return [
        *history.phantom_states(),
        *history.out_of_order(),
        *history.lost_updates(),
        *history.wrong_precondition_failures(),
        *history.wrong_absences(),
    ]


class _History:
    def __init__(self, operations):
        self._operations = operations
        self._writers = {op.name: op for op in operations if op.kind in ("create", "write")}
        self._reads = [op for op in operations if op.kind == "read" and op.outcome == DONE]
        self._deletes = [op for op in operations if op.kind == "delete" and op.outcome in (DONE, UNKNOWN)]
        # The version that was observed for each writer's state.
        self._versions = {op.name: op.version for op in self._writers.values() if op.outcome == DONE}
        for read in self._reads:
            self._versions.setdefault(read.name, read.version)
        self._writer_of = {version: self._writers.get(name) for name, version in self._versions.items()}
        # {version: operations that observed it as the current one}
        self._uses = collections.defaultdict(list)
        for op in operations:
            if op.outcome == DONE and (op.expected or op.kind == "read"):
                self._uses[op.expected or op.version].append(op)

    def phantom_states(self):
        """States that were never written, whose write was answered as not applied, or that exist twice."""
        for read in self._reads:
            writer = self._writers.get(read.name)
            if writer is None:
                yield f"read a state that was never written: {read}"
            elif writer.outcome not in (DONE, UNKNOWN):
                yield f"applied although answered as not applied: {writer}; {read}"
            elif self._versions[read.name] != read.version:
                yield f"applied twice: {writer}; {read}"
            elif read.ended < writer.begun:
                yield f"read before it was written: {writer}; {read}"

    def out_of_order(self):
        """Overlapping zones: a state that was current, was replaced, and was current again."""
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
                yield f"stale: the state of the first was current both before and after that of the second: {before[2]}; {after[2]}"
        begins = [zone[0] for zone in forward]
        for begin, end, writer in backward:
            index = bisect.bisect_left(begins, begin) - 1
            if index >= 0 and end < forward[index][1]:
                yield f"stale: written while another state was current throughout: {writer}; {forward[index][2]}"

    def lost_updates(self):
        """Two conditional changes of the same state, both acknowledged."""
        changed = {}
        for op in self._operations:
            if op.expected and op.outcome == DONE:
                if first := changed.get(op.expected):
                    yield f"lost update, both changed the same state: {first}; {op}"
                changed[op.expected] = op

    def wrong_precondition_failures(self):
        """412 although the expected version was current throughout, or although no other change can have replaced it."""
        last_use = {version: max(op.begun for op in uses) for version, uses in self._uses.items()}
        changes = sorted(
            (op for op in self._operations if op.kind == "write" and op.outcome in (DONE, UNKNOWN)),
            key=lambda op: op.begun,
        )
        begins = [op.begun for op in changes]
        # For each prefix of that list the two that ended last: one of them may be the writer of the state itself.
        latest = [()]
        for op in changes:
            latest.append(tuple(sorted((*latest[-1], op), key=lambda op: -op.ended)[:2]))
        for op in self._operations:
            if op.outcome != PRECONDITION_FAILED:
                continue
            if last_use.get(op.expected, -math.inf) > op.ended:
                yield f"412 although the expected version was current later: {op}"
                continue
            writer = self._writer_of.get(op.expected)
            since = writer.begun if writer else -math.inf
            others = latest[bisect.bisect_left(begins, op.ended)]
            if not any(other is not writer and other.ended > since for other in others):
                yield f"412 although no other change can have replaced the expected version: {op}"

    def wrong_absences(self):
        """404 although no deletion can have been applied, or although the row existed later; and deletions without effect."""
        deleted_at = min((op.ended for op in self._deletes if op.outcome == DONE), default=math.inf)
        first_delete = min((op.begun for op in self._deletes), default=math.inf)
        seen = [op for op in self._operations if op.kind != "delete" and op.outcome == DONE]
        last_seen = max((op.begun for op in seen), default=-math.inf)
        if last_seen > deleted_at:
            yield f"present after its deletion: {max(seen, key=lambda op: op.begun)}"
        done = [op for op in self._deletes if op.outcome == DONE]
        if len(done) > 1:
            yield f"deleted twice: {done[0]}; {done[1]}"
        for op in self._operations:
            if op.outcome == NOT_FOUND:
                if first_delete >= op.ended:
                    yield f"404 although no deletion can have been applied: {op}"
                elif last_seen > op.ended:
                    yield f"404 although the row was present later: {op}"
            elif op.outcome == PRECONDITION_FAILED and op.begun > deleted_at:
                yield f"412 after the row was deleted: {op}"
