"""The second checker of a row: searches for an order of all operations on it that explains each answer.

It shares only the record format with history.py. Events are processed in the order of their times; the search keeps all
configurations, each a possible state of the row with the pending operations that are already linearized in it (Wing and Gong
1993, with Lowe's cache of visited configurations, 2017). An operation is linearized only when an answer requires it; one without
an answer stays pending. There are no false positives, and Undecided is raised at BOUND.
"""

import collections

BOUND = 200_000

# The state of a row: whether it exists, its name (kept after a deletion), and its version. The version is None if no answer
# showed it: then it differs from all those that were shown.
State = collections.namedtuple("State", "exists name version")
NEVER = State(False, None, None)
# The name after a write whose answer was lost and whose name was never read.
UNSEEN = ""


class Undecided(Exception):
    """The search exceeds BOUND configurations."""


def unexplained(operations, bound=BOUND):
    """The first operation that no order explains; None if there is an order of all. Raises Undecided."""
    return _Search(operations, bound).run()


class _Search:
    def __init__(self, operations, bound):
        # Reads without an answer and requests that were not executed carry no information.
        self._operations = [
            op
            for op in operations
            if op.outcome in ("done", "precondition failed", "not found", "conflict") or op.outcome == "unknown" and op.kind != "read"
        ]
        self._bound = bound
        changes = [op for op in self._operations if op.kind not in ("read", "delete")]
        self._shown = {op.version for op in changes if op.outcome == "done"}
        self._names = {op.version: op.name for op in operations if op.version}
        self._visible = {op.name for op in operations if op.outcome == "done" and op.kind in ("read", "restore")}
        # Versions of writes whose answer was lost, where a read showed them and no restore can have assigned them.
        self._read_as = {}
        if not any(op.kind == "restore" and op.outcome in ("done", "unknown") for op in changes):
            self._read_as = {op.name: op.version for op in operations if op.kind == "read" and op.version}

    def run(self):
        events = []
        for number, op in enumerate(self._operations):
            events.append((op.begun, 0, number))
            if op.outcome != "unknown":
                events.append((op.ended, 1, number))
        pending, tried = [], 0
        configurations = {(NEVER, frozenset())}
        for _, is_end, number in sorted(events):
            if not is_end:
                pending.append(number)
                continue
            before, configurations = configurations, set()
            for state, linearized in before:
                if number in linearized:
                    configurations.add((state, linearized - {number}))
                    continue
                tried += self._linearize(number, state, linearized, pending, configurations)
                if tried > self._bound:
                    raise Undecided(f"more than {self._bound:,} configurations")
            if not configurations:
                return self._operations[number]
            pending.remove(number)
        return None

    def _linearize(self, number, state, linearized, pending, configurations):
        """Adds to `configurations` those reached by linearizing `number`, after other pending operations if necessary."""
        op, tried = self._operations[number], 0
        start = state, self._with_observations(state, linearized, pending)
        open_, known = [start], {start}
        while open_:
            state, linearized = open_.pop()
            tried += 1
            if number in linearized:
                configurations.add((state, linearized - {number}))
                continue
            after = self._after(op, state)
            if after is not None:
                configurations.add((after, linearized))
            alike = set()
            for other in pending:
                if other == number or other in linearized:
                    continue
                change = self._operations[other]
                if change.outcome == "unknown":
                    # Of operations with the same effect that no read distinguishes, only the first is tried.
                    name = change.name if change.name in self._visible else None
                    same = change.kind, change.expected, change.source, name
                    if same in alike:
                        continue
                    alike.add(same)
                after = self._after(change, state)
                if after is None or after == state:
                    continue
                reached = after, self._with_observations(after, linearized | {other}, pending)
                if reached not in known:
                    known.add(reached)
                    open_.append(reached)
            if tried > self._bound:
                break
        return tried

    def _with_observations(self, state, linearized, pending):
        """Linearizes pending operations that match the state and do not change it: delaying them cannot help."""
        seen = (
            number
            for number in pending
            if number not in linearized
            and self._operations[number].outcome != "unknown"
            and self._after(self._operations[number], state) == state
        )
        return linearized.union(seen)

    def _after(self, op, state):
        """The state after the operation; None if the state is inconsistent with its answer."""
        outcome = op.outcome
        if outcome == "not found":
            return None if state.exists or op.kind == "restore" else state
        if outcome == "conflict":
            return state if state.exists else None
        if outcome == "precondition failed":
            if not state.exists:
                return state if op.kind == "restore" else None
            return None if state.version == op.expected else state
        if op.kind == "create":
            return State(True, op.name, op.version) if state == NEVER else None
        if op.kind == "read":
            matches = state.exists and self._may_be(state, op.version) and state.name in (op.name, None)
            return State(True, op.name, op.version) if matches else None
        if op.expected and not (state.exists and self._may_be(state, op.expected)):
            return None
        if op.kind == "restore":
            return self._restored(op, state)
        if not state.exists:
            return None
        if op.kind == "delete":
            return State(False, state.name, None)
        if outcome == "unknown":
            return State(True, op.name if op.name in self._visible else UNSEEN, self._read_as.get(op.name))
        return State(True, op.name, op.version)

    def _restored(self, op, state):
        if state == NEVER or state.exists and op.source is None:
            return None
        name = state.name if op.source is None else self._names.get(op.source)
        if op.outcome == "unknown":
            return State(True, name, None)
        return State(True, op.name, op.version) if name in (op.name, None) else None

    def _may_be(self, state, version):
        """A version that was never shown may equal any version that no acknowledged change received."""
        if state.version is not None:
            return state.version == version
        return version not in self._shown and (state.name is None or self._names.get(version) in (None, state.name))
