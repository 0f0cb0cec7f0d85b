"""The contestants, and how each is started on a database."""

import contextlib
import os

import processes
from needs import ROOT, VAR, run
from postgres import free_port

CORES = len(os.sched_getaffinity(0))

# Without access log: Flask under gunicorn, Fastify, axum and actix write none by default, and the cost of ours is measured
# separately.
QUIET = {"LOG": "info,access=off"}
LOGGING = {"LOG": "info"}

OURS = "pycrudapi"
# Without a history of passengers: the same work as peers and PostgreSQL's own tools.
PLAIN = "pycrudapi, no history"
TOKEN = "pycrudapi, with a token"
TRACED = "pycrudapi, every request traced"
TRACED_SOME = "pycrudapi, 1 % traced"
NGINX = "pycrudapi behind nginx"
FLASK = "Flask + psycopg2"
FASTAPI = "FastAPI + asyncpg"
FASTIFY = "Fastify + pg"
AXUM = "axum + deadpool-postgres"
ACTIX = "actix-web + tokio-postgres"
PGBENCH = "pgbench"
PGBENCH_SOCKET = "pgbench over a Unix socket"
# In addition to the best number of clients, which on two cores is two, because then no core is idle and there are no context switches.
PGBENCH_EIGHT = "pgbench, 8 clients"
PEERS = (FLASK, FASTAPI, FASTIFY, AXUM, ACTIX)
# actix-web has one database connection per thread and no pool.
CHECKOUT_PEERS = (FLASK, FASTAPI, FASTIFY, AXUM)

LOG_FILE = os.path.join(VAR, "contestants.log")


class Running:
    """A started contestant: its port, and the root of each of its process trees, whose CPU time is counted."""

    def __init__(self, port, roots, start_seconds, headers=()):
        self.port = port
        self.roots = roots
        self.start_seconds = start_seconds
        # Headers sent with every get: one, or none.
        self.headers = headers


def without_history():
    """A folder with the built-in description of passengers, but without history."""
    folder = f"{VAR}/without-history"
    os.makedirs(folder, exist_ok=True)
    with open(f"{ROOT}/resources/passengers.toml", encoding="utf-8") as file:
        described = file.read()
    with open(f"{folder}/passengers.toml", "w", encoding="utf-8") as file:
        file.write(described.replace("\nhistory = true\n", "\n"))
    return folder


@contextlib.contextmanager
def ours(binary, database_url, access_log=None, resources="", with_token=False, traces=None):
    """The server alone, with default settings except for the access log, which is written to the given file or off."""
    port = free_port()
    headers = ()
    if with_token:
        make = [binary, "token", "create", "--name", "bench", "--scope", "*:read", "--expires", "1h"]
        output = run(make, env=os.environ | {"DATABASE_URL": database_url}).split()
        headers = (f"Authorization: Bearer {next(word for word in output if word.startswith('pycrudapi_'))}",)
    settings = {
        "AUTH": "on" if with_token else "off",
        "DATABASE_URL": database_url,
        "LISTEN": f"127.0.0.1:{port}",
        "METRICS_LISTEN": f"127.0.0.1:{free_port()}",
        "SEED": "false",
        "RESOURCES_DIR": resources,
    }
    env = settings | (traces or {}) | (LOGGING if access_log else QUIET)
    with processes.Service([binary, "serve"], port, env, path="/readyz", log=access_log or LOG_FILE) as service:
        yield Running(port, {"server": service.pid}, service.start_seconds, headers)


@contextlib.contextmanager
def collector(folder):
    """A trace collector (an nginx) that discards everything; yields the settings for sending traces to it."""
    port = free_port()
    configuration = f"{folder}/collector.conf"
    with open(configuration, "w", encoding="utf-8") as file:
        file.write(
            f"daemon off; pid {folder}/collector.pid; error_log stderr; worker_processes 1; events {{}}\n"
            f"http {{ access_log off; client_max_body_size 0; client_body_temp_path {folder}/body; server {{\n"
            f"listen 127.0.0.1:{port}; keepalive_requests 1000000; location / {{ return 200; }} }} }}\n"
        )
    with processes.Service(["nginx", "-e", "stderr", "-c", configuration], port, path="/", log=LOG_FILE):
        # Enough for the spans of a second, because dropped spans would reduce the cost.
        yield {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_BSP_MAX_QUEUE_SIZE": "100000"}


@contextlib.contextmanager
def behind_nginx(binary, database_url, run_dir, access_log=None):
    """The server and the project's own nginx in front of its Unix socket, without limits per client."""
    os.makedirs(run_dir, mode=0o711)  # workers of root's nginx are another user and must reach the socket
    socket_path, inner, port = f"{run_dir}/pycrudapi.sock", free_port(), free_port()
    settings = {
        "DATABASE_URL": database_url,
        "LISTEN": f"127.0.0.1:{inner},unix:{socket_path}",
        "METRICS_LISTEN": f"127.0.0.1:{free_port()}",
        "SEED": "false",
    }
    front = {
        "RUN_DIR": run_dir,
        "HTTP_PORT": str(port),
        "RATE_LIMIT": "off",
        "CONN_LIMIT": "off",
        "ACCESS_LOG": "on" if access_log else "off",
    }
    env = settings | (LOGGING if access_log else QUIET)
    with processes.Service([binary, "serve"], inner, env, path="/readyz", log=access_log or LOG_FILE) as server:
        os.chmod(socket_path, 0o666)  # as in the supervised stack
        with processes.Service([binary, "nginx"], port, front, path="/readyz", log=access_log or LOG_FILE) as nginx:
            yield Running(port, {"server": server.pid, "nginx": nginx.pid}, server.start_seconds)


@contextlib.contextmanager
def peer(name, database_url):
    """A peer in its usual production setup: a process or a thread per core."""
    port = free_port()
    env = {"DATABASE_URL": database_url, "PORT": str(port)}
    folder = os.path.join(ROOT, "bench", "peers")
    cwd = None
    if name == FLASK:
        # As gunicorn's documentation recommends: twice the cores plus one; threads, because its sync workers do not support keep-alive.
        env["THREADS"] = "4"
        cwd = f"{folder}/flask"
        command = [f"{VAR}/flask/bin/gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", str(2 * CORES + 1),
                   "--worker-class", "gthread", "--threads", "4", "--keep-alive", "75", "app:app"]  # fmt: skip
    elif name == FASTAPI:
        cwd = f"{folder}/fastapi"
        command = [f"{VAR}/fastapi/bin/uvicorn", "--port", str(port), "--workers", str(CORES), "--loop", "uvloop",
                   "--http", "httptools", "--no-access-log", "--log-level", "warning", "app:app"]  # fmt: skip
    elif name == FASTIFY:
        env["NODE_ENV"] = "production"
        command = ["node", f"{VAR}/fastify/app.js"]
    else:
        command = [f"{VAR}/target/release/peer-{'axum' if name == AXUM else 'actix'}"]
    with processes.Service(command, port, env, cwd=cwd, log=LOG_FILE) as service:
        yield Running(port, {"server": service.pid}, service.start_seconds)
