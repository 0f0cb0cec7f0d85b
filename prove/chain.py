"""Checks a row against the history that the service records for it: that order of changes must explain every answer.

If it does, the operations are linearizable and the history is complete: each acknowledged change has one entry, each entry
matches a request that was sent, no entry precedes a change that had completed before the entry's own request began, and each
entry holds the complete state before it.
"""

import collections
import math

from history import DONE, UNKNOWN

# {an entry's `operation`: Operation.kind}
KINDS = {"create": "create", "replace": "write", "patch": "write", "delete": "delete", "restore": "restore"}


def anomalies(operations, entries, current):
    """Descriptions of what the entries do not explain.

    `entries` are those that the service lists, but oldest first, with versions as text and the previous name as `name`;
    `current` is the row's current name, None when it is deleted.
    """
    return list(_Chain(operations, entries, current).anomalies())


class _Chain:
    def __init__(self, operations, entries, current):
        self._operations, self._entries = operations, entries
        # The name after an entry is the previous name of the next one.
        self._names = [entry["name"] for entry in entries[1:]] + [current]
        self._position = {entry["versionAfter"]: position for position, entry in enumerate(entries) if entry["versionAfter"]}
        self._deleted = {entry["versionBefore"]: position for position, entry in enumerate(entries) if entry["operation"] == "delete"}

    def anomalies(self):
        yield from self._check_versions()
        found = {}
        for op in self._operations:
            if op.outcome == DONE and op.kind not in ("read", "delete"):
                position = self._position.get(op.version)
                if position is None:
                    yield f"acknowledged but missing from the history: {op}"
                    continue
                found[position] = op
                yield from self._check_answer(position, op)
        yield from self._check_requests(found)
        yield from self._check_deletions()
        yield from self._check_order(found)

    def _check_versions(self):
        before, versions = None, set()
        for position, entry in enumerate(self._entries):
            if entry["versionBefore"] != before:
                yield f"entry {position} follows version {entry['versionBefore']}, expected {before}"
            before = entry["versionAfter"]
            if (before is None) != (entry["operation"] == "delete"):
                yield f"entry {position} ({entry['operation']}) has versionAfter {before}"
            if before is not None and before in versions:
                yield f"version {before} was assigned twice"
            versions.add(before)
            if (entry["name"] is None) != (entry["versionBefore"] is None):
                yield f"entry {position} ({entry['operation']}) has {entry['name']} as its previous state"

    def _check_answer(self, position, op):
        entry = self._entries[position]
        if KINDS.get(entry["operation"]) != op.kind:
            yield f"entry {position} has operation {entry['operation']}: {op}"
        if op.principal and entry["changedBy"] != op.principal:
            yield f"entry {position} has changedBy {entry['changedBy']}, expected {op.principal}: {op}"
        name = self._names[position]
        if name is not None and name != op.name:
            yield f"entry {position + 1} has previous state {name}: {op}"

    def _check_requests(self, found):
        """An entry without an acknowledged change must belong to a change with an unknown outcome, one entry for each."""
        unknown = collections.Counter((op.kind, op.name if op.kind == "write" else None) for op in self._operations if op.outcome == UNKNOWN)
        for position, entry in enumerate(self._entries):
            kind = KINDS.get(entry["operation"])
            if position in found or kind == "delete":
                continue
            name = self._names[position] if kind == "write" else None
            if not unknown[kind, name]:
                yield f"entry {position} ({entry['operation']} to {self._names[position]}) matches no request that can have been applied"
            unknown[kind, name] -= 1

    def _check_deletions(self):
        done = sum(op.kind == "delete" and op.outcome == DONE for op in self._operations)
        unknown = sum(op.kind == "delete" and op.outcome == UNKNOWN for op in self._operations)
        if not done <= len(self._deleted) <= done + unknown:
            yield f"{len(self._deleted)} deletions, expected {done} acknowledged and at most {unknown} with an unknown outcome"

    def _check_order(self, found):
        """An operation must not follow one that began after it had ended; reads are placed between the entries."""
        placed = [(position, op) for position, op in found.items()]
        for op in self._operations:
            if op.outcome == DONE and op.kind == "read":
                position = self._position.get(op.version)
                if position is None:
                    yield f"read but missing from the history: {op}"
                    continue
                if self._names[position] not in (op.name, None):
                    yield f"entry {position + 1} has previous state {self._names[position]}: {op}"
                placed.append((position + 0.5, op))
            elif op.outcome == DONE and op.kind == "delete" and op.expected in self._deleted:
                placed.append((self._deleted[op.expected], op))
        placed.sort(key=lambda one: one[0])
        latest, at_same = None, []
        position_of_same = -math.inf
        for position, op in placed:
            if position != position_of_same:
                latest = max([*at_same, *([latest] if latest else [])], key=lambda one: one.begun, default=None)
                at_same, position_of_same = [], position
            if latest and op.ended < latest.begun:
                yield f"real-time order violated, the first ended before the second began but follows it: {op}; {latest}"
            at_same.append(op)
