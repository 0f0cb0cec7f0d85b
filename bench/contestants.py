"""Who is measured, and how each is started on a database."""

import contextlib
import os

import processes
from needs import ROOT, VAR, run
from postgres import free_port

CORES = len(os.sched_getaffinity(0))

# Nobody writes an access log: Flask under gunicorn, Fastify, axum and actix write none unless asked to, and the cost
# of ours is measured by itself.
QUIET = {"LOG": "info,access=off"}
LOGGING = {"LOG": "info"}

OURS = "pycrudapi"
# The same without a history of passengers: the work that peers and PostgreSQL's own tools do.
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
# Beside its best count, which on two cores is two, because then neither core is ever idle and nobody switches.
PGBENCH_EIGHT = "pgbench, 8 clients"
PEERS = (FLASK, FASTAPI, FASTIFY, AXUM, ACTIX)
# actix-web has one client per thread and checks nothing out.
CHECKOUT_PEERS = (FLASK, FASTAPI, FASTIFY, AXUM)

LOG_FILE = os.path.join(VAR, "contestants.log")


class Running:
    """A started contestant: its port, and the root of each process tree whose CPU time is its own."""

    def __init__(self, port, roots, start_seconds, headers=()):
        self.port = port
        self.roots = roots
        self.start_seconds = start_seconds
        # Sent with every get: one, or none.
        self.headers = headers


def without_history():
    """A folder whose passengers are those of the program but for their history."""
    folder = f"{VAR}/without-history"
    os.makedirs(folder, exist_ok=True)
    with open(f"{ROOT}/resources/passengers.toml", encoding="utf-8") as file:
        described = file.read()
    with open(f"{folder}/passengers.toml", "w", encoding="utf-8") as file:
        file.write(described.replace("\nhistory = true\n", "\n"))
    return folder


@contextlib.contextmanager
def ours(binary, database_url, access_log=None, resources="", with_token=False, traces=None):
    """The server alone, as it is after installation but for the access log, which goes to the named file or nowhere."""
    port = free_port()
    headers = ()
    if with_token:
        make = [binary, "token", "create", "--name", "bench", "--scope", "*:read", "--expires", "1h"]
        said = run(make, env=os.environ | {"DATABASE_URL": database_url}).split()
        headers = (f"Authorization: Bearer {next(word for word in said if word.startswith('pycrudapi_'))}",)
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
    """Takes whatever it is sent and throws it away: an nginx; yields the settings of who sends traces there."""
    port = free_port()
    configuration = f"{folder}/collector.conf"
    with open(configuration, "w", encoding="utf-8") as file:
        file.write(
            f"daemon off; pid {folder}/collector.pid; error_log stderr; worker_processes 1; events {{}}\n"
            f"http {{ access_log off; client_max_body_size 0; client_body_temp_path {folder}/body; server {{\n"
            f"listen 127.0.0.1:{port}; keepalive_requests 1000000; location / {{ return 200; }} }} }}\n"
        )
    with processes.Service(["nginx", "-e", "stderr", "-c", configuration], port, path="/", log=LOG_FILE):
        # Room for the spans of a second: what is dropped would cost less.
        yield {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_BSP_MAX_QUEUE_SIZE": "100000"}


@contextlib.contextmanager
def behind_nginx(binary, database_url, run_dir, access_log=None):
    """The server and the project's own nginx in front of its Unix socket, without limits per client."""
    os.makedirs(run_dir, mode=0o711)  # root's nginx becomes another user and must reach the socket
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
        os.chmod(socket_path, 0o666)  # as supervisord.conf has it
        with processes.Service([binary, "nginx"], port, front, path="/readyz", log=access_log or LOG_FILE) as nginx:
            yield Running(port, {"server": server.pid, "nginx": nginx.pid}, server.start_seconds)


@contextlib.contextmanager
def peer(name, database_url):
    """A peer as its users would start it in production: a process or a thread per core."""
    port = free_port()
    env = {"DATABASE_URL": database_url, "PORT": str(port)}
    folder = os.path.join(ROOT, "bench", "peers")
    cwd = None
    if name == FLASK:
        # gunicorn's documentation: twice the cores and one; threads, because its plain workers know no keep-alive.
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
