"""A whole service that is watched: PostgreSQL with a standby, Redis, an issuer's keys, nginx, the server, and the watchers; and load on it."""

import contextlib
import http.client
import json
import os
import pwd
import shutil
import signal
import subprocess
import threading

import crowd
import watchers
from needs import postgres_program
from postgres import Cluster
from support import BINARY_DIR, PASSENGER, REPOSITORY, StandIn, Stack, clean_environment, free_port, open_to_all, reply, short_directory, until

DATABASE = "pycrudapi"
# Few, so that they are soon taken; archiving, so that it can fail.
POSTGRES = {
    "max_connections": "40",
    "shared_buffers": "64MB",
    "max_wal_size": "64MB",
    "min_wal_size": "32MB",
    "wal_init_zero": "off",
    "checkpoint_timeout": "5min",
    "deadlock_timeout": "100ms",
    "archive_mode": "on",
    "autovacuum": "on",
    # So much that PostgreSQL freezes nothing by itself.
    "autovacuum_freeze_max_age": "2000000000",
}
# RFC 7517, appendix A.1: a public key is all that an issuer shows.
KEYS = {"keys": [{"kty": "EC", "crv": "P-256", "kid": "1", "alg": "ES256",
                  "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}  # fmt: skip


class Standby:
    """A physical standby of a cluster, beside it."""

    def __init__(self, primary, port):
        self.folder = f"{primary.folder}/standby"
        self.port = port
        user = {}
        if os.geteuid() == 0:
            postgres = pwd.getpwnam("postgres")
            user = {"user": postgres.pw_uid, "group": postgres.pw_gid, "extra_groups": []}
        source = f"host=127.0.0.1 port={primary.port} user=postgres application_name=standby"
        subprocess.run([postgres_program("pg_basebackup"), "-d", source, "-D", self.folder, "-R", "-c", "fast", "-C", "-S", "standby"], cwd="/", check=True, **user)
        self.log = open(f"{primary.folder}/standby.log", "wb")  # noqa: SIM115
        self.process = subprocess.Popen(
            [postgres_program("postgres"), "-D", self.folder, "-k", primary.folder, "-p", str(self.port), "--listen_addresses=127.0.0.1"]
            + [f"--{name}={value}" for name, value in POSTGRES.items()],
            cwd="/", stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, **user,
        )  # fmt: skip
        until(lambda: self.psql("select 1", check=False) == "1", "the standby answers")

    def psql(self, command, check=True):
        url = f"postgres://postgres@127.0.0.1:{self.port}/postgres"
        return subprocess.run(["psql", "-XqAt", "-c", command, url], capture_output=True, text=True, check=check).stdout.strip()

    def stop(self):
        # A fast shutdown: a smart one would wait for the service's sessions.
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        self.log.close()


class World:
    """Everything, started by `start` and ended by `end`; what drills break are its attributes."""

    def __init__(self, directory, cluster):
        self.directory, self.postgres = directory, cluster
        self.ends = contextlib.ExitStack()

    def start(self):
        try:
            self._start()
        except BaseException:
            self.ends.close()
            raise
        return self

    def _start(self):
        self.postgres.create(DATABASE)
        # Not on the command line, which a drill could not change.
        self.postgres.psql("postgres", "alter system set archive_command = 'true'", "select pg_reload_conf()")
        # None where mounting takes rights that nobody has.
        self.small_disk = mount(self.directory / "disk", "16m")
        if self.small_disk:
            self.ends.callback(lambda: subprocess.run(["umount", "--lazy", str(self.small_disk)], check=False))
        # The same: None, or a group with a limit of memory and the words that run a program in it.
        self.group = None
        with contextlib.suppress(crowd.NoControlGroup):
            self.group = self.ends.enter_context(crowd.memory_group())
        self.standby_port = free_port()
        self.start_standby()
        self.ends.callback(lambda: self.standby.stop())
        self.start_redis()
        self.ends.callback(lambda: self.redis.end())
        self.issuer_port = free_port()
        self.start_issuer()
        self.ends.callback(lambda: self.issuer.close())
        # It takes traces, and keeps none.
        collector_port = free_port()
        self.collector = StandIn(collector_port, lambda connection, _head: reply(connection, b""))
        self.ends.callback(self.collector.close)
        self.certificate(days=90)
        stack = self.directory / "stack"
        stack.mkdir(mode=0o755)
        self.status_port = free_port()
        self.stack = Stack(
            stack, DATABASE_URL=f"postgres://pycrudapi:x@127.0.0.1:{self.postgres.port}/{DATABASE}", MIGRATE_USER="postgres", MIGRATE_PASSWORD="x",
            DATABASE_READ_URL=f"postgres://pycrudapi:x@127.0.0.1:{self.standby_port}/{DATABASE}",
            REDIS_URL=f"redis://127.0.0.1:{self.redis.port}/0", RATE_LIMIT="off", CONN_LIMIT="off", TLS_CERT=self.directory / "tls.crt",
            TLS_KEY=self.directory / "tls.key", AUTH="on", AUTH_ANONYMOUS_SCOPES="*:read", AUTH_ISSUER="https://issuer.example", AUTH_AUDIENCE="urn:test",
            AUTH_JWKS_URL=f"http://127.0.0.1:{self.issuer_port}/jwks", AUTH_JWKS_REFRESH="1s", LOG_FORMAT="json", POOL_SIZE="6", CHECKOUT_TIMEOUT_MS="300",
            NGINX_STATUS_PORT=self.status_port, TLS_SELF_SIGNED="false", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{collector_port}",
            OTEL_EXPORTER_OTLP_TIMEOUT=1000, OTEL_BSP_SCHEDULE_DELAY=500, OTEL_TRACES_SAMPLER="parentbased_traceidratio", OTEL_TRACES_SAMPLER_ARG="0.5",
        )  # fmt: skip
        self.ends.callback(self.stack.destroy)
        self.stack.start()
        self.token = self.program("token", "create", "--name", "load", "--scope", "*:*").strip()
        environment = clean_environment(MONITOR_PASSWORD="x")
        role = REPOSITORY / "monitoring" / "postgres" / "role.sql"
        subprocess.run(["psql", "-Xq", "-f", str(role), self.postgres.url("postgres")], env=environment, check=True, capture_output=True)
        self.watch()

    def watch(self):
        monitor = f"postgresql://monitor:x@127.0.0.1:{self.postgres.port}/{DATABASE}?sslmode=disable"
        self.exporters = {
            "postgres": watchers.postgres_exporter(monitor),
            "nginx": watchers.nginx_exporter(f"http://127.0.0.1:{self.status_port}/stub_status"),
            "node": watchers.node_exporter(),
            "blackbox": watchers.blackbox_exporter(),
        }
        if self.group:
            self.exporters["cadvisor"] = watchers.ContainerMetrics(self.group[0], "pycrudapi")
        self.ends.callback(lambda: [each.end() for each in self.exporters.values()])
        self.receiver = watchers.Receiver()
        self.ends.callback(self.receiver.close)
        self.alertmanager = watchers.Alertmanager(self.directory / "alertmanager", self.receiver)
        self.ends.callback(self.alertmanager.end)
        targets = {job: f"127.0.0.1:{each.port}" for job, each in self.exporters.items()}
        targets |= {"pycrudapi": f"127.0.0.1:{self.stack.metrics_port}", "entrance": f"https://127.0.0.1:{self.stack.https_port}/readyz"}
        self.prometheus = watchers.Prometheus(self.directory / "prometheus", targets, self.alertmanager)
        self.ends.callback(self.prometheus.end)
        # Every target was scraped: from then on an alert means something.
        until(lambda: len(self.prometheus.query("up == 1")) == len(targets) - 1, "every target is scraped", 60)

    def start_redis(self):
        port = self.redis.port if hasattr(self, "redis") else free_port()
        command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", self.directory]
        self.redis = watchers.Watcher(command, port)

    def start_standby(self):
        self.standby = Standby(self.postgres, self.standby_port)

    def end_standby(self):
        """Ends it, and forgets that there was one."""
        self.standby.stop()
        shutil.rmtree(self.standby.folder)
        until(lambda: self.psql("select count(*) from pg_replication_slots where active") == "0", "nobody reads the standby's slot")
        self.psql("select pg_drop_replication_slot('standby')")

    def start_issuer(self):
        self.issuer = StandIn(self.issuer_port, lambda connection, _head: reply(connection, json.dumps(KEYS).encode()))

    def certificate(self, days):
        """Puts a new certificate in the place of the old one."""
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost",
                   "-days", str(days), "-out", self.directory / "tls.crt", "-keyout", self.directory / "tls.key"]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        open_to_all(self.directory)
        (self.directory / "tls.key").chmod(0o644)

    def program(self, *words):
        """What a subcommand printed, run with the stack's settings."""
        command = [BINARY_DIR / "pycrudapi", *words]
        done = subprocess.run(command, env=self.stack.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def supervisorctl(self, *words):
        command = ["supervisorctl", "-c", REPOSITORY / "supervisord.conf", *words]
        subprocess.run(command, env=self.stack.environment, check=True, capture_output=True)

    def psql(self, *commands):
        return self.postgres.psql(DATABASE, *commands)

    def sessions(self, count, command):
        """So many sessions that run a command, on their own processes."""
        url = self.postgres.url(DATABASE)
        return [subprocess.Popen(["psql", "-Xq", "-c", command, url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(count)]

    def end(self):
        self.ends.close()


@contextlib.contextmanager
def whole():
    with short_directory() as directory, Cluster(POSTGRES) as cluster:
        world = World(directory, cluster)
        try:
            yield world.start()
        finally:
            world.end()


class Load:
    """Clients that ask for a bit of everything without pause until they are ended."""

    def __init__(self, world, clients=2):
        self.world, self.ended = world, threading.Event()
        self.answered, self.by_status = 0, {}
        self.threads = [threading.Thread(target=self.run, args=(number,), daemon=True) for number in range(clients)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join()

    def run(self, number):
        connection = http.client.HTTPConnection("127.0.0.1", self.world.stack.port, timeout=30)
        turn, created = 0, ""
        while not self.ended.is_set():
            turn += 1
            for method, path, body, headers in self.requests(f"{number}-{turn}"):
                try:
                    credentials = {"authorization": f"Bearer {self.world.token}"}
                    connection.request(method, path or created, body=body, headers={**credentials, **headers})
                    response = connection.getresponse()
                    response.read()
                    status = response.status
                    created = response.getheader("location") or created
                except (OSError, http.client.HTTPException):
                    connection.close()
                    status = "broken"
                self.answered += 1
                self.by_status[status] = self.by_status.get(status, 0) + 1
                # So much that every panel has its curve, and the machine is nobody's alone.
                if self.ended.wait(0.002):
                    break
        connection.close()

    def requests(self, name):
        """(method, path, body, headers); without a path it is the passenger that was created last."""
        json_type = {"content-type": "application/json"}
        one = json.dumps({**PASSENGER, "name": name})
        yield "POST", "/v1/passengers", one, {**json_type, "idempotency-key": name}
        yield "POST", "/v1/passengers", one, {**json_type, "idempotency-key": name}
        yield "POST", "/v1/passengers", json.dumps([{**PASSENGER, "name": name}] * 20), json_type
        yield "GET", "/v1/passengers?limit=50", None, {}
        yield "GET", f"/v1/passengers?name=eq.{name}", None, {}
        yield "GET", "/v1/passengers/stats?by=sex", None, {}
        yield "GET", "/v1/passengers/00000000-0000-4000-8000-000000000000", None, {}
        yield "GET", "", None, {}
        yield "PATCH", "", json.dumps({"age": 30}), {"content-type": "application/merge-patch+json"}
        yield "DELETE", "", None, {}
        yield "GET", "/air_quality", None, {}
        yield "GET", "/v1/steps/durations", None, {}
        yield "POST", "/v1/passengers", "{}", json_type


def mount(directory, size):
    """A small file system of its own, or None."""
    directory.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "pycrudapi-test", str(directory)], capture_output=True, check=False)
    return directory if done.returncode == 0 else None
