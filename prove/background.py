"""The background load: clients that page through lists while rows change, and imports."""

import asyncio
import collections
import contextlib
import csv
import io
import time

from client import Client, Lost, NotSent
from history import DONE, UNKNOWN
from ledger import RESOURCES, Creation

UNTOUCHED_ROWS = 150
PAGE = 100
# Sort orders whose columns concurrent changes modify, and the order of the key.
ORDERS = {"passengers": ("", "&order=name.desc", "&order=fare.desc,name"), "parcels": ("", "&order=pieces", "&order=name")}
IMPORT_ROWS, IMPORT_SECONDS = 30, 5.0
# For requests that are retried until they are answered, after the last fault.
TIMEOUT_SECONDS = 120


async def insert_untouched_rows(ledger, port, headers):
    """Inserts rows that no client changes: each list must contain each of them exactly once."""
    async with Client(port, ledger.counts) as client:
        for resource in RESOURCES:
            names = [ledger.name("untouched") for _ in range(UNTOUCHED_ROWS)]
            answer = await client.request("POST", resource.path, [resource.body(name) for name in names], headers)
            if answer.status != 201:
                raise RuntimeError(f"the creation of the untouched rows was answered {answer!r}")
            rows = await all_rows(client, resource, headers)
            ledger.untouched[resource.name] = {uuid: row["name"] for uuid, row in rows.items() if row["name"] in set(names)}


async def page_through_lists(ledger, port, headers, ended):
    """Reads lists page by page until `ended`, and retries each page until it is answered."""
    async with Client(port, ledger.counts) as client:
        while not ended.is_set():
            resource = ledger.rng.choice(RESOURCES)
            order = ledger.rng.choice(ORDERS[resource.name])
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
                ledger.lists_read += 1
                ledger.rows_listed += sum(seen.values())
                _check_untouched(ledger, resource, seen, f"{resource.path}{order}")


async def stream_lists(ledger, port, headers, ended):
    """Reads whole lists in one answer, which is complete or truncated."""
    async with Client(port, ledger.counts) as client:
        while not ended.is_set():
            answer = await _page(ledger, client, "/passengerlist?select=uuid,name", headers)
            if answer is not None:
                seen = collections.Counter(row["uuid"] for row in answer.json())
                ledger.lists_read += 1
                ledger.rows_listed += sum(seen.values())
                _check_untouched(ledger, RESOURCES[0], seen, "/passengerlist")
            await asyncio.sleep(0.5)


async def _page(ledger, client, target, headers):
    try:
        answer = await client.request("GET", target, headers=headers)
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


def _check_untouched(ledger, resource, seen, where):
    untouched = ledger.untouched[resource.name]
    if missing := [name for uuid, name in untouched.items() if not seen[uuid]]:
        ledger.violation("lists", f"{where} omitted {len(missing)} untouched rows: {missing[0]}")
    if twice := [uuid for uuid, times in seen.items() if times > 1 and uuid in untouched]:
        ledger.violation("lists", f"{where} contained {len(twice)} untouched rows twice: {twice[0]}")


async def all_rows(client, resource, headers):
    """{uuid: row} of the whole resource; called after the last fault."""
    rows, target = {}, f"{resource.path}?limit=1000"
    begun = time.monotonic()
    while target:
        try:
            answer = await client.request("GET", target, headers=headers)
        except (NotSent, Lost):
            answer = None
        if answer is None or answer.status != 200:
            if time.monotonic() - begun > TIMEOUT_SECONDS:
                raise RuntimeError(f"{target} is not answered: {answer!r}")
            await asyncio.sleep(0.2)
            continue
        rows |= {row["uuid"]: row for row in answer.json()}
        target = next_page(answer)
    return rows


async def imports(ledger, deployment, ended):
    """Runs `pycrudapi import` repeatedly; each import must insert all of its rows or none."""
    while not ended.is_set():
        resource = ledger.rng.choice(RESOURCES)
        names = [ledger.name("import") for _ in range(IMPORT_ROWS)]
        creation = Creation(resource, names, UNKNOWN, time.monotonic(), "import")
        ledger.creations.append(creation)
        text = io.StringIO()
        rows = [resource.body(name) for name in names]
        table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        status, _, _ = await asyncio.to_thread(deployment.run, "import", "--resource", resource.name, "-", text=text.getvalue())
        if status == 0:
            creation.outcome, creation.at = DONE, time.monotonic()
        ledger.actions["import"] += 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), IMPORT_SECONDS)


async def retry_all(ledger, worker):
    """Retries each request with a key until it is answered; called after the last fault."""
    begun = time.monotonic()
    while ledger.keyed:
        creation = ledger.keyed.popleft()
        if not await worker.retry(creation):
            if time.monotonic() - begun > TIMEOUT_SECONDS:
                ledger.violation("errors", f"{creation.how} {creation.names[0]} is not answered within {TIMEOUT_SECONDS} s")
                return
            await asyncio.sleep(0.1)
