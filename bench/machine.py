"""The machine and versions of a measurement."""

import datetime
import os
import platform
import re
import shutil
import subprocess
import time

from contestants import CORES
from needs import ROOT

SYNC_TRIES = 200


def describe(cluster, options):
    return {
        "date": datetime.date.today().isoformat(),
        "machine": {
            "processor": processor(),
            "cores": CORES,
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
            "system": f"{distribution()}, Linux {platform.release()}",
            "flush_us": flush_microseconds(cluster.folder),
        },
        "versions": versions(cluster),
        "method": {"rows": options.rows, "seconds": options.seconds, "rounds": options.rounds},
    }


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        text = file.read()
    # Virtual machines hide the model name, but family and model identify the CPU.
    facts = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text, re.MULTILINE))
    name = facts.get("model name", platform.machine())
    return f"{name} (family {facts.get('cpu family')}, model {facts.get('model')})"


def distribution():
    return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")


def flush_microseconds(folder):
    """Median time of flushing one page to the disk of the database, for which a commit waits."""
    times = []
    descriptor = os.open(f"{folder}/flush", os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        for _ in range(SYNC_TRIES):
            os.pwrite(descriptor, b"x" * 8192, 0)
            begun = time.perf_counter()
            os.fdatasync(descriptor)
            times.append(time.perf_counter() - begun)
    finally:
        os.close(descriptor)
        os.unlink(f"{folder}/flush")
    return round(sorted(times)[SYNC_TRIES // 2] * 1e6)


def versions(cluster):
    nginx = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin") or "nginx"
    found = {
        "pycrudapi": output("git", "describe", "--always", "--dirty", "--exclude=*"),
        "rustc": output("rustc", "--version").removeprefix("rustc "),
        "PostgreSQL": cluster.psql("postgres", "show server_version"),
        "nginx": output(nginx, "-v").removeprefix("nginx version: nginx/"),
        "wrk": (re.search(r"wrk (?:debian/)?(\S+)", output("wrk", "-v")) or ["", ""])[1],
        "Python": platform.python_version(),
        "Node.js": output("node", "--version"),
    }
    for name, packages in {"flask": ("Flask", "gunicorn", "psycopg2-binary"),
                           "fastapi": ("fastapi", "uvicorn", "asyncpg")}.items():  # fmt: skip
        found |= pinned(f"{ROOT}/bench/peers/{name}/requirements.txt", packages, r"^({}) *== *(\S+)$")
    found |= pinned(f"{ROOT}/bench/peers/Cargo.lock",
                    ("axum", "deadpool-postgres", "actix-web", "tokio-postgres"),
                    r'^name = "({})"\nversion = "(.*)"$')  # fmt: skip
    found |= pinned(f"{ROOT}/bench/peers/fastify/package-lock.json", ("fastify", "pg"),
                    r'"node_modules/({})": \{{\s*"version": "(.*)"')  # fmt: skip
    return {name: version for name, version in found.items() if version}


def output(*command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    except FileNotFoundError:
        return ""
    return (done.stdout + done.stderr).strip().partition("\n")[0]


def pinned(path, packages, pattern):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    found = {}
    for package in packages:
        match = re.search(pattern.format(re.escape(package)), text, re.MULTILINE | re.IGNORECASE)
        if match:
            found[match[1]] = match[2]
    return found
