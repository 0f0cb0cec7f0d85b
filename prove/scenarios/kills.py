"""Clients create, read, replace, patch and delete through nginx, while by turns each process of the stack is killed with -9,
stopped for a while, or has its session ended. What was acknowledged must be there, what was sent again with its key must
be there once, and some order must explain every answer about each row."""

import asyncio
import collections
import contextlib
import itertools
import os
import signal
import time

from client import Client, Counts, Lost, NotSent, fault_of
from history import DONE, MISSING, REFUSED, UNDONE, UNKNOWN, Operation, faults
from scenario import Row, milliseconds
from stack import until, whole

WEIGHT = 3
SHORT = 20

CLIENTS = 16
ROWS = 24
PATH = "/v1/passengers"
PASSENGER = {
    "survived": True,
    "passengerClass": 2,
    "sex": "female",
    "age": None,
    "siblingsOrSpousesAboard": 0,
    "parentsOrChildrenAboard": 0,
    "fare": 13.0,
}
MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}

# {what the client does: how often, compared with the others}
ACTIONS = {"create": 10, "create with key": 6, "read": 30, "replace": 20, "patch": 20, "delete": 3}
# Whether a change names the state that the client has seen.
CONDITIONAL = 0.7

# What of the stack, and what happens to it.
BLOWS = [
    ("server", signal.SIGKILL),
    ("server", signal.SIGSTOP),
    ("nginx worker", signal.SIGKILL),
    ("nginx master", signal.SIGKILL),
    ("postmaster", signal.SIGKILL),
    ("backend", signal.SIGKILL),
    ("backend", signal.SIGTERM),
    ("supervisord", signal.SIGKILL),
]
# Generous: what was counted says how long it takes.
RECOVERY_SECONDS = 120

# docs/api.md: which problems say that nothing was done, and which that it is unknown.
FATES = {"unavailable": UNDONE, "outcome-unknown": UNKNOWN, "bad-gateway": UNKNOWN, "gateway-timeout": UNKNOWN}


async def run(context):
    async with whole() as stack:
        clients = _Clients(context, stack.port)
        blows = _Blows(context, stack)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(blows.run())
            for _ in range(CLIENTS):
                tasks.create_task(clients.run())
        listed = await clients.look_at_all()
    return [*clients.judge(listed), *blows.judge()]


class _Blows:
    """Hits one process after the other, and waits until the service answers again."""

    def __init__(self, context, stack):
        self._context, self._stack = context, stack
        self._counts = collections.Counter()
        self._away = collections.defaultdict(list)
        self._left_behind = []

    async def run(self):
        context, turns = self._context, []
        context.start_clock()
        while context.time_left() > 0:
            await asyncio.sleep(context.random.uniform(0.1, 1.5))
            if not turns:
                turns = context.random.sample(BLOWS, len(BLOWS))
            kind, number = turns.pop()
            pids = await asyncio.to_thread(self._stack.pids, kind)
            if not pids:
                continue  # it is being started again
            begun = time.monotonic()
            what = f"{kind} {number.name}"
            self._counts[what] += 1
            await self._hit(context.random.choice(pids), number)
            if kind == "supervisord":
                await asyncio.to_thread(self._stack.process.wait)
            await self._answers_again()
            self._away[what].append(time.monotonic() - begun)

    async def _hit(self, pid, number):
        with contextlib.suppress(ProcessLookupError):  # it went by itself
            os.kill(pid, number)
            if number == signal.SIGSTOP:
                try:
                    await asyncio.sleep(self._context.random.uniform(0.1, 1.0))
                finally:
                    os.kill(pid, signal.SIGCONT)

    def _start_again(self):
        """As whoever supervises the container does."""
        try:
            until(lambda: not self._stack.processes(), "what supervisord had started is gone")
        except AssertionError:
            left = self._stack.processes()
            self._left_behind += left.values()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            until(lambda: not self._stack.processes(), "what was left behind is gone")
        self._stack.start()

    async def _answers_again(self):
        async with asyncio.timeout(RECOVERY_SECONDS), Client(self._stack.port) as client:
            while True:
                # It was killed, or gave up what was killed too often.
                if not self._stack.process.running:
                    await asyncio.to_thread(self._start_again)
                try:
                    if (await client.ask("GET", f"{PATH}?limit=1")).status == 200:
                        return
                except (Lost, NotSent):
                    pass
                await asyncio.sleep(0.005)

    def judge(self):
        times = {f"{what} {count} ×": f"away {milliseconds(self._away[what])}" for what, count in sorted(self._counts.items())}
        orphans = {"left behind": len(self._left_behind), **({"such as": self._left_behind[0]} if self._left_behind else {})}
        return [
            Row("the service answers again by itself after each blow", f"within {RECOVERY_SECONDS} s", times, bool(times)),
            Row("nothing outlives supervisord", "0", orphans, not self._left_behind),
        ]


class _Passenger:
    """A row that several clients change, and everything they did to it."""

    def __init__(self, uuid, created):
        self.path = f"{PATH}/{uuid}"
        self.operations = [created]
        self.seen = created.version


class _Clients:
    """What the clients share: the rows they change, what they were told, and the count of it."""

    def __init__(self, context, port):
        self._context, self._port = context, port
        self._dice = context.random
        self._counts = Counts()
        self._numbers = itertools.count()
        self._rows, self._retired = [], []
        # {name: uuid} of creations that nobody changes afterwards; of those that were answered otherwise the outcome.
        self._created, self._keyed, self._otherwise = {}, {}, {}
        self._retries = self._answers_differ = 0
        self._codes, self._malformed = collections.Counter(), []

    async def run(self):
        async with Client(self._port, self._counts) as client:
            while self._context.time_left() > 0:
                if len(self._rows) < ROWS:
                    await self._new_row(client)
                    continue
                action = self._dice.choices(list(ACTIONS), ACTIONS.values())[0]
                if action == "create":
                    await self._create(client)
                elif action == "create with key":
                    await self._create_with_key(client)
                else:
                    await self._act(client, action, self._dice.choice(self._rows))

    async def _ask(self, client, method, target, body=None, headers=None):
        """(outcome, answer); every error is looked at."""
        try:
            answer = await client.ask(method, target, body, headers)
        except NotSent:
            await asyncio.sleep(0.1)
            return UNDONE, None
        except Lost:
            return UNKNOWN, None
        if answer.status < 300:
            return DONE, answer
        if answer.status in (404, 412):
            return (MISSING if answer.status == 404 else REFUSED), answer
        code = answer.code()
        self._codes[f"{answer.status} {code}"] += 1
        if answer.status == 409 and code == "idempotency-in-flight":
            return UNDONE, answer
        # What is only read may be asked for again whatever became of it.
        repeatable = method == "GET" or "Idempotency-Key" in (headers or {})
        fault = fault_of(answer, repeatable) or (None if code in FATES else f"{answer.status} {code} is not to be expected")
        if fault:
            self._malformed.append(fault)
        return FATES.get(code, UNKNOWN), answer

    def _name(self):
        return f"passenger {next(self._numbers)}"

    async def _new_row(self, client):
        name, begun = self._name(), time.monotonic()
        outcome, answer = await self._ask(client, "POST", PATH, {**PASSENGER, "name": name})
        if outcome == DONE:
            created = Operation("create", begun, time.monotonic(), DONE, answer.headers["etag"], name)
            self._rows.append(_Passenger(answer.json()["uuid"], created))

    async def _create(self, client):
        name = self._name()
        outcome, answer = await self._ask(client, "POST", PATH, {**PASSENGER, "name": name})
        if outcome == DONE:
            self._created[name] = answer.json()["uuid"]
        else:
            self._otherwise[name] = outcome

    async def _create_with_key(self, client):
        name, first = self._name(), None
        headers = {"Idempotency-Key": name.replace(" ", "-")}
        self._otherwise[name] = UNKNOWN
        # Sent once more after it was answered: an answer that was lost must not be the only one.
        while self._context.time_left() > 0:
            outcome, answer = await self._ask(client, "POST", PATH, {**PASSENGER, "name": name}, headers)
            if outcome != DONE:
                self._retries += 1
                continue
            uuid = answer.json()["uuid"]
            self._otherwise.pop(name, None)
            self._keyed[name] = uuid
            self._answers_differ += first not in (None, uuid)
            if first or self._dice.random() < 0.5:
                return
            first = uuid

    async def _act(self, client, action, row):
        expected = row.seen if action != "read" and self._dice.random() < CONDITIONAL else None
        headers = {"If-Match": expected} if expected else {}
        name, body = None, None
        if action in ("replace", "patch"):
            name = self._name()
            body = {**PASSENGER, "name": name} if action == "replace" else {"name": name}
        if action == "patch":
            headers |= MERGE_PATCH
        method = {"read": "GET", "replace": "PUT", "patch": "PATCH", "delete": "DELETE"}[action]
        begun = time.monotonic()
        outcome, answer = await self._ask(client, method, row.path, body, headers)
        ended = float("inf") if outcome == UNKNOWN else time.monotonic()
        kind = "write" if name else action
        operation = Operation(kind, begun, ended, outcome, name=name, expected=expected)
        if outcome == DONE and kind != "delete":
            operation.version = row.seen = answer.headers["etag"]
            operation.name = answer.json()["name"]
            if name and operation.name != name:
                self._malformed.append(f"a change to {name} was answered with {operation.name}")
        row.operations.append(operation)
        if row in self._rows and (outcome == MISSING or kind == "delete" and outcome in (DONE, UNKNOWN)):
            self._rows.remove(row)
            self._retired.append(row)

    async def look_at_all(self):
        """Reads each row once more, and returns {name: uuids} of all that there are."""
        async with Client(self._port, self._counts) as client:
            for row in self._rows + self._retired:
                await self._act(client, "read", row)
            answer = await client.ask("GET", "/passengerlist?select=uuid,name")
        listed = collections.defaultdict(list)
        for passenger in answer.json():
            listed[passenger["name"]].append(passenger["uuid"])
        return listed

    def judge(self, listed):
        rows = self._rows + self._retired
        unexplained = [fault for row in rows for fault in faults(row.operations)]
        undone = [name for name, outcome in self._otherwise.items() if outcome == UNDONE and name in listed]
        doubled = [name for name in self._otherwise if len(listed.get(name, ())) > 1]
        return [
            _creations("acknowledged creations are there, once", self._created, listed),
            _creations(
                "creations sent again with their key are there, once",
                self._keyed,
                listed,
                {"sent again": self._retries, "answers that differ": self._answers_differ},
            ),
            Row(
                "creations not acknowledged are there once at most, and not when the answer says undone",
                "0",
                {"not acknowledged": len(self._otherwise), "doubled": len(doubled), "there though undone": len(undone)},
                not doubled and not undone,
            ),
            Row(
                "some order explains every answer about a row",
                "0 without",
                {
                    "rows": len(rows),
                    "requests": sum(len(row.operations) for row in rows),
                    "conditions refused": sum(op.outcome == REFUSED for row in rows for op in row.operations),
                    "fate unknown": sum(op.outcome == UNKNOWN for row in rows for op in row.operations),
                    "not explained": len(unexplained),
                    **{str(place): fault for place, fault in enumerate(unexplained[:3], 1)},
                },
                not unexplained,
            ),
            Row(
                "errors are problem documents with the right code, and Retry-After where it helps",
                "0 otherwise",
                {
                    **self._counts.shown(),
                    **dict(sorted(self._codes.items())),
                    "otherwise": len(self._malformed),
                    **{str(place): fault for place, fault in enumerate(sorted(set(self._malformed))[:3], 1)},
                },
                not self._malformed,
            ),
        ]


def _creations(what, acknowledged, listed, more=None):
    missing = [name for name, uuid in acknowledged.items() if uuid not in listed.get(name, ())]
    doubled = [name for name in acknowledged if len(listed.get(name, ())) > 1]
    counted = {"acknowledged": len(acknowledged), **(more or {}), "lost": len(missing), "doubled": len(doubled)}
    held = not missing and not doubled and not counted.get("answers that differ") and bool(acknowledged)
    return Row(what, "0 lost, 0 doubled", counted, held)
