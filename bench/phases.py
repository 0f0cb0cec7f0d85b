"""The measurements, phase by phase."""

import contextlib
import csv
import json
import os
import re
import subprocess
import sys
import uuid

import contestants
import load
import needs
import processes
from contestants import NGINX, OURS, PEERS, PGBENCH, PGBENCH_EIGHT, PGBENCH_SOCKET, PLAIN, TOKEN, TRACED, TRACED_SOME

from bench import OTHER, PAGE_FAR, PAGE_ROWS, SMALL_ROWS, Bench

LIST_ROWS = 891
LIST_SECONDS = 2
CONNECTIONS = (1, 16, 64, 256)
PGBENCH_CLIENTS = (1, 2, 4, 8, 16, 32, 64)
PGBENCH_CLIENTS_QUICK = (4, 8, 16)
STARTS = 5


class Phases(Bench):
    """Each method is a phase."""

    def check_answers(self, running, database):
        """Checks that all contestants return the same JSON, because only equal work can be compared."""
        with open(self.csv, encoding="utf-8") as file:
            expected = next(row for row in csv.DictReader(file) if row["uuid"] == self.some_key)
        for name, service in running.items():
            status, _, body = processes.get(service.port, f"/getpassenger/{self.some_key}")
            got = json.loads(body) if status == 200 else {}
            wrong = [field for field in expected if as_text(got.get(field)) != as_csv_number(expected[field])]
            if status != 200 or wrong or list(got) != list(expected):
                sys.exit(f"{name} answers {status} {body!r} to a get; expected {expected}")
            body = json.dumps({field: got[field] for field in got if field != "uuid"})
            headers = {"Content-Type": "application/json"}
            status, _, made = processes.request(service.port, "POST", "/postpassenger", body, headers)
            made = json.loads(made) if status == 201 else {}
            if status != 201 or {**made, "uuid": got["uuid"]} != got or uuid.UUID(made["uuid"]).version != 7:
                sys.exit(f"{name} answers {status} {made} to a create of {body}")
            self.cluster.psql(database, f"delete from passengers where uuid = '{made['uuid']}'")

    def get(self):
        with self.all_contestants("million") as running:
            self.check_answers(running, "million")
            clients = self.best_pgbench_clients()
            for connections in CONNECTIONS:
                measures = {}
                for name, service in running.items():
                    # Peers are compared at 64 connections, and at 1, where no queue forms.
                    if name in (OURS, NGINX, OTHER) or connections == 64 or (connections == 1 and name in PEERS):
                        measures[name] = lambda s=service, c=connections: self.wrk(s, "get", c)
                if connections >= 64:
                    measures[PGBENCH] = lambda: self.pgbench("select", clients)
                    if clients != 8:
                        measures[PGBENCH_EIGHT] = lambda: self.pgbench("select", 8)
                if connections == 64:
                    measures[PGBENCH_SOCKET] = lambda: self.pgbench("select", clients, True)
                self.rounds(f"get {connections}", measures)

    def best_pgbench_clients(self):
        candidates = PGBENCH_CLIENTS_QUICK if self.options.quick else PGBENCH_CLIENTS
        found = {clients: self.pgbench("select", clients)["per_second"] for clients in candidates}
        self.notes["pgbench select by clients"] = {clients: round(rate) for clients, rate in found.items()}
        print(f"  pgbench select by clients: {self.notes['pgbench select by clients']}", flush=True)
        best = max(found, key=found.get)
        self.notes["pgbench clients"] = best
        return best

    def memory(self):
        """Peak memory of a new server under 64 connections, including its start."""
        with contestants.ours(self.binary, self.cluster.url("million")) as running:
            peaks = {}
            for script in ("get", "create"):
                measured = load.wrk(running, self.cluster.pid, script, 64, self.options.seconds, self.keys)
                peaks[script] = measured["rss_mb"]["server"]
            self.notes["peak_rss_mb"] = peaks

    def access_log(self):
        """The cost of the access log, direct and behind nginx: written to a file, or off."""
        url, log = self.cluster.url("million"), f"{needs.VAR}/access.log"
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(self.folder())
            enter = stack.enter_context
            running = {
                OURS: enter(contestants.ours(self.binary, url)),
                f"{OURS}, access log written": enter(contestants.ours(self.binary, url, log)),
                NGINX: enter(contestants.behind_nginx(self.binary, url, f"{folder}/quiet")),
                f"{NGINX}, both logs written": enter(
                    contestants.behind_nginx(self.binary, url, f"{folder}/logging", log)
                ),
            }
            self.rounds("access log", {n: lambda s=s: self.wrk(s, "get", 64) for n, s in running.items()})
        os.unlink(log)

    def traces(self):
        """The cost of traces: of no request, of one in a hundred, of each; the collector, on the same cores, discards them."""
        url = self.cluster.url("million")
        with contextlib.ExitStack() as stack:
            enter = stack.enter_context
            sent = enter(contestants.collector(enter(self.folder())))
            some = sent | {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"}
            running = {
                OURS: enter(contestants.ours(self.binary, url)),
                TRACED_SOME: enter(contestants.ours(self.binary, url, traces=some)),
                TRACED: enter(contestants.ours(self.binary, url, traces=sent)),
            }
            self.rounds("traces", {n: lambda s=s: self.wrk(s, "get", 64) for n, s in running.items()})

    def token(self):
        """The cost of authentication with a token."""
        url = self.cluster.url("million")
        with (
            contestants.ours(self.binary, url) as anonymous,
            contestants.ours(self.binary, url, with_token=True) as authenticated,
        ):
            measures = {
                OURS: lambda: self.wrk(anonymous, "get", 64),
                TOKEN: lambda: self.wrk(authenticated, "get", 64),
            }
            self.rounds("token", measures)

    def growth(self):
        with (
            contestants.ours(self.binary, self.cluster.url("million")) as large,
            contestants.ours(self.binary, self.cluster.url("thousand")) as small,
        ):
            measures = {
                f"{self.options.rows:,} rows": lambda: self.wrk(large, "get", 64),
                f"{SMALL_ROWS:,} rows": lambda: self.wrk(small, "get", 64, self.few_keys),
            }
            self.rounds("growth", measures)
            first = f"/v1/passengers?limit={PAGE_ROWS}"
            cursor = cursor_after(large.port, self.far_key)
            pages = {"page 1": first, f"page {PAGE_FAR:,}": f"{first}&after={cursor}"}
            self.rounds("page", {n: lambda p=p: self.wrk(large, "path", 16, p) for n, p in pages.items()})

    def list(self):
        with self.all_contestants("list") as running:
            wanted = processes.get(running[OURS].port, "/passengerlist")[2]
            for name, service in running.items():
                body = processes.get(service.port, "/passengerlist")[2]
                if json.loads(body) != json.loads(wanted) or len(json.loads(body)) != LIST_ROWS:
                    sys.exit(f"{name} does not return the same {LIST_ROWS} passengers")
            # The slowest peer returns only a few lists per second.
            self.options.seconds, seconds = max(LIST_SECONDS, self.options.seconds), self.options.seconds
            measures = {n: lambda s=s: self.wrk(s, "path", 64, "/passengerlist") for n, s in running.items()}
            measures[f"{OURS}, 1 connection"] = lambda: self.wrk(running[OURS], "path", 1, "/passengerlist")
            self.rounds("list", measures)
            self.options.seconds = seconds

    def export(self):
        rows, million = self.options.rows, self.cluster.url("million")
        env = os.environ | {"DATABASE_URL": million}
        pg = self.cluster.pid
        with contestants.ours(self.binary, million) as running:
            self.rounds("export", {
                "psql \\copy, CSV": lambda: load.psql(
                    self.cluster, "million", f"\\copy passengers ({load.COLUMNS}) to '/dev/null' csv header", rows),
                "pycrudapi export, CSV": lambda: load.timed(
                    [self.binary, "export"], rows, {"postgres": pg}, env=env, stdout=subprocess.DEVNULL),
                "GET /passengerlist, CSV": lambda: load.download(running, pg, "/passengerlist", rows, "text/csv"),
                "GET /passengerlist, JSON": lambda: load.download(
                    running, pg, "/passengerlist", rows, "application/json"),
            })  # fmt: skip

    def fairness(self):
        """Gets by key during continuous exports."""
        with contestants.ours(self.binary, self.cluster.url("million")) as running:

            def during_exports():
                exports = load.Downloads(running.port, "/passengerlist")
                exports.start()
                try:
                    return self.wrk(running, "get", 16)
                finally:
                    exports.end()

            self.rounds("fairness", {"alone": lambda: self.wrk(running, "get", 16), "during exports": during_exports})

    def importing(self):
        rows = self.options.rows
        env = os.environ | {"DATABASE_URL": self.cluster.url("imported")}

        def fresh():
            self.cluster.drop("imported")
            self.cluster.create("imported", "empty")
            self.cluster.psql("postgres", "checkpoint")

        self.rounds("import", {
            "psql \\copy, CSV": lambda: load.psql(
                self.cluster, "imported", f"\\copy passengers ({load.COLUMNS}) from '{self.csv}' csv header", rows),
            "pycrudapi import, CSV": lambda: load.timed(
                [self.binary, "import", self.csv], rows, {"postgres": self.cluster.pid},
                env=env | {"RESOURCES_DIR": contestants.without_history()}, stdout=subprocess.DEVNULL),
            "pycrudapi import, CSV, with history": lambda: load.timed(
                [self.binary, "import", self.csv], rows, {"postgres": self.cluster.pid}, env=env,
                stdout=subprocess.DEVNULL),
        }, before=fresh)  # fmt: skip
        self.cluster.drop("imported")

    def create(self):
        url = self.cluster.url("million")
        plain = contestants.ours(self.binary, url, resources=contestants.without_history())
        with self.all_contestants("million") as running, plain as running[PLAIN]:
            measures = {n: lambda s=s: self.wrk(s, "create", 64) for n, s in running.items()}
            measures[PGBENCH] = lambda: self.pgbench("insert", 64)
            self.rounds("create", measures, before=self.checkpoint)

    def replace(self):
        url = self.cluster.url("million")
        plain = contestants.ours(self.binary, url, resources=contestants.without_history())
        with self.all_contestants("million", peers=False) as running, plain as running[PLAIN]:
            measures = {n: lambda s=s: self.wrk(s, "replace", 64) for n, s in running.items()}
            self.rounds("replace", measures, before=self.checkpoint)

    def mix(self):
        with self.all_contestants("million", peers=not self.options.quick) as running:
            measures = {n: lambda s=s: self.wrk(s, "mix", 64) for n, s in running.items()}
            self.rounds("mix", measures, before=self.checkpoint)

    def air_quality(self):
        """The cached answer for the last hour."""
        readings = os.path.join(needs.ROOT, "data", "air_quality.csv")
        self.server("import", "list", "--resource", "air-quality", readings)
        with self.all_contestants("list", peers=False) as running:
            for name, service in running.items():
                answers = [json.loads(processes.get(service.port, "/air_quality")[2]) for _ in range(2)]
                if not answers[0]["entities"] or not answers[1]["cache"]:
                    sys.exit(f"{name} does not answer /air_quality from its cache")
            measures = {n: lambda s=s: self.wrk(s, "path", 64, "/air_quality") for n, s in running.items()}
            self.rounds("air quality", measures)

    def start(self):
        times = []
        for _ in range(STARTS):
            with contestants.ours(self.binary, self.cluster.url("million")) as running:
                times.append(running.start_seconds * 1000)
        self.notes["ready_ms"] = round(sorted(times)[len(times) // 2], 1)


# Reads first, because writes grow the table.
PHASES = {
    "start": Phases.start,
    "get": Phases.get,
    "growth": Phases.growth,
    "token": Phases.token,
    "list": Phases.list,
    "export": Phases.export,
    "fairness": Phases.fairness,
    "import": Phases.importing,
    "air-quality": Phases.air_quality,
    "access-log": Phases.access_log,
    "traces": Phases.traces,
    "memory": Phases.memory,
    "create": Phases.create,
    "replace": Phases.replace,
    "mix": Phases.mix,
}


def as_text(value):
    """A JSON value in CSV form."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return as_csv_number(str(value))


def as_csv_number(text):
    return text.removesuffix(".0")


def cursor_after(port, key):
    """The cursor in the next link after this key."""
    _, headers, _ = processes.get(port, f"/v1/passengers?uuid=gte.{key}&limit=1")
    return re.search(r"after=([\w-]+)", headers["Link"])[1]
