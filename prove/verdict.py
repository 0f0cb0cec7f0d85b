"""Compares what the clients were told with what there is in the end, and judges each row by three judges."""

import asyncio
import collections
import time

import chain
import history
import search
import shrink
from beside import everything, next_page
from client import Lost, NotSent
from history import DONE, UNDONE
from ledger import RESOURCES

# Histories of rows that nobody changed after their creation: of some, whose change was in a batch with others.
CREATIONS_LOOKED_AT = 200
# Found faults are shrunk; one shows what all would.
SHRUNK = 5


async def look(ledger, client, headers, readers):
    """Reads all there is, and complains to the ledger. `readers` are workers of all entrances."""
    for row in ledger.all_rows():
        await asyncio.gather(*(reader.read(row) for reader in readers))
    for resource in RESOURCES:
        there = await everything(client, resource, headers)
        _creations(ledger, resource, there)
        for uuid, name in ledger.still[resource.name].items():
            if there.get(uuid, {}).get("name") != name:
                ledger.complain("lost", f"{name}, which nobody touched, is not there")
    return await _rows(ledger, client, headers)


def _creations(ledger, resource, there):
    by_name = collections.defaultdict(list)
    for uuid, row in there.items():
        by_name[row["name"]].append(uuid)
        if not resource.is_whole(row):
            ledger.complain("half", f"half a row: {row}")
    for creation in ledger.creations:
        if creation.resource is not resource:
            continue
        what = f"{creation.how} {creation.names[0]}"
        found = [name for name in creation.names if by_name[name]]
        if creation.outcome == DONE and len(found) < len(creation.names):
            ledger.complain("lost", f"{what} was acknowledged: {len(found)} of {len(creation.names)} are there", creation.at)
        elif creation.outcome == DONE and creation.uuid and creation.uuid not in by_name[creation.names[0]]:
            ledger.complain("lost", f"{what} was acknowledged as {creation.uuid} and is {by_name[creation.names[0]]}", creation.at)
        elif creation.outcome == UNDONE and found:
            ledger.complain("untruthful", f"{what} is there and was answered as not carried out", creation.at)
        elif 0 < len(found) < len(creation.names):
            ledger.complain("half", f"{what}: {len(found)} of {len(creation.names)} are there", creation.at)
        if any(len(by_name[name]) > 1 for name in creation.names):
            ledger.complain("doubled", f"{what} is there more than once", creation.at)


async def _rows(ledger, client, headers):
    """What the judges say of each row; counts for the table."""
    counted = collections.Counter()
    for row in ledger.all_rows():
        entries = await entries_of(client, row.path, headers)
        last = next((op for op in reversed(row.operations) if op.kind == "read"), None)
        if last is None or last.outcome not in (DONE, history.MISSING):
            ledger.complain("errors", f"{row.path} cannot be read in the end: {last}")
            continue
        counted["rows"] += 1
        counted["operations"] += len(row.operations)
        for sentence in chain.faults(row.operations, entries, last.name if last.outcome == DONE else None):
            ledger.complain("history", f"{row.path}: {sentence}")
        judge_row(ledger, row.path, row.operations, counted)
    made = [one for one in ledger.creations if one.outcome == DONE and one.uuid]
    for creation in ledger.dice.sample(made, min(len(made), CREATIONS_LOOKED_AT)):
        entries = await entries_of(client, f"{creation.resource.path}/{creation.uuid}", headers)
        if [entry["operation"] for entry in entries] != ["create"] or entries[0]["changedBy"] != creation.principal:
            ledger.complain("history", f"{creation.names[0]} of {creation.principal} has the history {entries}", creation.at)
        counted["creations"] += 1
    return counted


def judge_row(ledger, path, operations, counted):
    """By the zones of its states where they can tell, and by search always; the two must agree."""
    is_decided, unexplained = True, None
    try:
        unexplained = search.unexplained(operations)
    except search.Undecided:
        is_decided = False
        counted["undecided"] += 1
    zones = []
    if not any(op.kind == "restore" and op.outcome in (DONE, history.UNKNOWN) for op in operations):
        counted["by both"] += 1
        zones = history.faults([op for op in operations if op.kind != "restore"])
        if zones and is_decided and not unexplained:
            ledger.complain("judges", f"{path}: zones say {zones[0]}, and search finds an order")
    if not zones and not unexplained:
        return
    counted["not linearizable"] += 1
    if unexplained and counted["not linearizable"] <= SHRUNK:
        operations = shrink.smallest(operations, _has_fault)
    at = max(op.begun for op in operations)
    shown = "; ".join(map(str, sorted(operations, key=lambda op: op.begun)[:12]))
    ledger.complain("linearizable", f"{path}: {zones[0] if zones else f'no order explains {unexplained}'}. Smallest: {shown}", at)


def _has_fault(operations):
    try:
        return search.unexplained(operations) is not None
    except search.Undecided:
        return False


async def entries_of(client, path, headers):
    """The history of a row as chain.py takes it, oldest first."""
    found, target = [], f"{path}/history?limit=1000"
    end = time.monotonic() + 60
    while target:
        try:
            answer = await client.ask("GET", target, headers=headers)
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
