"""Compares the answers that clients received with the final state, and checks each row with three checkers."""

import asyncio
import collections
import time

import chain
import history
import search
import shrink
from background import all_rows, next_page
from client import Lost, NotSent
from history import DONE, NOT_DONE
from ledger import RESOURCES

# How many rows that were only created have their history checked.
CREATIONS_SAMPLED = 200
# How many non-linearizable histories are shrunk.
SHRUNK = 5


async def check(ledger, client, headers, readers):
    """Reads the final state and records violations in the ledger. `readers` are workers, one for each endpoint."""
    for row in ledger.all_rows():
        await asyncio.gather(*(reader.read(row) for reader in readers))
    for resource in RESOURCES:
        present = await all_rows(client, resource, headers)
        check_creations(ledger, resource, present)
        for uuid, name in ledger.untouched[resource.name].items():
            if present.get(uuid, {}).get("name") != name:
                ledger.violation("lost", f"{name}, which no client changed, is missing")
    return await _check_rows(ledger, client, headers)


def check_creations(ledger, resource, present):
    by_name = collections.defaultdict(list)
    for uuid, row in present.items():
        by_name[row["name"]].append(uuid)
        if not resource.is_whole(row):
            ledger.violation("partial", f"partial row: {row}")
    for creation in ledger.creations:
        if creation.resource is not resource:
            continue
        what = f"{creation.how} {creation.names[0]}"
        found = [name for name in creation.names if by_name[name]]
        if creation.outcome == DONE and len(found) < len(creation.names):
            ledger.violation("lost", f"{what} was acknowledged: {len(found)} of {len(creation.names)} rows exist", creation.at)
        elif creation.outcome == DONE and creation.uuid and creation.uuid not in by_name[creation.names[0]]:
            ledger.violation("lost", f"{what} was acknowledged as {creation.uuid} and exists as {by_name[creation.names[0]]}", creation.at)
        elif creation.outcome == NOT_DONE and found:
            ledger.violation("wrong outcome", f"{what} exists although it was answered as not applied", creation.at)
        elif 0 < len(found) < len(creation.names):
            ledger.violation("partial", f"{what}: {len(found)} of {len(creation.names)} rows exist", creation.at)
        if any(len(by_name[name]) > 1 for name in creation.names):
            ledger.violation("doubled", f"{what} exists more than once", creation.at)


async def _check_rows(ledger, client, headers):
    """Checks each row; returns the counts for the table."""
    counted = collections.Counter()
    for row in ledger.all_rows():
        entries = await entries_of(client, row.path, headers)
        last = next((op for op in reversed(row.operations) if op.kind == "read"), None)
        if last is None or last.outcome not in (DONE, history.NOT_FOUND):
            ledger.violation("errors", f"{row.path} cannot be read after the last fault: {last}")
            continue
        counted["rows"] += 1
        counted["operations"] += len(row.operations)
        for anomaly in chain.anomalies(row.operations, entries, last.name if last.outcome == DONE else None):
            ledger.violation("history", f"{row.path}: {anomaly}")
        check_row(ledger, row.path, row.operations, counted)
    created = [one for one in ledger.creations if one.outcome == DONE and one.uuid]
    for creation in ledger.rng.sample(created, min(len(created), CREATIONS_SAMPLED)):
        entries = await entries_of(client, f"{creation.resource.path}/{creation.uuid}", headers)
        if [entry["operation"] for entry in entries] != ["create"] or entries[0]["changedBy"] != creation.principal:
            ledger.violation("history", f"{creation.names[0]} of {creation.principal} has the history {entries}", creation.at)
        counted["creations"] += 1
    return counted


def check_row(ledger, path, operations, counted, with_search=True):
    """Checks linearizability by zones where the row has no restore, and by search: always where it has one or the zones report
    something, otherwise on request. The two must agree."""
    zones, unexplained, is_decided = [], None, False
    is_restored = any(op.kind == "restore" and op.outcome in (DONE, history.UNKNOWN) for op in operations)
    if not is_restored:
        zones = history.anomalies([op for op in operations if op.kind != "restore"])
    if with_search or is_restored or zones:
        try:
            unexplained, is_decided = search.unexplained(operations), True
        except search.Undecided:
            counted["undecided"] += 1
        if not is_restored:
            counted["checked by both"] += 1
    if zones and is_decided and not unexplained:
        ledger.violation("checkers", f"{path}: the zones report {zones[0]}, but the search finds an order")
    if not zones and not unexplained:
        return
    counted["not linearizable"] += 1
    if unexplained and counted["not linearizable"] <= SHRUNK:
        operations = shrink.smallest(operations, _is_unexplained)
    at = max(op.begun for op in operations)
    shown = "; ".join(map(str, sorted(operations, key=lambda op: op.begun)[:12]))
    ledger.violation("linearizable", f"{path}: {zones[0] if zones else f'no order explains {unexplained}'}. Smallest history: {shown}", at)


def _is_unexplained(operations):
    try:
        return search.unexplained(operations) is not None
    except search.Undecided:
        return False


async def entries_of(client, path, headers):
    """The history of a row in the form that chain.py expects, oldest first."""
    found, target = [], f"{path}/history?limit=1000"
    end = time.monotonic() + 60
    while target:
        try:
            answer = await client.request("GET", target, headers=headers)
        except (NotSent, Lost):
            answer = None
        if answer is None or answer.status >= 500:
            if time.monotonic() > end:
                raise RuntimeError(f"{target} is not answered: {answer!r}")
            continue
        if answer.status == 404:
            return []
        found += answer.json()
        target = next_page(answer)
    for entry in found:
        entry["name"] = entry["before"]["name"] if entry["before"] else None
        for version in ("versionBefore", "versionAfter"):
            entry[version] = f'"{entry[version]}"' if entry[version] is not None else None
    return found[::-1]
