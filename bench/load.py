"""The load generators, each of which returns a measurement: wrk, pgbench, psql, and a socket that reads a long answer."""

import json
import os
import re
import resource
import socket
import subprocess
import threading
import time

import processes
from contestants import CORES
from needs import ROOT, postgres_program, run

LUA = os.path.join(ROOT, "bench", "lua")
READ_BYTES = 1 << 20
# A thread of wrk sends up to 90,000 requests per second; on two cores a second one competes with the contestant
# (pycrudapi, 64 connections: 56,900 with two, 62,100 with one).
WRK_THREADS = max(1, CORES // 2)

COLUMNS = (
    "uuid, survived, passenger_class, name, sex, age, siblings_or_spouses_aboard, parents_or_children_aboard, fare"
)
# The number of keys that a pgbench transaction reads from the table of keys: pgbench itself can only generate numbers.
KEYS_PER_PACK = 20
PGBENCH_SELECT = (
    f"\\set pack random(0, :packs - 1)\n"
    f"select {', '.join(f'k{n}' for n in range(KEYS_PER_PACK))} from bench_keys where pack = :pack \\gset\n"
    + "".join(f"select {COLUMNS} from passengers where uuid = :k{n};\n" for n in range(KEYS_PER_PACK))
)
# A version 7 uuid from the clock and 62 random bits, so that the index grows at its end as for the others.
PGBENCH_INSERT = (
    "\\set r random(-9223372036854775808, -4611686018427387905)\n"
    f"insert into passengers ({COLUMNS}) values (encode("
    "substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) || '\\x7000'::bytea"
    " || int8send(:r), 'hex')::uuid, true, 2, 'Bench, Mr. Post Put', 'male', 27.5, 1, 0, 13.25);\n"
)


class CpuClock:
    """CPU time of process trees, and of the load generator (a child of this process), between two points in time."""

    def __init__(self, roots):
        self._roots = roots
        self._begin = self._now()

    def _now(self):
        own = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {name: processes.cpu_seconds(pid) for name, pid in self._roots.items()} | {
            "load generator": own.ru_utime + own.ru_stime
        }

    def microseconds_each(self, count):
        end = self._now()
        return {name: round((end[name] - self._begin[name]) * 1e6 / max(count, 1), 2) for name in end}


def wrk(running, postgres_pid, script, connections, seconds, argument=""):
    """Closed-loop HTTP load: requests/s, latency, and CPU time per request of all processes involved."""
    roots = running.roots | {"postgres": postgres_pid}
    command = ["wrk", "-t", str(WRK_THREADS), "-c", str(connections), "-d", f"{seconds}s", "--timeout", "10s", "--latency",
               "-s", f"{script}.lua", f"http://127.0.0.1:{running.port}", "--", argument, *running.headers]  # fmt: skip
    for pid in running.roots.values():
        processes.reset_peak_rss(pid)
    clock = CpuClock(roots)
    output = run(command, cwd=LUA)
    found = re.search(r"^RESULT (\{.*\})$", output, re.MULTILINE)
    if not found:
        raise RuntimeError(f"wrk printed no result:\n{output}")
    result = json.loads(found[1])
    return {
        "per_second": result["requests"] / result["seconds"],
        "p50_us": result["p50_us"],
        "p99_us": result["p99_us"],
        "requests": result["requests"],
        "failed": result["bad_status"] + result["broken"],
        "cpu_us": clock.microseconds_each(result["requests"]),
        "rss_mb": {name: round(processes.peak_rss_mb(pid), 1) for name, pid in running.roots.items()},
    }


def pgbench(cluster, database, statement, clients, seconds, packs=0, over_socket=False):
    """The same statement from PostgreSQL's own benchmark, prepared."""
    script = f"{cluster.folder}/{statement}.sql"
    with open(script, "w", encoding="ascii") as file:
        file.write({"select": PGBENCH_SELECT, "insert": PGBENCH_INSERT}[statement])
    command = [postgres_program("pgbench"), "-n", "-M", "prepared", "-r", "-c", str(clients),
               "-j", str(min(CORES, clients)), "-T", str(max(1, round(seconds))), "-f", script,
               "-D", f"packs={packs}", "-h", cluster.folder if over_socket else "127.0.0.1",
               "-p", str(cluster.port), "-U", "postgres", database]  # fmt: skip
    clock = CpuClock({"postgres": cluster.pid})
    output = run(command)
    tps = float(re.search(r"^tps = ([\d.]+)", output, re.MULTILINE)[1])
    transactions = int(re.search(r"transactions actually processed: (\d+)", output)[1])
    failed = int(re.search(r"number of failed transactions: (\d+)", output)[1])
    # "  0.123  0  select …": mean milliseconds of each command.
    spent = [
        (float(ms), command) for ms, command in re.findall(r"^\s+([\d.]+)\s+\d+\s+((?:select|insert).*)$", output, re.M)
    ]
    counted = [ms for ms, command in spent if not command.startswith("select k0,")]
    per_second = tps * len(counted)
    # Fetching keys is not part of the measurement, so its time is subtracted.
    per_second *= sum(ms for ms, _ in spent) / sum(counted)
    count = transactions * len(counted)
    return {
        "per_second": per_second,
        "mean_us": 1000 * sum(counted) / len(counted),
        "requests": count,
        "failed": failed,
        "cpu_us": clock.microseconds_each(count),
    }


def timed(command, rows, roots=None, **options):
    """The rows/s of a command that transfers rows."""
    clock = CpuClock(roots or {})
    begun = time.monotonic()
    done = subprocess.run(command, check=False, stderr=subprocess.PIPE, **options)
    seconds = time.monotonic() - begun
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.decode(errors='replace')[-2000:]}")
    return {
        "per_second": rows / seconds,
        "seconds": seconds,
        "requests": rows,
        "failed": 0,
        "cpu_us": clock.microseconds_each(rows),
    }


def psql(cluster, database, copy, rows):
    command = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", cluster.url(database), "-c", copy]
    return timed(command, rows, {"postgres": cluster.pid}, stdout=subprocess.DEVNULL)


def download(running, postgres_pid, path, rows, accept):
    """One long answer, read as fast as possible; `None` if the server does not have this representation."""
    server = running.roots["server"]
    processes.reset_peak_rss(server)
    before = processes.peak_rss_mb(server)
    clock = CpuClock(running.roots | {"postgres": postgres_pid})
    begun = time.monotonic()
    head, tail, received = fetch(running.port, path, accept)
    seconds = time.monotonic() - begun
    if not head.startswith(b"HTTP/1.1 200") or accept.encode() not in head.lower():
        return None
    complete = b"transfer-encoding: chunked" not in head.lower() or tail.endswith(b"0\r\n\r\n")
    return {
        "per_second": rows / seconds,
        "seconds": seconds,
        "requests": rows,
        "bytes": received,
        "failed": 0 if complete else 1,
        "cpu_us": clock.microseconds_each(rows),
        "rss_growth_mb": round(processes.peak_rss_mb(server) - before, 1),
    }


def fetch(port, path, accept):
    """The head, the last bytes and the length of an answer, which is not stored."""
    buffer = bytearray(READ_BYTES)
    head, tail, received = b"", b"", 0
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        while count := connection.recv_into(buffer):
            if received == 0:
                head = bytes(buffer[:count]).partition(b"\r\n\r\n")[0]
            tail = (tail + bytes(buffer[max(0, count - 16) : count]))[-16:]
            received += count
    return head, tail, received


class Downloads(threading.Thread):
    """Exports one after the other until `end`."""

    def __init__(self, port, path):
        super().__init__(daemon=True)
        self._port, self._path = port, path
        self._stopping = threading.Event()
        self.finished = 0

    def run(self):
        while not self._stopping.is_set():
            fetch(self._port, self._path, "application/json")
            self.finished += 1

    def end(self):
        self._stopping.set()
        self.join()
