"""The programs that the benchmarks need, installed if missing."""

import glob
import os
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VAR = os.path.join(ROOT, "var", "bench")
TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))

# {command: Debian package}
PACKAGES = {"wrk": "wrk", "nginx": "nginx", "valgrind": "valgrind", "npm": "npm", "initdb": "postgresql"}


def postgres_program(name):
    """The program in PG_BIN if it exists, otherwise the newest installed one: Debian does not have the server's programs in PATH."""
    if (folder := os.environ.get("PG_BIN")) and os.access(named := os.path.join(folder, name), os.X_OK):
        return os.path.abspath(named)
    found = glob.glob(f"/usr/lib/postgresql/*/bin/{name}")
    if found:
        return max(found, key=lambda path: int(path.split("/")[4]))
    return shutil.which(name)


def is_installed(command):
    if command == "initdb":
        return postgres_program(command) is not None
    return shutil.which(command, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin") is not None


def install(*commands):
    missing = sorted({PACKAGES[command] for command in commands if not is_installed(command)})
    if missing:
        print(f"installing {' '.join(missing)}", flush=True)
        run([os.path.join(ROOT, "scripts", "install-packages"), *missing])


def run(command, **options):
    """Runs a command and returns its output; if it fails, exits with its output."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} exited with status {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def build_server():
    print("building the server (release)", flush=True)
    run(["cargo", "build", "--release", "--locked"], cwd=ROOT)
    return os.path.join(TARGET, "release", "pycrudapi")


def build_peers():
    """Installs every peer into var/bench, each from its lock file."""
    print("building the peers", flush=True)
    peers = os.path.join(ROOT, "bench", "peers")
    run(["cargo", "build", "--release", "--locked", "--target-dir", f"{VAR}/target"], cwd=peers)
    for name in ("flask", "fastapi"):
        pinned, venv = f"{peers}/{name}/requirements.txt", f"{VAR}/{name}"
        if newer(pinned, f"{venv}/installed"):
            run([sys.executable, "-m", "venv", venv])
            run([f"{venv}/bin/pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", pinned])
            touch(f"{venv}/installed")
    folder = f"{VAR}/fastify"
    if newer(f"{peers}/fastify/package-lock.json", f"{folder}/installed") or newer(
        f"{peers}/fastify/app.js", f"{folder}/installed"
    ):
        os.makedirs(folder, exist_ok=True)
        for file in ("package.json", "package-lock.json", "app.js"):
            shutil.copy(f"{peers}/fastify/{file}", folder)
        run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder)
        touch(f"{folder}/installed")


def newer(source, product):
    return not os.path.exists(product) or os.path.getmtime(source) > os.path.getmtime(product)


def touch(path):
    with open(path, "w", encoding="ascii"):
        pass
