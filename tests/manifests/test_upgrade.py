"""`install`, then `production`, as docs/production.md describes: the patches that `kubectl apply` would send, and their effects on the
API server and the running pods, kind by kind.

The rules cover kinds of fields and not the current differences: `test_a_difference_that_would_hurt_is_found` creates a harmful
difference of every kind, and fails if one is not found.
"""

import base64
import copy
import json
import re
import shutil

import pytest

from apiserver import ApiServer, applied
from conftest import ROOT
from test_manifests import containers, matches, named, of_kind, pod, workloads

DOCS = "".join((ROOT / "docs" / page).read_text() for page in ("running.md", "production.md"))

# The mutable fields of `spec`; all others are immutable. None: the whole object is mutable.
MUTABLE = {
    "StatefulSet": {"replicas", "template", "updateStrategy", "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
                    "revisionHistoryLimit", "ordinals"},
    "Deployment": {"replicas", "template", "strategy", "minReadySeconds", "progressDeadlineSeconds", "revisionHistoryLimit", "paused"},
    "DaemonSet": {"template", "updateStrategy", "minReadySeconds", "revisionHistoryLimit"},
    "Job": {"parallelism", "suspend", "activeDeadlineSeconds", "ttlSecondsAfterFinished"},
    "CronJob": None,
    "PersistentVolumeClaim": set(),
    "Service": {"type", "selector", "ports", "sessionAffinity", "externalTrafficPolicy", "internalTrafficPolicy"},
    "ConfigMap": None,
    "HorizontalPodAutoscaler": None,
    "Ingress": None,
    "Namespace": None,
    "NetworkPolicy": None,
    "PodDisruptionBudget": None,
    "Secret": None,
    "ServiceAccount": None,
}  # fmt: skip

# Removed objects, and where the documentation mentions them.
ANNOUNCED = {"nodePort": "The node port closes with the last line"}


def key(item):
    return item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]


def in_the_cluster(objects):
    """The objects after they were applied and have run for a while, with replicas set by the autoscaler."""
    live = [applied(item) for item in objects]
    for scaler in of_kind(live, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        named(live, target["kind"], target["name"])["spec"]["replicas"] = scaler["spec"]["minReplicas"] + 3
    return live


def logins(objects):
    """Every login of a container at PostgreSQL, and the password with which the database was initialized."""
    secrets = {secret["metadata"]["name"]: secret["data"] for secret in of_kind(objects, "Secret")}
    found = {}
    for workload in workloads(objects):
        volumes = {volume["name"]: volume.get("secret") for volume in pod(workload)["spec"].get("volumes", [])}
        for container in containers(workload):
            values = {}
            for variable in container.get("env", []):
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                data = secrets.get(reference["name"], {}).get(reference["key"]) if reference else None
                values[variable["name"]] = base64.b64decode(data).decode() if data else variable.get("value")
            for mount in container.get("volumeMounts", []):
                secret = volumes.get(mount["name"]) or {}
                for item in secret.get("items", []):
                    file = f"{mount['mountPath']}/{item['path']}"
                    data = secrets.get(secret["secretName"], {}).get(item["key"])
                    for name in [name for name, value in values.items() if value == file]:
                        values[name.removesuffix("_FILE")] = base64.b64decode(data).decode() if data else None
            for role in ["POSTGRES", "MIGRATE"]:
                if values.get(f"{role}_USER"):
                    found.setdefault(values[f"{role}_USER"], set()).add(values.get(f"{role}_PASSWORD"))
    return found


def faults(before, after, directory):
    """The problems of applying `after` to a cluster that has `before`."""
    live = in_the_cluster(before)
    with ApiServer(live, after) as server:
        patches, created = server.apply(after, directory)
    new = {key(item): item for item in after}
    said = []

    for (kind, name), patch in patches.items():
        if kind not in MUTABLE:
            said.append(f"{kind}: say in MUTABLE what of it cannot be changed")
        elif MUTABLE[kind] is not None:
            said += [f"{kind} {name}: {field} is immutable" for field in patch.get("spec", {}).keys() - MUTABLE[kind] if not field.startswith("$")]
        if kind == "Secret":
            fields = patch.keys() - {"metadata"}
            said += [f"Secret {name}: {field} changes under pods that are running" for field in fields]

    # Capacity: the number of pods must not decrease, and they are replaced one by one.
    for item in of_kind(live, "Deployment", "StatefulSet"):
        kind, name = item["kind"], item["metadata"]["name"]
        spec = patches.get((kind, name), {}).get("spec", {})
        running = item["spec"].get("replicas", 1)
        # A removed field is reset to the default of the API.
        left = (spec["replicas"] or 1) if "replicas" in spec else running
        if left < running:
            said.append(f"{kind} {name}: falls from {running} to {left} replicas")
        rolls = "template" in spec
        if rolls and kind == "StatefulSet":
            said.append(f"StatefulSet {name}: its pod is restarted")
        strategy = new[key(item)]["spec"].get("strategy", {}) if key(item) in new else {}
        if rolls and running > 1 and strategy.get("rollingUpdate", {}).get("maxUnavailable") != 0:
            said.append(f"{kind} {name}: pods are taken away before new ones are ready")
    for item in of_kind(before, "HorizontalPodAutoscaler"):
        then = new.get(key(item), {"spec": {"minReplicas": 1, "maxReplicas": 1}})["spec"]
        said += [f"HorizontalPodAutoscaler: {each} falls" for each in ["minReplicas", "maxReplicas"] if then[each] < item["spec"][each]]

    # Names by which clients find the service.
    for item in of_kind(before, "Service"):
        then = new.get(key(item))
        if then is None:
            continue
        ports = {(port["name"], port["port"], port.get("protocol")) for port in then["spec"]["ports"]}
        said += [f"Service {key(item)}: port {port['name']} goes" for port in item["spec"]["ports"]
                 if (port["name"], port["port"], port.get("protocol")) not in ports]  # fmt: skip
        if item["spec"]["type"] == "NodePort" != then["spec"]["type"] and ANNOUNCED["nodePort"] not in DOCS:
            said.append(f"Service {key(item)}: the node port goes, and the docs do not say so")
        for objects in [before, after]:
            if not [each for each in workloads(objects) if matches({"matchLabels": then["spec"]["selector"]}, each)]:
                said.append(f"Service {key(item)}: finds no pods of {'before' if objects is before else 'after'}")

    # The network: allowed connections stay allowed while old pods are running.
    for item in of_kind(before, "NetworkPolicy"):
        if key(item) in new and item["spec"] != new[key(item)]["spec"]:
            said.append(f"{key(item)}: differs, and pods of before live under it")
    for item in created:
        if item["kind"] == "NetworkPolicy":
            said.append(f"{key(item)}: is new, and pods of before live under it")

    # `kubectl apply` removes no objects: those without a successor remain, which is intended for Secrets with a suffix.
    for item in before:
        kept = key(item) in new or (item["kind"] == "Secret" and re.search(r"-[a-z0-9]{10}$", item["metadata"]["name"]))
        kept = kept or (item["kind"] == "Secret" and item["metadata"]["name"] in json.dumps(after))
        if not kept:
            said.append(f"{key(item)}: has no successor, and stays")

    # PostgreSQL keeps the first password of each user.
    later = logins(after)
    for user, passwords in logins(before).items():
        known = {each for each in passwords | later.get(user, set()) if each is not None}
        if len(known) > 1:
            said.append(f"user {user}: another password than PostgreSQL has")
    return said


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: its merge cannot be asked for")
    return tmp_path_factory.mktemp("apply")


def test_the_first_of_two_applies_leaves_the_node_port(rendered):
    label, value = re.search(r"apply -k kustomize/overlays/production -l (\S+)!=(\S+)", DOCS).groups()
    left_out = [item for item in rendered["production"] if item["metadata"]["labels"].get(label) == value]
    assert [(item["kind"], item["metadata"]["name"]) for item in left_out] == [("Service", "pycrudapi")]


@pytest.mark.parametrize("before, after", [("install", "production"), ("install", "install"), ("production", "production")])
def test_production_over_an_install_takes_nothing_away(rendered, directory, before, after):
    assert faults(rendered[before], rendered[after], directory) == []


def completed(item):
    """The object as Kubernetes stores it, with the defaults that it adds to lists that kubectl compares as a whole."""
    live = copy.deepcopy(applied(item))
    for claim in live["spec"].get("volumeClaimTemplates", []) if live["kind"] == "StatefulSet" else []:
        claim.update({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "status": {"phase": "Pending"}})
        claim["spec"].setdefault("volumeMode", "Filesystem")
    for workload in [live] if live["kind"] in ("StatefulSet", "Deployment") else []:
        for container in containers(workload):
            container.update({"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"})
    if live["kind"] == "Service":
        for port in live["spec"]["ports"]:
            port["nodePort"] = 31000
        live["spec"]["clusterIP"] = "10.96.0.9"
    return live


def test_a_second_apply_changes_nothing(overlay, directory):
    with ApiServer([completed(item) for item in overlay], overlay) as server:
        patches, created = server.apply(overlay, directory)
    assert created == []
    for (kind, name), patch in patches.items():
        # The last-applied configuration is stored as text, which is formatted differently here.
        assert patch["metadata"].keys() == {"annotations"}, (kind, name)
        # kubectl always sends this selector, even if unchanged (`patchStrategy: replace`).
        same = {"selector": named(overlay, kind, name)["spec"]["selector"]} if kind == "PodDisruptionBudget" else None
        assert patch.get("spec") == same and patch.keys() <= {"metadata", "spec"}, (kind, name, patch)


def test_a_new_release_of_the_service_takes_nothing_away(rendered, directory):
    after = copy.deepcopy(rendered["production"])
    for container in containers(named(after, "Deployment", "pycrudapi")):
        container["image"] = "pycrudapi:0.2.0"
    assert faults(rendered["production"], after, directory) == []


def set_at(kind, name, *path_and_value):
    """A change of one field: its path, followed by the value."""
    *path, last, value = path_and_value

    def change(objects):
        target = named(objects, kind, name)
        for step in path:
            target = target[step]
        target[last] = value

    return change


def without(kind, name):
    return lambda objects: objects.remove(named(objects, kind, name))


def with_secret(objects):
    """Adds the administrator's password to the objects of production."""
    secret = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": {"name": "postgres0", "namespace": "python-crud-api"}}
    objects.append({**secret, "data": {"postgres-password": base64.b64encode(b"another").decode()}})


def with_the_install_user(objects):
    for secret in of_kind(objects, "Secret"):
        if "requests-user" in secret["data"]:
            secret["data"]["requests-user"] = base64.b64encode(b"pycrudapi").decode()


@pytest.mark.parametrize(
    ("change", "named_in"),
    [
        (set_at("StatefulSet", "postgres0", "spec", "volumeClaimTemplates", 0, "spec", "resources", "requests", "storage", "20Gi"), "volumeClaimTemplates"),
        (set_at("StatefulSet", "postgres0", "spec", "volumeClaimTemplates", 0, "spec", "storageClassName", "fast"), "volumeClaimTemplates"),
        (set_at("StatefulSet", "postgres0", "spec", "serviceName", "database"), "serviceName"),
        (set_at("StatefulSet", "postgres0", "spec", "podManagementPolicy", "Parallel"), "podManagementPolicy"),
        (set_at("StatefulSet", "postgres0", "spec", "selector", "matchLabels", "tier", "database"), "selector"),
        (set_at("StatefulSet", "postgres0", "spec", "template", "spec", "containers", 0, "image", "postgres:18"), "restarted"),
        (set_at("Deployment", "pycrudapi", "spec", "selector", "matchLabels", "run", "another"), "selector"),
        (set_at("Deployment", "redis", "spec", "selector", "matchLabels", "tier", "cache"), "selector"),
        (set_at("Deployment", "pycrudapi", "spec", "replicas", 5), "replicas"),
        (set_at("Deployment", "pycrudapi", "spec", "strategy", {"type": "Recreate"}), "taken away"),
        (set_at("HorizontalPodAutoscaler", "pycrudapi", "spec", "minReplicas", 2), "minReplicas"),
        (without("HorizontalPodAutoscaler", "pycrudapi"), "HorizontalPodAutoscaler"),
        (set_at("Service", "postgres0", "spec", "clusterIP", "None"), "clusterIP"),
        (set_at("Service", "pycrudapi", "spec", "ports", 0, "port", 8080), "port http goes"),
        (set_at("Service", "pycrudapi", "spec", "selector", "release", "new"), "finds no pods"),
        (set_at("Service", "pycrudapi", "metadata", "name", "api"), "no successor"),
        (set_at("Deployment", "pycrudapi", "metadata", "name", "api"), "no successor"),
        (set_at("StatefulSet", "postgres0", "metadata", "namespace", "databases"), "no successor"),
        (without("PodDisruptionBudget", "pycrudapi"), "no successor"),
        (set_at("NetworkPolicy", "pycrudapi", "spec", "ingress", []), "pods of before"),
        (with_secret, "another password"),
        (with_secret, "under pods that are running"),
        (with_the_install_user, "user pycrudapi: another password"),
    ],
)  # fmt: skip
def test_a_difference_that_would_hurt_is_found(rendered, directory, change, named_in):
    after = copy.deepcopy(rendered["production"])
    change(after)
    assert [fault for fault in faults(rendered["install"], after, directory) if named_in in fault]


def test_replicas_that_the_next_manifest_does_not_state_are_seen_to_fall(rendered, directory):
    """An install older than the autoscaler states replicas; the command in docs/production.md handles that."""
    before = copy.deepcopy(rendered["install"])
    named(before, "Deployment", "pycrudapi")["spec"]["replicas"] = 5
    assert [fault for fault in faults(before, rendered["install"], directory) if "replicas" in fault]
    assert "apply view-last-applied deployment/pycrudapi -o yaml | grep -v '^  replicas:'" in DOCS


# Removal.


def test_the_command_that_stops_everything_keeps_the_namespace_the_claim_and_its_password(rendered):
    command = re.search(r"kubectl -n python-crud-api delete (\S+) -l (\S+)=(\S+)", DOCS)
    kinds, label, value = set(command[1].split(",")), command[2], command[3]
    kept = {"Namespace", "Secret"}
    for name in ["install", "production"]:
        for item in rendered[name]:
            assert (item["kind"].lower() in kinds) == (item["kind"] not in kept), item["kind"]
            assert item["metadata"]["labels"].get(label) == value, item["metadata"]
    assert not kinds & {"all", "namespace", "secret", "persistentvolumeclaim", "pvc", "pv"}
    for text in [DOCS, (ROOT / "install" / "pycrudapi.yaml").read_text()[:1000]]:
        assert re.search(r"deletes the namespace,? and with it .*all data", text, re.IGNORECASE | re.DOTALL)
    assert "**" in next(line for line in DOCS.splitlines() if "deletes the namespace" in line)


def test_the_claim_outlives_its_statefulset(overlay):
    for item in of_kind(overlay, "StatefulSet"):
        policy = item["spec"]["persistentVolumeClaimRetentionPolicy"]
        assert policy == {"whenDeleted": "Retain", "whenScaled": "Retain"}


# Distribution of the passwords.


def test_the_server_never_has_the_administrators_password(overlay):
    spec = pod(named(overlay, "Deployment", "pycrudapi"))["spec"]
    (server,) = spec["containers"]
    (migrate,) = spec["initContainers"]
    environment = {each["name"]: each for each in server["env"]}
    assert environment["MIGRATE"]["value"] == "false"
    assert not [name for name in environment if name.startswith("MIGRATE_")]
    assert "administrator" not in {mount["name"] for mount in server["volumeMounts"]}
    assert migrate["command"] == ["pycrudapi", "migrate", "--wait"]
    assert migrate["image"] == server["image"]
    assert "MIGRATE_USER" in {each["name"] for each in migrate["env"]}
