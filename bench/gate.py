#!/usr/bin/env python3
"""`make bench-gate`: instructions per request of get, list and create, against a committed baseline.

Instructions are counted by valgrind, not timed, so a busy machine changes nothing. The release binary, with one worker
thread, answers one client that sends one request at a time. Counting begins after a warm-up and is done in parts, of
which the cheapest counts.

    gate.py             compare with instructions.json, 5 % allowed
    gate.py --accept    make what is measured now the baseline
    gate.py --profile   where the instructions of each path go, as text in var/gate
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import time

import needs
from postgres import Cluster, free_port

HERE = os.path.dirname(os.path.abspath(__file__))
BASELINE = os.path.join(HERE, "instructions.json")
FOLDER = os.path.join(needs.ROOT, "var", "gate")
TOLERANCE = 0.05
# Before anything is counted: connections are opened and statements prepared.
WARM_UP = 30
# A part of each path: enough that a stray timer does not show, few enough for valgrind.
REQUESTS = {"get": 200, "list": 20, "create": 200}
PARTS = 5
# Under valgrind, beside the suites of `make test`.
START_DEADLINE_SECONDS = 300.0
STOP_DEADLINE_SECONDS = 120.0
BODY = json.dumps({
    "survived": True, "passengerClass": 2, "name": "Bench, Mr. Post Put", "sex": "male", "age": 27.5,
    "siblingsOrSpousesAboard": 1, "parentsOrChildrenAboard": 0, "fare": 13.25,
})  # fmt: skip


def circumstances():
    """What the counts depend on besides the source: a baseline is for one set of these."""
    return {
        "compiler": first_line("rustc", "--version"),
        "valgrind": first_line("valgrind", "--version"),
        "libc": " ".join(platform.libc_ver()),
        # valgrind shows programs a plain processor of this class, so code that adapts itself takes the same path.
        "processor": platform.machine() + (" with AVX2" if has_avx2() else ""),
    }


def first_line(*command):
    return needs.run(list(command), cwd=needs.ROOT).strip().partition("\n")[0]


def has_avx2():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return re.search(r"^flags\s*:.*\bavx2\b", file.read(), re.MULTILINE) is not None


class Client:
    """One connection, one request at a time; bytes that do not change from run to run.

    A request is written at once, as nginx does. http.client writes head and body one after the other, and on a busy
    machine the server reads the head alone.
    """

    def __init__(self, port, keys):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._host = f"127.0.0.1:{port}"
        self._keys = keys
        self._count = 0

    def send(self, path):
        self._count += 1
        if path == "get":
            self._ask("GET", "/getpassenger/" + self._keys[self._count % len(self._keys)], None, 200)
        elif path == "list":
            self._ask("GET", "/passengerlist", None, 200)
        else:
            self._ask("POST", "/postpassenger", BODY, 201)

    def _ask(self, method, path, body, expected):
        head = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", "Accept-Encoding: identity"]
        if body:
            head += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
        self._socket.sendall("\r\n".join([*head, "", body or ""]).encode())
        answer = http.client.HTTPResponse(self._socket, method=method)
        answer.begin()
        answer.read()
        if answer.status != expected:
            sys.exit(f"{method} {path} is answered with {answer.status} instead of {expected}")


def count(binary, cluster, path):
    """Instructions per request, part by part, of one server that answers requests of one path."""
    port = free_port()
    out = f"{FOLDER}/{path}"
    env = os.environ | {
        "DATABASE_URL": cluster.url(f"of_{path}"),
        "LISTEN": f"127.0.0.1:{port}",
        "METRICS_LISTEN": f"127.0.0.1:{free_port()}",
        "SEED": "false",
        # To nowhere, but made: the line of the access log is part of the path.
        "LOG": "info",
        "WORKER_THREADS": "1",
        # Under valgrind everything takes fifty times as long.
        "CHECKOUT_TIMEOUT_MS": "60000",
        "STATEMENT_TIMEOUT_MS": "60000",
    }
    server = subprocess.Popen(
        ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--quiet", binary, "serve"],
        env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until_ready(server, port)
        client = Client(port, cluster.psql("of_list", "select uuid from passengers order by uuid").split())
        for _ in range(WARM_UP):
            client.send(path)
        dump(server)
        for _ in range(PARTS):
            for _ in range(REQUESTS[path]):
                client.send(path)
            dump(server)
    finally:
        server.terminate()
        try:
            server.wait(STOP_DEADLINE_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
    # The first dump is the start.
    return [total(f"{out}.{part + 2}") / REQUESTS[path] for part in range(PARTS)]


def dump(server):
    """Has callgrind write what it counted since the last time, and begin at zero."""
    needs.run(["vgdb", f"--pid={server.pid}", "dump"])


def total(file):
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("totals:"):
                return int(line.split()[1])
    sys.exit(f"valgrind left no total in {file}")


def wait_until_ready(server, port):
    deadline = time.monotonic() + START_DEADLINE_SECONDS
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            # It answers before it has prepared the database, when that takes long.
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            answer.read()
            connection.close()
            if answer.status == 200:
                return
        except OSError:
            pass
        if server.poll() is not None or time.monotonic() > deadline:
            server.kill()
            sys.exit("the server does not start under valgrind")
        time.sleep(0.2)


def measure(binary):
    """Instructions per request of each path."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.makedirs(FOLDER)
    # Whether commits reach the disk is not the server's work.
    with Cluster({"shared_buffers": "128MB", "fsync": "off"}) as cluster:
        cluster.create("of_list")
        needs.run([binary, "migrate"], env=os.environ | {"DATABASE_URL": cluster.url("of_list")})
        passengers = os.path.join(needs.ROOT, "data", "passengers.csv")
        needs.run([binary, "import", passengers], env=os.environ | {"DATABASE_URL": cluster.url("of_list")})
        for path in REQUESTS:
            if path != "list":
                cluster.create(f"of_{path}", "of_list")
        with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
            parts = list(threads.map(lambda path: count(binary, cluster, path), REQUESTS))
    # The lowest: whatever comes on top (a connection that is renewed, a timer) is not the path's.
    return {path: round(min(each)) for path, each in zip(REQUESTS, parts)}


def compare(measured, baseline):
    """Prints a line for each path; whether one grew beyond the tolerance."""
    failed = False
    for path, now in measured.items():
        before = baseline["instructions_per_request"].get(path)
        if before is None:
            sys.exit(f"{path}: no baseline; run bench/gate.py --accept and commit bench/instructions.json")
        change = now / before - 1
        verdict = "ok"
        if change > TOLERANCE:
            verdict = "more than is allowed"
        elif change < -TOLERANCE:
            verdict = "accept it as the baseline, so that the gain is kept"
        print(f"{path:8} {now:10,} instructions per request, baseline {before:10,} {change:+8.2%}  {verdict}")
        failed |= change > TOLERANCE
    return failed


def profile():
    """Self and inclusive cost of every function per request, of the last part."""
    for path, requests in REQUESTS.items():
        for kind, flag in (("self", "no"), ("inclusive", "yes")):
            costs = {}
            for function, cost in functions(f"{FOLDER}/{path}.{PARTS + 1}", flag):
                costs[function] = costs.get(function, 0) + cost
            top = sorted(costs.items(), key=lambda item: -item[1])
            with open(f"{FOLDER}/{path}.{kind}.txt", "w", encoding="utf-8") as out:
                out.writelines(f"{cost / requests:12,.0f}  {function}\n" for function, cost in top if cost >= requests)
    print(f"profiles are in {os.path.relpath(FOLDER, needs.ROOT)}")


def functions(file, inclusive):
    said = needs.run(["callgrind_annotate", "--threshold=100", f"--inclusive={inclusive}", "--auto=no", file])
    for cost, function in re.findall(r"^\s*([\d,]+) \([ \d.]+%\)\s+(.*?)(?: \[.*\])?$", said, re.MULTILINE):
        name = re.sub(r"^[^:]*:(?!:)", "", function)
        if inclusive == "no":
            name = re.sub(r"'\d+$", "", name)  # the depth of a recursion
        yield name, int(cost.replace(",", ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accept", action="store_true", help="write the baseline instead of comparing with it")
    parser.add_argument("--profile", action="store_true", help="write where the instructions go to var/gate")
    parser.add_argument("--binary", help="the server's binary (default: built here)")
    options = parser.parse_args()
    needs.install("valgrind", "initdb")
    binary = os.path.abspath(options.binary) if options.binary else needs.build_server()
    here = circumstances()
    measured = measure(binary)
    if options.profile:
        profile()
    if options.accept:
        with open(BASELINE, "w", encoding="utf-8") as file:
            json.dump(here | {"instructions_per_request": measured}, file, indent=2)
            file.write("\n")
        print(f"accepted: {measured}")
        return
    with open(BASELINE, encoding="utf-8") as file:
        baseline = json.load(file)
    differs = [f"{name} is {value!r}, the baseline has {baseline.get(name)!r}"
               for name, value in here.items() if baseline.get(name) != value]  # fmt: skip
    failed = compare(measured, baseline)
    if here["compiler"] != baseline.get("compiler"):
        sys.exit("; ".join(differs) + ": run bench/gate.py --accept and commit it together with the new compiler")
    if failed and differs:
        # Another processor, libc or valgrind counts differently; that is no regression of the source.
        print("not judged, because the baseline is for other circumstances: " + "; ".join(differs))
    elif failed:
        sys.exit(
            f"a path takes over {TOLERANCE:.0%} more instructions than its baseline; see where with"
            " bench/gate.py --profile, or, if what they buy is worth it, run bench/gate.py --accept and commit"
            " bench/instructions.json with the reason"
        )


if __name__ == "__main__":
    main()
