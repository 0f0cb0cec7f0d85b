"""Fifty clients, each with its own address, continuously request the most expensive lists of a large table: reads of single
passengers keep most of their rate and are never refused, and no statement keeps running after its client has disconnected.
ROWS=1000000 is the size of the table."""

import asyncio
import contextlib
import json
import pathlib
import subprocess
import tempfile
import time

from client import Client, Counts, Lost, NotSent
from scenario import Result
from stack import REPOSITORY, servers, support

WEIGHT = 1

CLIENTS = 50
CONNECTIONS = 32
ROUNDS = 3
PATTERNS = ",".join(f"name.ilike.*{letters}*" for letters in ("qz", "xk", "jq", "vv", "zx", "kq", "qq", "jx", "wq", "zz"))
HEAVY = [
    (f"/v1/passengers?or=({PATTERNS})&order=name&fare=neq.", {}),
    ("/v1/passengers?order=fare.desc,name&name=ilike.*a*e*i*&age=neq.", {}),
    (f"/v1/passengers?or=({PATTERNS})&limit=1&fare=neq.", {"Prefer": "count=exact"}),
    ("/v1/passengers/stats?by=passengerClass,sex&name=ilike.*e*&fare=neq.", {}),
]


async def run(context):
    rows = context.number("ROWS", 1_000_000)
    async with servers(1) as stack:
        with tempfile.TemporaryDirectory() as folder:
            keys = pathlib.Path(folder) / "keys"
            await asyncio.to_thread(_fill, stack, rows, keys)
            seconds = max(3, int(context.seconds / (2 * ROUNDS)))
            context.start_clock()
            alone, loaded, lists = [], [], Counts()
            for _ in range(ROUNDS):
                alone.append(await asyncio.to_thread(_gets, stack, keys, seconds))
                load = [asyncio.create_task(_request_lists(stack.ports[0], number, lists)) for number in range(CLIENTS)]
                loaded.append(await asyncio.to_thread(_gets, stack, keys, seconds))
                for task in load:
                    task.cancel()
                await asyncio.gather(*load, return_exceptions=True)
                ended = await asyncio.to_thread(_until_idle, stack)
    rate, p99 = (_median([b[key] / a[key] for a, b in zip(alone, loaded)]) for key in ("rate", "p99_us"))
    refused = sum(one["bad_status"] + one["broken"] for one in alone + loaded)
    counted = {"alone/s": int(_median([one["rate"] for one in alone])), "under load/s": int(_median([one["rate"] for one in loaded]))}
    return [
        Result(f"reads of single rows keep their rate during {CLIENTS} heavy lists of {rows:,} rows", "≥ 0.7 ×", {"×": rate, **counted}, rate >= 0.7),
        Result("p99 of those reads", "≤ 3 ×", {"×": p99}, p99 <= 3),
        Result("none of those reads is refused", "0", {"refused": refused, "lists": lists.summary()}, refused == 0),
        Result("no statement runs for disconnected clients", "≤ 1 s", {"seconds": ended}, ended <= 1),
    ]


def _fill(stack, rows, keys):
    stack.fill(rows)
    keys.write_text(stack.psql("select uuid from passengers order by random() limit 100000") + "\n", encoding="ascii")


def _gets(stack, keys, seconds):
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", "get.lua",
               f"http://127.0.0.1:{stack.ports[0]}", "--", str(keys)]  # fmt: skip
    output = subprocess.run(command, cwd=REPOSITORY / "bench" / "lua", check=True, capture_output=True, text=True).stdout
    result = json.loads(output[output.index("RESULT ") + 7 :])
    return result | {"rate": result["requests"] / result["seconds"]}


async def _request_lists(port, number, counts):
    path, headers = HEAVY[number % len(HEAVY)]
    async with Client(port, counts) as client:
        for step in range(1_000_000):
            with contextlib.suppress(Lost, NotSent):  # counted by the client
                answer = await client.request(
                    "GET", f"{path}{number * 1000 + step}", headers={"X-Forwarded-For": f"192.0.2.{number}", **headers}
                )
                if answer.status == 503:
                    await asyncio.sleep(float(answer.headers["retry-after"]))  # as Retry-After requires


def _until_idle(stack):
    """Seconds until PostgreSQL runs no statement of the server."""
    begun = time.monotonic()
    active = "select count(*) from pg_stat_activity where application_name = 'pycrudapi' and state = 'active'"
    support.until(lambda: stack.psql(active) == "0", "the lists have ended")
    return time.monotonic() - begun


def _median(numbers):
    return sorted(numbers)[len(numbers) // 2]
