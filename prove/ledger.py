"""What the clients were told: rows that several of them change, creations by name, and what is wrong, each with its time."""

import collections
import dataclasses
import itertools
import time

from client import Counts, fault_of
from history import DONE, MISSING, REFUSED, UNDONE, UNKNOWN

# docs/api.md: which problems say that nothing was done, and which that it is unknown.
FATES = {
    "unavailable": UNDONE,
    "too-many-requests": UNDONE,
    "request-timeout": UNDONE,
    "idempotency-in-flight": UNDONE,
    "outcome-unknown": UNKNOWN,
    "bad-gateway": UNKNOWN,
    "gateway-timeout": UNKNOWN,
}
# {status: outcome} of answers that speak of the row's state.
OF_THE_STATE = {404: MISSING, 412: REFUSED}

PASSENGER = {
    "survived": True,
    "passengerClass": 2,
    "sex": "female",
    "age": None,
    "siblingsOrSpousesAboard": 0,
    "parentsOrChildrenAboard": 0,
}


@dataclasses.dataclass(frozen=True)
class Resource:
    """One whose rows carry a number in their name and in two other columns, so that half a change shows."""

    name: str
    fixed: dict
    columns: tuple  # (column, number -> value) each

    @property
    def path(self):
        return f"/v1/{self.name}"

    def changed(self, name):
        """The columns that a change sets."""
        number = number_of(name)
        return {"name": name, **{column: made(number) for column, made in self.columns}}

    def body(self, name):
        return {**self.fixed, **self.changed(name)}

    def is_whole(self, row):
        """Whether all columns are of one change."""
        return all(row.get(column) == value for column, value in self.changed(row["name"]).items())


RESOURCES = [
    Resource("passengers", PASSENGER, (("fare", float), ("siblingsOrSpousesAboard", int))),
    Resource("parcels", {"sender": None}, (("pieces", int), ("weight", lambda number: f"{number}.25"))),
]


def number_of(name):
    return int(name.rpartition(" ")[2])


class Row:
    """A row that several clients change, and everything that they did to it."""

    def __init__(self, resource, uuid, created, is_restorable=True):
        self.resource, self.uuid = resource, uuid
        # Whether it is brought back; of the others zones can tell (history.py).
        self.is_restorable = is_restorable
        self.path = f"{resource.path}/{uuid}"
        self.operations = [created]
        self.seen = created.version
        # {version: name} of the states that were told: what the past must answer.
        self.states = {created.version: created.name}
        self.is_gone = False

    def add(self, operation):
        self.operations.append(operation)
        if operation.outcome == DONE and operation.version:
            self.seen = operation.version
            self.states[operation.version] = operation.name


@dataclasses.dataclass
class Creation:
    """A row, or many that were sent at once (all or none of them), that nobody changes afterwards."""

    resource: Resource
    names: list
    outcome: str
    at: float
    how: str  # create, create with key, bulk, bulk with key, import
    uuid: str | None = None
    principal: str | None = None
    # With a key: what is sent again as it is.
    body: bytes | None = None
    headers: dict | None = None
    was_unknown: bool = False
    answers: int = 0


class Ledger:
    """See the module."""

    def __init__(self, dice):
        self.dice = dice
        self.counts = Counts()
        self.codes = collections.Counter()
        self.actions = collections.Counter()
        self.rows = {resource.name: [] for resource in RESOURCES}
        self.retired = []
        self.creations = []
        self.keyed = collections.deque()  # creations with a key that are to be sent again
        self.still = {resource.name: {} for resource in RESOURCES}  # {uuid: name} of rows that nobody touches
        self.complaints = []  # (topic, time, sentence)
        self.walks = self.in_walks = 0
        self.resent = 0
        self._numbers = itertools.count(1)

    def name(self, word):
        return f"{word} {next(self._numbers)}"

    def complain(self, topic, sentence, at=None):
        self.complaints.append((topic, time.monotonic() if at is None else at, sentence))

    def outcome(self, answer, repeatable=False, conflict=None):
        """What an answer says was done. Errors are looked at: form, code, and whether they say when to come back.

        `conflict` is what a 409 `conflict` means, where it may come.
        """
        if answer.status < 300:
            return DONE
        code = answer.code()
        expected = OF_THE_STATE.get(answer.status) or FATES.get(code) or (conflict if code == "conflict" else None)
        if answer.status not in OF_THE_STATE and code != "conflict":
            self.codes[f"{answer.status} {code}"] += 1
        fault = fault_of(answer, repeatable) or (None if expected else f"{answer.status} {code}: {answer.json().get('detail')}")
        if fault:
            self.complain("errors", f"{fault} ({answer.headers.get('x-request-id')})")
        return expected or UNKNOWN

    def all_rows(self):
        return [*self.retired, *(row for rows in self.rows.values() for row in rows)]

