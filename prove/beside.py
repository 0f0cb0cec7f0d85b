"""What goes on beside the clients: walks through lists while rows change, and imports."""

import asyncio
import collections
import contextlib
import csv
import io
import time

from client import Client, Lost, NotSent
from history import DONE, UNKNOWN
from ledger import RESOURCES, Creation

STILL_ROWS = 150
PAGE = 100
# Orders in which others' changes move rows about, and the key's.
ORDERS = {"passengers": ("", "&order=name.desc", "&order=fare.desc,name"), "parcels": ("", "&order=pieces", "&order=name")}
IMPORT_ROWS, IMPORT_SECONDS = 30, 5.0
# Of what is asked again until it is answered, when all faults are over.
PATIENCE_SECONDS = 120


async def make_still(ledger, port, headers):
    """Rows that nobody touches: each list must have each of them once."""
    async with Client(port, ledger.counts) as client:
        for resource in RESOURCES:
            names = [ledger.name("still") for _ in range(STILL_ROWS)]
            answer = await client.ask("POST", resource.path, [resource.body(name) for name in names], headers)
            if answer.status != 201:
                raise RuntimeError(f"the rows that nobody touches were answered {answer!r}")
            rows = await everything(client, resource, headers)
            ledger.still[resource.name] = {uuid: row["name"] for uuid, row in rows.items() if row["name"] in set(names)}


async def walk(ledger, port, headers, ended):
    """Page by page, over and over, each page until it is answered."""
    async with Client(port, ledger.counts) as client:
        while not ended.is_set():
            resource = ledger.dice.choice(RESOURCES)
            order = ledger.dice.choice(ORDERS[resource.name])
            seen = collections.Counter()
            target = f"{resource.path}?limit={PAGE}&select=uuid,name{order}"
            while target and not ended.is_set():
                answer = await _page(ledger, client, target, headers)
                if answer is None:
                    continue
                seen.update(row["uuid"] for row in answer.json())
                target = next_page(answer)
                await asyncio.sleep(0.02)
            if not ended.is_set():
                ledger.walks += 1
                ledger.in_walks += sum(seen.values())
                _each_once(ledger, resource, seen, f"{resource.path}{order}")


async def stream(ledger, port, headers, ended):
    """Everything in one answer, which is whole or cut."""
    async with Client(port, ledger.counts) as client:
        while not ended.is_set():
            answer = await _page(ledger, client, "/passengerlist?select=uuid,name", headers)
            if answer is not None:
                seen = collections.Counter(row["uuid"] for row in answer.json())
                ledger.walks += 1
                ledger.in_walks += sum(seen.values())
                _each_once(ledger, RESOURCES[0], seen, "/passengerlist")
            await asyncio.sleep(0.5)


async def _page(ledger, client, target, headers):
    try:
        answer = await client.ask("GET", target, headers=headers)
    except (NotSent, Lost):
        await asyncio.sleep(0.1)
        return None
    if ledger.outcome(answer, True) == DONE:
        return answer
    await asyncio.sleep(0.1)
    return None


def next_page(answer):
    for link in answer.headers.get("link", "").split(","):
        if 'rel="next"' in link:
            return link[link.index("<") + 1 : link.index(">")]
    return None


def _each_once(ledger, resource, seen, where):
    still = ledger.still[resource.name]
    if missing := [name for uuid, name in still.items() if not seen[uuid]]:
        ledger.complain("lists", f"{where} left {len(missing)} out that nobody touched: {missing[0]}")
    if twice := [uuid for uuid, times in seen.items() if times > 1 and uuid in still]:
        ledger.complain("lists", f"{where} had {len(twice)} twice that nobody touched: {twice[0]}")


async def everything(client, resource, headers):
    """{uuid: row} of all, when nothing is broken any more."""
    rows, target = {}, f"{resource.path}?limit=1000"
    begun = time.monotonic()
    while target:
        try:
            answer = await client.ask("GET", target, headers=headers)
        except (NotSent, Lost):
            answer = None
        if answer is None or answer.status != 200:
            if time.monotonic() - begun > PATIENCE_SECONDS:
                raise RuntimeError(f"{target} is not answered: {answer!r}")
            await asyncio.sleep(0.2)
            continue
        rows |= {row["uuid"]: row for row in answer.json()}
        target = next_page(answer)
    return rows


async def imports(ledger, world, ended):
    """`pycrudapi import` of some rows: all of them, or none."""
    while not ended.is_set():
        resource = ledger.dice.choice(RESOURCES)
        names = [ledger.name("import") for _ in range(IMPORT_ROWS)]
        creation = Creation(resource, names, UNKNOWN, time.monotonic(), "import")
        ledger.creations.append(creation)
        text = io.StringIO()
        rows = [resource.body(name) for name in names]
        table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        status, _, _ = await asyncio.to_thread(world.run, "import", "--resource", resource.name, "-", text=text.getvalue())
        if status == 0:
            creation.outcome, creation.at = DONE, time.monotonic()
        ledger.actions["import"] += 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), IMPORT_SECONDS)


async def answer_all(ledger, worker):
    """What was sent with a key is sent until it is answered; faults are over."""
    begun = time.monotonic()
    while ledger.keyed:
        creation = ledger.keyed.popleft()
        if not await worker.again(creation):
            if time.monotonic() - begun > PATIENCE_SECONDS:
                ledger.complain("errors", f"{creation.how} {creation.names[0]} is not answered in {PATIENCE_SECONDS} s")
                return
            await asyncio.sleep(0.1)
