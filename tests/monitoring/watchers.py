"""Prometheus, Alertmanager, the exporters and a receiver of notifications, as real processes on free ports of this machine.

They read the configuration files of monitoring/; only intervals, targets and the receiver's address are replaced.
"""

import contextlib
import http.server
import json
import re
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request

import yaml

from support import REPOSITORY, Process, clean_environment, free_port, until

MONITORING = REPOSITORY / "monitoring"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# A sixtieth of what stands in the rules, but enough samples for a rate. The windows of the objectives, of up to three days, become
# at most six minutes, and the slow burns end within half a minute.
SHORTENED, SHORTENED_OBJECTIVES, SHORTEST_SECONDS = 60, 720, 12


class Watcher(Process):
    """A process that listens on a port, with a file or directory of its own."""

    def __init__(self, command, port, **environment):
        self.command, self.environment = [str(word) for word in command], environment
        # It ends with the tests, however these end.
        super().__init__(["setpriv", "--pdeathsig", "TERM", *self.command], clean_environment(**environment))
        self.port = port
        until(lambda: not self.running or self.listening(), f"{command[0]} listens")
        assert self.running, self.output

    def listening(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True

    def end(self):
        if self.running:
            self.process.terminate()
        self.wait()

    def again(self):
        """The same on the same port."""
        return Watcher(self.command, self.port, **self.environment)


def postgres_exporter(url):
    port = free_port()
    command = ["prometheus-postgres-exporter", f"--web.listen-address=127.0.0.1:{port}",
               f"--extend.query-path={MONITORING / 'postgres' / 'queries.yml'}"]  # fmt: skip
    return Watcher(command, port, DATA_SOURCE_NAME=url)


def nginx_exporter(status):
    port = free_port()
    return Watcher(["prometheus-nginx-exporter", f"-web.listen-address=127.0.0.1:{port}", f"-nginx.scrape-uri={status}"], port)


def blackbox_exporter():
    port = free_port()
    command = ["prometheus-blackbox-exporter", f"--config.file={MONITORING / 'blackbox' / 'blackbox.yml'}",
               f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
    return Watcher(command, port)


def node_exporter():
    port = free_port()
    command = ["prometheus-node-exporter", "--collector.disable-defaults", "--collector.filesystem",
               f"--web.listen-address=127.0.0.1:{port}"]  # fmt: skip
    return Watcher(command, port)


class ContainerMetrics:
    """Two metrics of a control group as cAdvisor reports them for a container of Compose."""

    def __init__(self, group, service):
        container = f'{{container_label_com_docker_compose_service="{service}"}}'

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):  # noqa: N802
                lines = [f"{name}{container} {value}\n" for name, value in measured(group).items()]
                self.send_response(200)
                self.send_header("content-type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write("".join(lines).encode())

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def end(self):
        self._server.shutdown()
        self._server.server_close()


def measured(group):
    """The memory of a control group (version 1 or 2); the working set excludes inactive files, as cAdvisor's does."""
    is_version_2 = (group / "memory.current").exists()
    used, limit = ("memory.current", "memory.max") if is_version_2 else ("memory.usage_in_bytes", "memory.limit_in_bytes")
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    inactive = int(stat["inactive_file" if is_version_2 else "total_inactive_file"])
    return {
        "container_memory_working_set_bytes": max(int((group / used).read_text()) - inactive, 0),
        "container_spec_memory_limit_bytes": int((group / limit).read_text()),
    }


class Prometheus(Watcher):
    """With the repository's configuration, `targets` by job in the place of its own, and every duration shortened."""

    def __init__(self, directory, targets, alertmanager):
        directory.mkdir()
        (directory / "rules").mkdir()
        for file in (MONITORING / "prometheus" / "rules").glob("*.yml"):
            factor = SHORTENED_OBJECTIVES if file.name == "slo.yml" else SHORTENED
            (directory / "rules" / file.name).write_text(shortened(file.read_text(), factor))
        config = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{alertmanager.port}"]
        config["scrape_configs"] = [job for job in config["scrape_configs"] if job["job_name"] in targets]
        for job in config["scrape_configs"]:
            job["static_configs"][0]["targets"] = [targets[job["job_name"]]]
            if job["job_name"] == "postgres":
                # It tries for three seconds before it says that PostgreSQL is away.
                job |= {"scrape_interval": "4s", "scrape_timeout": "4s"}
            if job["job_name"] == "node":
                # The machine's own disks are not what is tested.
                job["metric_relabel_configs"] = [{"source_labels": ["mountpoint"], "regex": "|.*/disk", "action": "keep"}]
            for relabel in job.get("relabel_configs", []):
                if relabel.get("target_label") == "__address__":
                    relabel["replacement"] = targets["blackbox"]
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        port = free_port()
        command = ["prometheus", f"--config.file={directory / 'prometheus.yml'}", f"--storage.tsdb.path={directory / 'data'}",
                   f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]  # fmt: skip
        super().__init__(command, port)
        until(lambda: self.query("vector(1)"), "Prometheus answers")

    def get(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            # Not ready yet, or a query that it refuses.
            assert error.code == 503, error.read()
            return None

    def query(self, expression):
        """The samples of an instant query: [(labels, value)]."""
        data = self.get("query", query=expression)
        if not data:
            return []
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(sample["metric"], float(sample["value"][1])) for sample in data["result"]]

    def names(self):
        return set(self.get("label/__name__/values") or [])

    def firing(self):
        return {sample["alertname"] for sample, _ in self.query('ALERTS{alertstate="firing"}')}


def shortened(rules, factor):
    """The same rules for a test: windows divided by this factor, and no alert that waits."""

    def window(found):
        seconds = int(found[1]) * UNITS[found[2]] // factor
        return f"[{max(seconds, SHORTEST_SECONDS)}s]"

    return re.sub(r"(?m)^(\s+for): .*$", r"\1: 1s", re.sub(r"\[(\d+)([smhd])\]", window, rules))


class Alertmanager(Watcher):
    """With the repository's routes and inhibitions; whom it tells is the test."""

    def __init__(self, directory, receiver):
        directory.mkdir()
        config = yaml.safe_load((MONITORING / "alertmanager" / "alertmanager.yml").read_text())
        config["receivers"][0]["webhook_configs"] = [{"url": f"http://127.0.0.1:{receiver.port}/", "send_resolved": True}]
        config["route"].update(group_wait="0s", group_interval="1s")
        (directory / "alertmanager.yml").write_text(yaml.safe_dump(config))
        port = free_port()
        command = ["prometheus-alertmanager", f"--config.file={directory / 'alertmanager.yml'}",
                   f"--storage.path={directory / 'data'}", f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=",
                   "--log.level=warn"]  # fmt: skip
        super().__init__(command, port)


class Receiver:
    """Takes Alertmanager's notifications; `last` has the newest of each alert."""

    def __init__(self):
        self.notifications = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):  # noqa: N802
                told = json.loads(self.rfile.read(int(self.headers["content-length"])))
                receiver.notifications += told["alerts"]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def told(self, name, status, since=0):
        """The notifications of an alert from a place in the list on."""
        return [each for each in self.notifications[since:] if each["labels"]["alertname"] == name and each["status"] == status]

    def latest(self, name):
        """The status in the latest notification of an alert."""
        return next((each["status"] for each in reversed(self.notifications) if each["labels"]["alertname"] == name), None)

    def close(self):
        self._server.shutdown()
        self._server.server_close()
