"""Judges a row by its own history: the service says in which order all was done, and that order must explain everything.

Where it does, the row's history is linearizable, and complete: each change that was acknowledged has one entry, each entry
has a change that was sent, none follows one that began after it had ended, each holds the whole state before it.
"""

import collections
import math

from history import DONE, UNKNOWN

# {what an entry says: the kind of operation}
KINDS = {"create": "create", "replace": "write", "patch": "write", "delete": "delete", "restore": "restore"}


def faults(operations, entries, current):
    """Sentences about what the entries do not explain.

    `entries` are as the service lists them, but oldest first, with versions as texts, and `name` for the name before;
    `current` is the name that the row has now, None when it is deleted.
    """
    return list(_Chain(operations, entries, current).faults())


class _Chain:
    def __init__(self, operations, entries, current):
        self._operations, self._entries = operations, entries
        # What the row was called after each entry is what the next one found.
        self._names = [entry["name"] for entry in entries[1:]] + [current]
        self._place = {entry["versionAfter"]: place for place, entry in enumerate(entries) if entry["versionAfter"]}
        self._deleted = {entry["versionBefore"]: place for place, entry in enumerate(entries) if entry["operation"] == "delete"}

    def faults(self):
        yield from self._is_a_chain()
        found = {}
        for op in self._operations:
            if op.outcome == DONE and op.kind not in ("read", "delete"):
                place = self._place.get(op.version)
                if place is None:
                    yield f"acknowledged and not in the history: {op}"
                    continue
                found[place] = op
                yield from self._is_as_answered(place, op)
        yield from self._were_sent(found)
        yield from self._deletions_are_there()
        yield from self._order(found)

    def _is_a_chain(self):
        before, versions = None, set()
        for place, entry in enumerate(self._entries):
            if entry["versionBefore"] != before:
                yield f"entry {place} follows version {entry['versionBefore']} and not {before}"
            before = entry["versionAfter"]
            if (before is None) != (entry["operation"] == "delete"):
                yield f"entry {place}, {entry['operation']}, has version {before} after it"
            if before is not None and before in versions:
                yield f"version {before} was given twice"
            versions.add(before)
            if (entry["name"] is None) != (entry["versionBefore"] is None):
                yield f"entry {place}, {entry['operation']}, holds {entry['name']} as the state before it"

    def _is_as_answered(self, place, op):
        entry = self._entries[place]
        if KINDS.get(entry["operation"]) != op.kind:
            yield f"entry {place} is called {entry['operation']}: {op}"
        if op.principal and entry["changedBy"] != op.principal:
            yield f"entry {place} names {entry['changedBy']} and not {op.principal}: {op}"
        name = self._names[place]
        if name is not None and name != op.name:
            yield f"entry {place + 1} found {name}: {op}"

    def _were_sent(self, found):
        """Entries without an answered change are those of changes whose answer was lost, one each."""
        lost = collections.Counter((op.kind, op.name if op.kind == "write" else None) for op in self._operations if op.outcome == UNKNOWN)
        for place, entry in enumerate(self._entries):
            kind = KINDS.get(entry["operation"])
            if place in found or kind == "delete":
                continue
            name = self._names[place] if kind == "write" else None
            if not lost[kind, name]:
                yield f"entry {place}, {entry['operation']} to {self._names[place]}, was answered otherwise, or never sent"
            lost[kind, name] -= 1

    def _deletions_are_there(self):
        done = sum(op.kind == "delete" and op.outcome == DONE for op in self._operations)
        unknown = sum(op.kind == "delete" and op.outcome == UNKNOWN for op in self._operations)
        if not done <= len(self._deleted) <= done + unknown:
            yield f"{len(self._deleted)} deletions, of {done} acknowledged and {unknown} that were not"

    def _order(self, found):
        """Nothing may stand behind what began after it had ended; reads stand between the entries."""
        placed = [(place, op) for place, op in found.items()]
        for op in self._operations:
            if op.outcome == DONE and op.kind == "read":
                place = self._place.get(op.version)
                if place is None:
                    yield f"read, and not in the history: {op}"
                    continue
                if self._names[place] not in (op.name, None):
                    yield f"entry {place + 1} found {self._names[place]}: {op}"
                placed.append((place + 0.5, op))
            elif op.outcome == DONE and op.kind == "delete" and op.expected in self._deleted:
                placed.append((self._deleted[op.expected], op))
        placed.sort(key=lambda one: one[0])
        latest, at_same = None, []
        place_of_same = -math.inf
        for place, op in placed:
            if place != place_of_same:
                latest = max([*at_same, *([latest] if latest else [])], key=lambda one: one.begun, default=None)
                at_same, place_of_same = [], place
            if latest and op.ended < latest.begun:
                yield f"ended before what stands in front of it began: {op}; {latest}"
            at_same.append(op)
