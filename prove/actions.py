"""The clients: each does one thing when it is due, and writes down what it was told."""

import asyncio
import json
import time

from client import Client, Lost, NotSent
from history import DONE, MISSING, PRESENT, UNDONE, UNKNOWN, Operation
from ledger import RESOURCES, Creation, Row

# {what a client does: how often, compared with the others}
ACTIONS = {
    "create": 8, "create with key": 6, "send again": 4, "bulk": 1, "read": 26, "replace": 18, "patch": 18, "delete": 3,
    "restore": 4, "history": 2, "past": 3, "air quality": 2,
}  # fmt: skip
# Rows of a resource that are changed at the same time, and how much is done to one before another takes its place:
# what the judges take grows with it.
ROWS, OPERATIONS = 20, 400
CONDITIONAL = 0.7
MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}
BULK_ROWS = 20


class Worker:
    """One connection to one entrance, of one principal."""

    def __init__(self, ledger, port, timeline, headers=None, principal=None):
        self._ledger, self._timeline = ledger, timeline
        self._client = Client(port, ledger.counts)
        self._headers, self._principal = headers or {}, principal

    async def act(self, due):
        ledger = self._ledger
        resource = ledger.dice.choice(RESOURCES)
        action = ledger.dice.choices(list(ACTIONS), ACTIONS.values())[0]
        if len(ledger.rows[resource.name]) < ROWS:
            action = "new row"
        ledger.actions[action] += 1
        is_good = await getattr(self, "_" + action.replace(" ", "_"))(resource)
        self._timeline.record(due, is_good)

    async def ask(self, method, target, body=None, headers=None, conflict=None):
        """(outcome, answer, end); the end of what may still be carried out is never."""
        headers = {**self._headers, **(headers or {})}
        try:
            answer = await self._client.ask(method, target, body, headers)
        except NotSent:
            await asyncio.sleep(0.05)  # whoever is refused comes back at once: that would be all we do
            return UNDONE, None, time.monotonic()
        except Lost:
            return UNKNOWN, None, float("inf")
        outcome = self._ledger.outcome(answer, method == "GET" or "Idempotency-Key" in headers, conflict)
        return outcome, answer, float("inf") if outcome == UNKNOWN else time.monotonic()

    def close(self):
        self._client.close()

    # --- creations ------------------------------------------------------------------------------------------------

    async def _new_row(self, resource):
        name, begun = self._ledger.name("row"), time.monotonic()
        outcome, answer, ended = await self.ask("POST", resource.path, resource.body(name))
        if outcome == DONE:
            row = self._row(resource, answer, name)
            created = Operation("create", begun, ended, DONE, answer.headers["etag"], name, principal=self._principal)
            self._ledger.rows[resource.name].append(Row(resource, row["uuid"], created, self._ledger.dice.random() < 0.5))
        return outcome == DONE

    async def _create(self, resource):
        creation = Creation(resource, [self._ledger.name("create")], UNKNOWN, time.monotonic(), "create", principal=self._principal)
        self._ledger.creations.append(creation)
        return await self._send(creation, resource.body(creation.names[0]), {})

    async def _create_with_key(self, resource):
        creation = Creation(resource, [self._ledger.name("keyed")], UNKNOWN, time.monotonic(), "create with key", principal=self._principal)
        creation.body = json.dumps(resource.body(creation.names[0])).encode()
        return await self._first(creation)

    async def _bulk(self, resource):
        how = "bulk with key" if self._ledger.dice.random() < 0.5 else "bulk"
        names = [self._ledger.name("bulk") for _ in range(BULK_ROWS)]
        creation = Creation(resource, names, UNKNOWN, time.monotonic(), how, principal=self._principal)
        creation.body = json.dumps([resource.body(name) for name in names]).encode()
        if how == "bulk with key":
            return await self._first(creation)
        self._ledger.creations.append(creation)
        return await self._send(creation, creation.body, {})

    async def _first(self, creation):
        """Sends what has a key, and has it sent again: until it is answered, and once more."""
        creation.headers = {**self._headers, "Idempotency-Key": creation.names[0].replace(" ", "-")}
        self._ledger.creations.append(creation)
        self._ledger.keyed.append(creation)
        return await self._send(creation, creation.body, creation.headers)

    async def _send_again(self, resource):
        if not self._ledger.keyed:
            return await self._create_with_key(resource)
        return await self.again(self._ledger.keyed.popleft())

    async def again(self, creation):
        """A retry, on this connection, with the credentials of whoever sent it first: a key belongs to its principal."""
        self._ledger.resent += 1
        is_good = await self._send(creation, creation.body, creation.headers)
        if creation.answers < 2:
            self._ledger.keyed.append(creation)
        return is_good

    async def _send(self, creation, body, headers):
        outcome, answer, _ = await self.ask("POST", creation.resource.path, body, headers)
        if outcome != DONE:
            if creation.answers == 0:
                # With a key it is unknown once it was unknown: a later refusal speaks of the later request alone.
                creation.outcome = UNKNOWN if headers and creation.was_unknown else outcome
                creation.was_unknown |= outcome == UNKNOWN
            return False
        creation.outcome, creation.at = DONE, time.monotonic()
        creation.answers += 1
        if len(creation.names) > 1:
            if answer.json().get("count") != len(creation.names):
                self._ledger.complain("mixed", f"{len(creation.names)} rows were answered with {answer.json()}")
            return True
        row = self._row(creation.resource, answer, creation.names[0])
        if creation.uuid not in (None, row["uuid"]):
            self._ledger.complain("doubled", f"{creation.names[0]} was answered with {creation.uuid} and with {row['uuid']}")
        creation.uuid = row["uuid"]
        return True

    # --- rows that others change too ------------------------------------------------------------------------------

    async def _read(self, resource):
        return await self.read(self._ledger.dice.choice(self._ledger.rows[resource.name]))

    async def read(self, row):
        return await self._change(row, "GET", "read")

    async def _replace(self, resource):
        name = self._ledger.name("put")
        return await self._change(self._some(resource), "PUT", "write", resource.body(name), name=name)

    async def _patch(self, resource):
        name = self._ledger.name("patch")
        return await self._change(self._some(resource), "PATCH", "write", resource.changed(name), MERGE_PATCH, name)

    async def _delete(self, resource):
        return await self._change(self._some(resource), "DELETE", "delete")

    async def _restore(self, resource):
        dice = self._ledger.dice
        rows = [row for row in self._ledger.rows[resource.name] if row.is_restorable]
        if not rows:
            return await self._read(resource)
        gone = [row for row in rows if row.is_gone]
        if gone and dice.random() < 0.7:
            return await self._change(dice.choice(gone), "POST", "restore", {})
        row = dice.choice(rows)
        version = dice.choice(list(row.states))
        return await self._change(row, "POST", "restore", {"version": int(version.strip('"'))}, source=version)

    def _some(self, resource):
        return self._ledger.dice.choice(self._ledger.rows[resource.name])

    async def _change(self, row, method, kind, body=None, headers=None, name=None, source=None):
        is_conditional = kind in ("write", "delete") or source
        expected = row.seen if is_conditional and self._ledger.dice.random() < CONDITIONAL else None
        headers = {**(headers or {}), **({"If-Match": expected} if expected else {})}
        target = f"{row.path}/restore" if kind == "restore" else row.path
        begun = time.monotonic()
        outcome, answer, ended = await self.ask(method, target, body, headers, PRESENT)
        operation = Operation(kind, begun, ended, outcome, None, name, expected, source, self._principal)
        if outcome == DONE and kind != "delete":
            operation.version, operation.name = answer.headers["etag"], self._row(row.resource, answer, name, row.uuid)["name"]
            if known := row.states.get(operation.version):
                if known != operation.name:
                    self._ledger.complain("versions", f"{row.path} {operation.version} was {known} and is {operation.name}")
        row.add(operation)
        row.is_gone = outcome == MISSING or kind == "delete" and outcome == DONE or row.is_gone and outcome != DONE
        rows = self._ledger.rows[row.resource.name]
        is_over = len(row.operations) >= OPERATIONS or outcome == MISSING and not row.is_restorable
        if is_over and row in rows:
            rows.remove(row)
            self._ledger.retired.append(row)
        return outcome not in (UNDONE, UNKNOWN)

    # --- what was ---------------------------------------------------------------------------------------------------

    async def _history(self, resource):
        row = self._some(resource)
        outcome, answer, _ = await self.ask("GET", f"{row.path}/history?limit=20")
        if outcome == DONE:
            versions = [entry["versionAfter"] for entry in answer.json() if entry["versionAfter"] is not None]
            if len(versions) != len(set(versions)):
                self._ledger.complain("versions", f"{row.path}/history has a version twice: {versions}")
        return outcome == DONE

    async def _past(self, resource):
        row = self._some(resource)
        version = self._ledger.dice.choice(list(row.states))
        outcome, answer, _ = await self.ask("GET", f"{row.path}?at={version.strip(chr(34))}")
        if outcome == DONE:
            self._row(resource, answer, row.states[version], row.uuid)
        elif outcome == MISSING:
            self._ledger.complain("history", f"{row.path} has forgotten its version {version}")
        return outcome == DONE

    async def _air_quality(self, _):
        outcome, _, _ = await self.ask("GET", "/v1/air-quality")
        return outcome == DONE

    def _row(self, resource, answer, name=None, uuid=None):
        """The row of an answer, which must be that one, whole."""
        row = answer.json()
        if name is not None and row["name"] != name or uuid is not None and row["uuid"] != uuid:
            self._ledger.complain("mixed", f"asked for {name or uuid}, answered {row['name']} {row['uuid']}")
        if not resource.is_whole(row):
            self._ledger.complain("half", f"half a change: {row}")
        return row

