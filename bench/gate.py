#!/usr/bin/env python3
"""`make bench-gate`: compares instructions per request of get, list and create with a committed baseline.

valgrind counts instructions, so the load of the machine has no influence. The release binary, with one worker thread,
answers one client that sends one request at a time. Counting begins after a warm-up and is done in several parts; the
lowest count is used.

    gate.py             compare with instructions.json, 5 % allowed
    gate.py --accept    make the current measurement the baseline
    gate.py --profile   write a profile of each path to var/gate
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
# Requests before counting, which open connections and prepare statements.
WARM_UP = 30
# Requests per part: enough that a timer has no visible effect, few enough for valgrind.
REQUESTS = {"get": 200, "list": 20, "create": 200}
PARTS = 5
# Generous, because valgrind runs concurrently with the suites of `make test`.
START_DEADLINE_SECONDS = 300.0
STOP_DEADLINE_SECONDS = 120.0
BODY = json.dumps({
    "survived": True, "passengerClass": 2, "name": "Bench, Mr. Post Put", "sex": "male", "age": 27.5,
    "siblingsOrSpousesAboard": 1, "parentsOrChildrenAboard": 0, "fare": 13.25,
})  # fmt: skip


def environment():
    """The environment that the counts depend on in addition to the source: a baseline is valid for one environment."""
    return {
        "compiler": first_line("rustc", "--version"),
        "valgrind": first_line("valgrind", "--version"),
        "libc": " ".join(platform.libc_ver()),
        # valgrind emulates a generic CPU of this class, so code that adapts to the CPU takes the same path.
        "processor": platform.machine() + (" with AVX2" if has_avx2() else ""),
    }


def first_line(*command):
    return needs.run(list(command), cwd=needs.ROOT).strip().partition("\n")[0]


def has_avx2():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        return re.search(r"^flags\s*:.*\bavx2\b", file.read(), re.MULTILINE) is not None


class Client:
    """One connection that sends one request at a time, with the same bytes in every run.

    A request is written at once, as nginx does. http.client writes head and body separately, and on a busy machine the
    server would read the head first.
    """

    def __init__(self, port, keys):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._host = f"127.0.0.1:{port}"
        self._keys = keys
        self._count = 0

    def send(self, path):
        self._count += 1
        if path == "get":
            self._request("GET", "/getpassenger/" + self._keys[self._count % len(self._keys)], None, 200)
        elif path == "list":
            self._request("GET", "/passengerlist", None, 200)
        else:
            self._request("POST", "/postpassenger", BODY, 201)

    def _request(self, method, path, body, expected):
        head = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", "Accept-Encoding: identity"]
        if body:
            head += [f"Content-Length: {len(body)}", "Content-Type: application/json"]
        self._socket.sendall("\r\n".join([*head, "", body or ""]).encode())
        answer = http.client.HTTPResponse(self._socket, method=method)
        answer.begin()
        answer.read()
        if answer.status != expected:
            sys.exit(f"{method} {path}: expected {expected}, got {answer.status}")


def count(binary, cluster, path):
    """Instructions per request of each part, for one server that answers requests of one path."""
    port = free_port()
    out = f"{FOLDER}/{path}"
    env = os.environ | {
        "DATABASE_URL": cluster.url(f"of_{path}"),
        "LISTEN": f"127.0.0.1:{port}",
        "METRICS_LISTEN": f"127.0.0.1:{free_port()}",
        "SEED": "false",
        # Discarded, but the line of the access log is formatted as part of the path.
        "LOG": "info",
        "WORKER_THREADS": "1",
        # Under valgrind everything is fifty times slower.
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
    # The first dump covers the start.
    return [total(f"{out}.{part + 2}") / REQUESTS[path] for part in range(PARTS)]


def dump(server):
    """Has callgrind write the counts since the last dump, and reset them."""
    needs.run(["vgdb", f"--pid={server.pid}", "dump"])


def total(file):
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("totals:"):
                return int(line.split()[1])
    sys.exit(f"no total in valgrind's {file}")


def wait_until_ready(server, port):
    deadline = time.monotonic() + START_DEADLINE_SECONDS
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            # The server listens before a slow preparation of the database is complete.
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
    # Without fsync, because durability is not part of the server's instructions.
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
    # The lowest count: anything in addition (a renewed connection, a timer) is not part of the path.
    return {path: round(min(each)) for path, each in zip(REQUESTS, parts)}


def compare(measured, baseline):
    """Prints a line for each path; returns whether one grew beyond the tolerance."""
    failed = False
    for path, now in measured.items():
        before = baseline["instructions_per_request"].get(path)
        if before is None:
            sys.exit(f"{path}: no baseline; run bench/gate.py --accept and commit bench/instructions.json")
        change = now / before - 1
        verdict = "ok"
        if change > TOLERANCE:
            verdict = "above the limit"
        elif change < -TOLERANCE:
            verdict = "improved: accept it as the baseline"
        print(f"{path:8} {now:10,} instructions per request, baseline {before:10,} {change:+8.2%}  {verdict}")
        failed |= change > TOLERANCE
    return failed


def profile():
    """Writes the self and inclusive cost of every function per request, for the last part."""
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
    output = needs.run(["callgrind_annotate", "--threshold=100", f"--inclusive={inclusive}", "--auto=no", file])
    for cost, function in re.findall(r"^\s*([\d,]+) \([ \d.]+%\)\s+(.*?)(?: \[.*\])?$", output, re.MULTILINE):
        name = re.sub(r"^[^:]*:(?!:)", "", function)
        if inclusive == "no":
            name = re.sub(r"'\d+$", "", name)  # recursion depth
        yield name, int(cost.replace(",", ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accept", action="store_true", help="write the baseline instead of comparing with it")
    parser.add_argument("--profile", action="store_true", help="write profiles to var/gate")
    parser.add_argument("--binary", help="the server's binary (default: build it)")
    options = parser.parse_args()
    needs.install("valgrind", "initdb")
    binary = os.path.abspath(options.binary) if options.binary else needs.build_server()
    here = environment()
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
        # Counts differ between CPUs, libcs and valgrinds; that is no regression of the source.
        print("ignored, because the baseline is for another environment: " + "; ".join(differs))
    elif failed:
        sys.exit(
            f"a path takes over {TOLERANCE:.0%} more instructions than its baseline; analyse it with"
            " bench/gate.py --profile, or, if the cost is justified, run bench/gate.py --accept and commit"
            " bench/instructions.json with the reason"
        )


if __name__ == "__main__":
    main()
