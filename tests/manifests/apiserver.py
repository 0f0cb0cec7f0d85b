"""The part of a Kubernetes API server that `kubectl apply` uses, so that kubectl itself computes its three-way merge.

It serves the objects "in the cluster" and records every patch that kubectl sends without applying it, so that tests can check
which fields it would change or remove. Missing objects are recorded as created.
"""

import http.server
import json
import subprocess
import threading

import yaml

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
CLUSTER_WIDE = {"Namespace"}
PLURALS = {"NetworkPolicy": "networkpolicies", "Ingress": "ingresses"}


def plural(kind):
    return PLURALS.get(kind, f"{kind.lower()}s")


def path(item):
    """The API path of an object."""
    version, meta = item["apiVersion"], item["metadata"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    space = "" if item["kind"] in CLUSTER_WIDE else f"/namespaces/{meta['namespace']}"
    return f"{root}{space}/{plural(item['kind'])}/{meta['name']}"


def applied(item):
    """The object as stored in the cluster after `kubectl apply`."""
    text = json.dumps(item)
    live = json.loads(text)
    live["metadata"].setdefault("annotations", {})[LAST_APPLIED] = text
    live["metadata"].update(uid="0", resourceVersion="1")
    return live


class ApiServer:
    """with ApiServer(live objects, known kinds) as server: server.apply(objects) → (patches, created)."""

    def __init__(self, live, objects):
        self.live = {path(item): item for item in live}
        self.versions = {}
        for item in [*live, *objects]:
            self.versions.setdefault(item["apiVersion"], set()).add(item["kind"])
        self.patches, self.created = {}, []

    def __enter__(self):
        handler = type("Handler", (Handler,), {"api": self})
        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()

    def apply(self, objects, directory):
        """The patches that kubectl would apply to live objects, by (kind, name), and the objects that it would create."""
        manifest = directory / "manifest.yaml"
        manifest.write_text(yaml.safe_dump_all(objects))
        (directory / "kubeconfig").touch()
        done = subprocess.run(
            ["kubectl", f"--kubeconfig={directory / 'kubeconfig'}", f"--cache-dir={directory / 'cache'}",
             f"--server=http://127.0.0.1:{self.http.server_port}", "apply", "--validate=false", f"--filename={manifest}"],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return self.patches, self.created

    def discovery(self, where):
        """The answer to a discovery request, or None."""
        groups = {version.split("/")[0]: version for version in self.versions if "/" in version}
        if where == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if where == "/apis":
            described = [
                {"name": name, "versions": [it := {"groupVersion": version, "version": version.split("/")[1]}], "preferredVersion": it}
                for name, version in groups.items()
            ]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": described}
        version = where.removeprefix("/apis/").removeprefix("/api/")
        if version in self.versions:
            resources = [
                {"name": plural(kind), "singularName": kind.lower(), "kind": kind, "namespaced": kind not in CLUSTER_WIDE,
                 "verbs": ["get", "patch", "create"]}
                for kind in sorted(self.versions[version])
            ]  # fmt: skip
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}
        return None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        return json.loads(self.rfile.read(int(self.headers["content-length"])))

    def do_GET(self):
        where = self.path.partition("?")[0]
        found = self.api.live.get(where) or self.api.discovery(where)
        if found:
            self.answer(200, found)
        else:
            self.answer(404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404})

    def do_PATCH(self):
        live = self.api.live[self.path.partition("?")[0]]
        assert self.headers["content-type"] == "application/strategic-merge-patch+json", self.headers["content-type"]
        self.api.patches[live["kind"], live["metadata"]["name"]] = self.body()
        self.answer(200, live)

    def do_POST(self):
        item = self.body()
        self.api.created.append(item)
        self.answer(201, item)
