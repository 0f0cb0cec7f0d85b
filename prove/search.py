"""The second judge of a row: looks for an order of everything that was done to it that explains each answer.

It shares nothing with history.py but the form of its records. Answers are gone through in the order of their times; kept are
all states that the row may be in then, each with the requests under way that it has taken already (Wing and Gong 1993, with
Lowe's memory of what was tried, 2017). A request is taken as late as possible: when an answer needs it. What was never
answered stays under way for good. Nothing that can be explained is reported, and where BOUND is reached it says so.
"""

import collections

BOUND = 200_000

# What the search knows of a row: whether it is there, what it is called (when it was last there, too), and its version. A
# version that no answer has told is None: it is some other one than all those that were told.
State = collections.namedtuple("State", "there name version")
NEVER = State(False, None, None)
# The name that a write gave whose answer was lost, when nobody has read it.
UNSEEN = ""


class Undecided(Exception):
    """More possibilities than BOUND."""


def unexplained(operations, bound=BOUND):
    """The first operation that no order explains; None when there is an order for all. Raises Undecided."""
    return _Search(operations, bound).run()


class _Search:
    def __init__(self, operations, bound):
        # What was read without an answer, or refused before it was looked at, says nothing.
        self._operations = [
            op
            for op in operations
            if op.outcome in ("done", "refused", "missing", "present") or op.outcome == "unknown" and op.kind != "read"
        ]
        self._bound = bound
        changes = [op for op in self._operations if op.kind not in ("read", "delete")]
        self._told = {op.version for op in changes if op.outcome == "done"}
        self._names = {op.version: op.name for op in operations if op.version}
        self._visible = {op.name for op in operations if op.outcome == "done" and op.kind in ("read", "restore")}
        # The versions of writes whose answer was lost, where a read has told them and no restore can have made them.
        self._read_as = {}
        if not any(op.kind == "restore" and op.outcome in ("done", "unknown") for op in changes):
            self._read_as = {op.name: op.version for op in operations if op.kind == "read" and op.version}

    def run(self):
        events = []
        for number, op in enumerate(self._operations):
            events.append((op.begun, 0, number))
            if op.outcome != "unknown":
                events.append((op.ended, 1, number))
        under_way, tried = [], 0
        possible = {(NEVER, frozenset())}
        for _, is_end, number in sorted(events):
            if not is_end:
                under_way.append(number)
                continue
            before, possible = possible, set()
            for state, taken in before:
                if number in taken:
                    possible.add((state, taken - {number}))
                    continue
                tried += self._take(number, state, taken, under_way, possible)
                if tried > self._bound:
                    raise Undecided(f"more than {self._bound:,} possibilities")
            if not possible:
                return self._operations[number]
            under_way.remove(number)
        return None

    def _take(self, number, state, taken, under_way, possible):
        """Puts into `possible` all that is so once `number` was taken, others before it if need be."""
        op, tried = self._operations[number], 0
        start = state, self._with_observations(state, taken, under_way)
        open_, known = [start], {start}
        while open_:
            state, taken = open_.pop()
            tried += 1
            if number in taken:
                possible.add((state, taken - {number}))
                continue
            after = self._after(op, state)
            if after is not None:
                possible.add((after, taken))
            alike = set()
            for other in under_way:
                if other == number or other in taken:
                    continue
                change = self._operations[other]
                if change.outcome == "unknown":
                    # Of those that do the same and that nobody has told apart, the first stands for all.
                    name = change.name if change.name in self._visible else None
                    same = change.kind, change.expected, change.source, name
                    if same in alike:
                        continue
                    alike.add(same)
                after = self._after(change, state)
                if after is None or after == state:
                    continue
                reached = after, self._with_observations(after, taken | {other}, under_way)
                if reached not in known:
                    known.add(reached)
                    open_.append(reached)
            if tried > self._bound:
                break
        return tried

    def _with_observations(self, state, taken, under_way):
        """What the state answers as it was answered, and what does not change it, is taken at once: waiting gains nothing."""
        seen = (
            number
            for number in under_way
            if number not in taken
            and self._operations[number].outcome != "unknown"
            and self._after(self._operations[number], state) == state
        )
        return taken.union(seen)

    def _after(self, op, state):
        """The state after it, answered as it was; None when it cannot have been answered so."""
        outcome = op.outcome
        if outcome == "missing":
            return None if state.there or op.kind == "restore" else state
        if outcome == "present":
            return state if state.there else None
        if outcome == "refused":
            if not state.there:
                return state if op.kind == "restore" else None
            return None if state.version == op.expected else state
        if op.kind == "create":
            return State(True, op.name, op.version) if state == NEVER else None
        if op.kind == "read":
            is_it = state.there and self._may_be(state, op.version) and state.name in (op.name, None)
            return State(True, op.name, op.version) if is_it else None
        if op.expected and not (state.there and self._may_be(state, op.expected)):
            return None
        if op.kind == "restore":
            return self._restored(op, state)
        if not state.there:
            return None
        if op.kind == "delete":
            return State(False, state.name, None)
        if outcome == "unknown":
            return State(True, op.name if op.name in self._visible else UNSEEN, self._read_as.get(op.name))
        return State(True, op.name, op.version)

    def _restored(self, op, state):
        if state == NEVER or state.there and op.source is None:
            return None
        name = state.name if op.source is None else self._names.get(op.source)
        if op.outcome == "unknown":
            return State(True, name, None)
        return State(True, op.name, op.version) if name in (op.name, None) else None

    def _may_be(self, state, version):
        """A version that no answer told can be any that no answered change was given."""
        if state.version is not None:
            return state.version == version
        return version not in self._told and (state.name is None or self._names.get(version) in (None, state.name))
