"""The clients: each sends one request when it is due and records the answer in the ledger."""

import asyncio
import json
import time

from client import Client, Lost, NotSent
from history import DONE, NOT_FOUND, CONFLICT, NOT_DONE, UNKNOWN, Operation
from ledger import RESOURCES, Creation, Row

# {action: relative frequency}
ACTIONS = {
    "create": 8, "create with key": 6, "retry": 4, "bulk": 1, "read": 26, "replace": 18, "patch": 18, "delete": 3,
    "restore": 4, "history": 2, "past": 3, "air quality": 2,
}  # fmt: skip
# Rows of a resource that are changed concurrently, and the operations on one row before another row replaces it: the cost of
# the checkers grows with the length of a row's history.
ROWS, OPERATIONS = 20, 400
CONDITIONAL = 0.7
MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}
BULK_ROWS = 20


class Worker:
    """One connection to one endpoint, authenticated as one principal."""

    def __init__(self, ledger, port, timeline, headers=None, principal=None):
        self._ledger, self._timeline = ledger, timeline
        self._client = Client(port, ledger.counts)
        self._headers, self._principal = headers or {}, principal

    async def act(self, due):
        ledger = self._ledger
        resource = ledger.rng.choice(RESOURCES)
        action = ledger.rng.choices(list(ACTIONS), ACTIONS.values())[0]
        if len(ledger.rows[resource.name]) < ROWS:
            action = "new row"
        ledger.actions[action] += 1
        ok = await getattr(self, "_" + action.replace(" ", "_"))(resource)
        self._timeline.record(due, ok)

    async def request(self, method, target, body=None, headers=None, conflict=None):
        """(outcome, answer, end); the end of a request that may still be applied is infinity."""
        headers = {**self._headers, **(headers or {})}
        try:
            answer = await self._client.request(method, target, body, headers)
        except NotSent:
            await asyncio.sleep(0.05)  # otherwise refused connections would consume the whole request rate
            return NOT_DONE, None, time.monotonic()
        except Lost:
            return UNKNOWN, None, float("inf")
        outcome = self._ledger.outcome(answer, method == "GET" or "Idempotency-Key" in headers, conflict)
        return outcome, answer, float("inf") if outcome == UNKNOWN else time.monotonic()

    def close(self):
        self._client.close()

    # --- creations ------------------------------------------------------------------------------------------------

    async def _new_row(self, resource):
        name, begun = self._ledger.name("row"), time.monotonic()
        outcome, answer, ended = await self.request("POST", resource.path, resource.body(name))
        if outcome == DONE:
            row = self._row(resource, answer, name)
            created = Operation("create", begun, ended, DONE, answer.headers["etag"], name, principal=self._principal)
            self._ledger.rows[resource.name].append(Row(resource, row["uuid"], created, self._ledger.rng.random() < 0.5))
        return outcome == DONE

    async def _create(self, resource):
        creation = Creation(resource, [self._ledger.name("create")], UNKNOWN, time.monotonic(), "create", principal=self._principal)
        self._ledger.creations.append(creation)
        return await self._send(creation, resource.body(creation.names[0]), {})

    async def _create_with_key(self, resource):
        creation = Creation(resource, [self._ledger.name("keyed")], UNKNOWN, time.monotonic(), "create with key", principal=self._principal)
        creation.body = json.dumps(resource.body(creation.names[0])).encode()
        return await self._send_first(creation)

    async def _bulk(self, resource):
        how = "bulk with key" if self._ledger.rng.random() < 0.5 else "bulk"
        names = [self._ledger.name("bulk") for _ in range(BULK_ROWS)]
        creation = Creation(resource, names, UNKNOWN, time.monotonic(), how, principal=self._principal)
        creation.body = json.dumps([resource.body(name) for name in names]).encode()
        if how == "bulk with key":
            return await self._send_first(creation)
        self._ledger.creations.append(creation)
        return await self._send(creation, creation.body, {})

    async def _send_first(self, creation):
        """Sends a request with a key and queues it for retries: until it is answered, and once after that."""
        creation.headers = {**self._headers, "Idempotency-Key": creation.names[0].replace(" ", "-")}
        self._ledger.creations.append(creation)
        self._ledger.keyed.append(creation)
        return await self._send(creation, creation.body, creation.headers)

    async def _retry(self, resource):
        if not self._ledger.keyed:
            return await self._create_with_key(resource)
        return await self.retry(self._ledger.keyed.popleft())

    async def retry(self, creation):
        """Retries on this connection, with the credentials of the first attempt: a key is scoped to its principal."""
        self._ledger.retries += 1
        ok = await self._send(creation, creation.body, creation.headers)
        if creation.answers < 2:
            self._ledger.keyed.append(creation)
        return ok

    async def _send(self, creation, body, headers):
        outcome, answer, _ = await self.request("POST", creation.resource.path, body, headers)
        if outcome != DONE:
            if creation.answers == 0:
                # With a key, an unknown outcome stays unknown: a later refusal covers only the later attempt.
                creation.outcome = UNKNOWN if headers and creation.was_unknown else outcome
                creation.was_unknown |= outcome == UNKNOWN
            return False
        creation.outcome, creation.at = DONE, time.monotonic()
        creation.answers += 1
        if len(creation.names) > 1:
            if answer.json().get("count") != len(creation.names):
                self._ledger.violation("mixed", f"{len(creation.names)} rows were answered with {answer.json()}")
            return True
        row = self._row(creation.resource, answer, creation.names[0])
        if creation.uuid not in (None, row["uuid"]):
            self._ledger.violation("doubled", f"{creation.names[0]} was answered with {creation.uuid} and with {row['uuid']}")
        creation.uuid = row["uuid"]
        return True

    # --- rows that other clients change, too ------------------------------------------------------------------------

    async def _read(self, resource):
        return await self.read(self._ledger.rng.choice(self._ledger.rows[resource.name]))

    async def read(self, row):
        return await self._change(row, "GET", "read")

    async def _replace(self, resource):
        name = self._ledger.name("put")
        return await self._change(self._any_row(resource), "PUT", "write", resource.body(name), name=name)

    async def _patch(self, resource):
        name = self._ledger.name("patch")
        return await self._change(self._any_row(resource), "PATCH", "write", resource.changed(name), MERGE_PATCH, name)

    async def _delete(self, resource):
        return await self._change(self._any_row(resource), "DELETE", "delete")

    async def _restore(self, resource):
        rng = self._ledger.rng
        rows = [row for row in self._ledger.rows[resource.name] if row.is_restorable]
        if not rows:
            return await self._read(resource)
        deleted = [row for row in rows if row.is_deleted]
        if deleted and rng.random() < 0.7:
            return await self._change(rng.choice(deleted), "POST", "restore", {})
        row = rng.choice(rows)
        version = rng.choice(list(row.states))
        return await self._change(row, "POST", "restore", {"version": int(version.strip('"'))}, source=version)

    def _any_row(self, resource):
        return self._ledger.rng.choice(self._ledger.rows[resource.name])

    async def _change(self, row, method, kind, body=None, headers=None, name=None, source=None):
        is_conditional = kind in ("write", "delete") or source
        expected = row.seen if is_conditional and self._ledger.rng.random() < CONDITIONAL else None
        headers = {**(headers or {}), **({"If-Match": expected} if expected else {})}
        target = f"{row.path}/restore" if kind == "restore" else row.path
        begun = time.monotonic()
        outcome, answer, ended = await self.request(method, target, body, headers, CONFLICT)
        operation = Operation(kind, begun, ended, outcome, None, name, expected, source, self._principal)
        if outcome == DONE and kind != "delete":
            operation.version, operation.name = answer.headers["etag"], self._row(row.resource, answer, name, row.uuid)["name"]
            if known := row.states.get(operation.version):
                if known != operation.name:
                    self._ledger.violation("versions", f"{row.path} {operation.version} was {known} and is {operation.name}")
        row.add(operation)
        row.is_deleted = outcome == NOT_FOUND or kind == "delete" and outcome == DONE or row.is_deleted and outcome != DONE
        rows = self._ledger.rows[row.resource.name]
        is_finished = len(row.operations) >= OPERATIONS or outcome == NOT_FOUND and not row.is_restorable
        if is_finished and row in rows:
            rows.remove(row)
            self._ledger.retired.append(row)
        return outcome not in (NOT_DONE, UNKNOWN)

    # --- history ----------------------------------------------------------------------------------------------------

    async def _history(self, resource):
        row = self._any_row(resource)
        outcome, answer, _ = await self.request("GET", f"{row.path}/history?limit=20")
        if outcome == DONE:
            versions = [entry["versionAfter"] for entry in answer.json() if entry["versionAfter"] is not None]
            if len(versions) != len(set(versions)):
                self._ledger.violation("versions", f"{row.path}/history contains a version twice: {versions}")
        return outcome == DONE

    async def _past(self, resource):
        row = self._any_row(resource)
        version = self._ledger.rng.choice(list(row.states))
        outcome, answer, _ = await self.request("GET", f"{row.path}?at={version.strip(chr(34))}")
        if outcome == DONE:
            self._row(resource, answer, row.states[version], row.uuid)
        elif outcome == NOT_FOUND:
            self._ledger.violation("history", f"{row.path} no longer has version {version}")
        return outcome == DONE

    async def _air_quality(self, _):
        outcome, _, _ = await self.request("GET", "/v1/air-quality")
        return outcome == DONE

    def _row(self, resource, answer, name=None, uuid=None):
        """The row in an answer, which must be the requested row and the result of one complete change."""
        row = answer.json()
        if name is not None and row["name"] != name or uuid is not None and row["uuid"] != uuid:
            self._ledger.violation("mixed", f"requested {name or uuid}, answered {row['name']} {row['uuid']}")
        if not resource.is_whole(row):
            self._ledger.violation("partial", f"partial change: {row}")
        return row

