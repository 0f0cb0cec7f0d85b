"""The record of all answers: rows that several clients change, creations by name, and violations with their times."""

import collections
import dataclasses
import itertools
import time

from client import Counts, malformation
from history import DONE, NOT_FOUND, PRECONDITION_FAILED, NOT_DONE, UNKNOWN

# docs/api.md: the outcome that each problem code states.
OUTCOME_OF_CODE = {
    "unavailable": NOT_DONE,
    "too-many-requests": NOT_DONE,
    "request-timeout": NOT_DONE,
    "idempotency-in-flight": NOT_DONE,
    "outcome-unknown": UNKNOWN,
    "bad-gateway": UNKNOWN,
    "gateway-timeout": UNKNOWN,
}
# {status: outcome} of answers that report the row's state.
OUTCOME_OF_STATUS = {404: NOT_FOUND, 412: PRECONDITION_FAILED}

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
    """A resource whose rows carry one number in their name and in two other columns, so that a partial change is visible."""

    name: str
    fixed: dict
    columns: tuple  # (column, number -> value) each

    @property
    def path(self):
        return f"/v1/{self.name}"

    def changed(self, name):
        """The columns that a change sets."""
        number = number_of(name)
        return {"name": name, **{column: value(number) for column, value in self.columns}}

    def body(self, name):
        return {**self.fixed, **self.changed(name)}

    def is_whole(self, row):
        """Whether all columns were written by one change."""
        return all(row.get(column) == value for column, value in self.changed(row["name"]).items())


RESOURCES = [
    Resource("passengers", PASSENGER, (("fare", float), ("siblingsOrSpousesAboard", int))),
    Resource("parcels", {"sender": None}, (("pieces", int), ("weight", lambda number: f"{number}.25"))),
]


def number_of(name):
    return int(name.rpartition(" ")[2])


class Row:
    """A row that several clients change, and all their operations on it."""

    def __init__(self, resource, uuid, created, is_restorable=True):
        self.resource, self.uuid = resource, uuid
        # Whether clients restore it; rows without restores are also checked by zones (history.py).
        self.is_restorable = is_restorable
        self.path = f"{resource.path}/{uuid}"
        self.operations = [created]
        self.seen = created.version
        # {version: name} of the states that answers have shown: ?at= must return them.
        self.states = {created.version: created.name}
        self.is_deleted = False

    def add(self, operation):
        self.operations.append(operation)
        if operation.outcome == DONE and operation.version:
            self.seen = operation.version
            self.states[operation.version] = operation.name


@dataclasses.dataclass
class Creation:
    """A row, or several sent in one request (all or none are created), that no client changes afterwards."""

    resource: Resource
    names: list
    outcome: str
    at: float
    how: str  # create, create with key, bulk, bulk with key, import
    uuid: str | None = None
    principal: str | None = None
    # With a key: what a retry sends.
    body: bytes | None = None
    headers: dict | None = None
    was_unknown: bool = False
    answers: int = 0


class Ledger:
    def __init__(self, rng):
        self.rng = rng
        self.counts = Counts()
        self.codes = collections.Counter()
        self.actions = collections.Counter()
        self.rows = {resource.name: [] for resource in RESOURCES}
        self.retired = []
        self.creations = []
        self.keyed = collections.deque()  # creations with a key that are to be retried
        self.untouched = {resource.name: {} for resource in RESOURCES}  # {uuid: name} of rows that no client changes
        self.violations = []  # (topic, time, description)
        self.lists_read = self.rows_listed = 0
        self.retries = 0
        self._numbers = itertools.count(1)

    def name(self, word):
        return f"{word} {next(self._numbers)}"

    def violation(self, topic, description, at=None):
        self.violations.append((topic, time.monotonic() if at is None else at, description))

    def outcome(self, answer, repeatable=False, conflict=None):
        """The outcome that an answer states. Checks the form, code and Retry-After of errors.

        `conflict` is the outcome of a 409 `conflict`, where it is allowed.
        """
        if answer.status < 300:
            return DONE
        code = answer.code()
        expected = OUTCOME_OF_STATUS.get(answer.status) or OUTCOME_OF_CODE.get(code) or (conflict if code == "conflict" else None)
        if answer.status not in OUTCOME_OF_STATUS and code != "conflict":
            self.codes[f"{answer.status} {code}"] += 1
        malformed = malformation(answer, repeatable) or (None if expected else f"{answer.status} {code}: {answer.json().get('detail')}")
        if malformed:
            self.violation("errors", f"{malformed} ({answer.headers.get('x-request-id')})")
        return expected or UNKNOWN

    def all_rows(self):
        return [*self.retired, *(row for rows in self.rows.values() for row in rows)]

