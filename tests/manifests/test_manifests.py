"""Checks of the rendered objects of every overlay and of the install manifest."""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap

import kubernetes_validate
import pytest
import yaml

from conftest import OVERLAYS, ROOT, render_with

# The oldest Kubernetes whose API has every used feature (preStop's sleep), and the newest available schema.
VERSIONS = ["1.30", "1.37"]


def of_kind(objects, *kinds):
    return [item for item in objects if item["kind"] in kinds]


def named(objects, kind, name):
    found = [item for item in of_kind(objects, kind) if item["metadata"]["name"] == name]
    assert len(found) == 1, f"{kind} {name}: {len(found)} of them"
    return found[0]


def workloads(objects):
    return of_kind(objects, "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")


def pod(workload):
    spec = workload["spec"]
    return (spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec)["template"]


def containers(workload):
    spec = pod(workload)["spec"]
    return spec.get("initContainers", []) + spec["containers"]


def main_container(workload):
    (container,) = pod(workload)["spec"]["containers"]
    return container


def matches(selector, workload):
    labels = pod(workload)["metadata"]["labels"].items()
    return selector.get("matchLabels", {}).items() <= labels


def mebibytes(quantity):
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()
    return int(number) * {"Mi": 1, "Gi": 1024}[unit]


# --- schemas and checkov ---


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_fits_the_api_schema_strictly(overlay, version):
    for item in overlay:
        kubernetes_validate.validate(item, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_install_manifest_fits_the_api_schema_strictly(manifest, version):
    for item in manifest:
        kubernetes_validate.validate(item, version, strict=True)


def test_checkov_finds_nothing_but_what_is_skipped_with_a_reason(rendered, manifest, tmp_path):
    for name, objects in {**rendered, "manifest": manifest}.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump_all(objects))
    checkov = shutil.which("checkov", path=pathlib.Path(sys.executable).parent)
    done = subprocess.run(
        [checkov, "--framework", "kubernetes", "--directory", tmp_path, "--output", "json", "--skip-download"],
        capture_output=True,
        text=True,
    )
    results = json.loads(done.stdout)["results"]
    assert not results["parsing_errors"], results["parsing_errors"]
    assert len(results["passed_checks"]) > 100

    failed = set()
    for check in results["failed_checks"]:
        kind, _, name = check["resource"].split(".", 2)
        failed.add((check["check_id"], f"{kind}.{name}", check["check_name"]))
    skips = yaml.safe_load((ROOT / "tests/manifests/checkov-skips.yaml").read_text())
    skipped = {(skip["check"], resource) for skip in skips for resource in skip["resources"]}
    assert all(skip["reason"] for skip in skips)
    assert not [each for each in failed if each[:2] not in skipped]
    # The digest of pycrudapi exists only after a release, so this exception may be unneeded.
    unneeded = skipped - {each[:2] for each in failed} - {("CKV_K8S_43", "Deployment.pycrudapi")}
    assert not unneeded


# --- the install manifest ---


def test_the_install_manifest_is_what_kustomize_generates(rendered, manifest):
    assert manifest == rendered["install"], "run `make manifest` and commit install/pycrudapi.yaml"


def test_the_install_manifest_brings_its_namespace_first_and_all_else_into_it(manifest):
    assert (manifest[0]["kind"], manifest[0]["metadata"]["name"]) == ("Namespace", "python-crud-api")
    for item in manifest[1:]:
        assert item["metadata"]["namespace"] == "python-crud-api", item["metadata"]


def test_the_install_manifest_opens_a_node_port_to_five_replicas_or_more(manifest):
    service = named(manifest, "Service", "pycrudapi")
    assert service["spec"]["type"] == "NodePort"
    assert [port["port"] for port in service["spec"]["ports"]] == [80]
    assert named(manifest, "HorizontalPodAutoscaler", "pycrudapi")["spec"]["minReplicas"] == 5


def test_make_manifest_sets_the_image_in_every_overlay(kustomize, tmp_path):
    copy = tmp_path / "kustomize"
    shutil.copytree(kustomize, copy)
    (tmp_path / "install").mkdir()
    digest = "sha256:" + 64 * "a"
    subprocess.run([copy / "manifest", "registry.example.com/team/pycrudapi", "1.2.3", digest], check=True)
    objects = list(yaml.safe_load_all((tmp_path / "install" / "pycrudapi.yaml").read_text()))
    deployment = named(objects, "Deployment", "pycrudapi")
    assert containers(deployment)[0]["image"] == f"registry.example.com/team/pycrudapi:1.2.3@{digest}"
    assert deployment["metadata"]["labels"]["app.kubernetes.io/version"] == "1.2.3"
    assert pod(deployment)["metadata"]["labels"]["app.kubernetes.io/version"] == "1.2.3"
    # A new version of the API must not restart the database.
    assert pod(named(objects, "StatefulSet", "postgres0"))["metadata"]["labels"]["app.kubernetes.io/version"] == "17"


@pytest.mark.parametrize("version", ["latest", "main", "not a label", "sha256:aaaa"])
def test_make_manifest_refuses_a_version_that_moves_or_cannot_be_a_label(kustomize, tmp_path, version):
    copy = tmp_path / "kustomize"
    shutil.copytree(kustomize, copy)
    done = subprocess.run([copy / "manifest", "pycrudapi", version], capture_output=True, text=True)
    assert done.returncode == 2
    assert "VERSION=" in done.stderr


# An install of python-crud-api is upgraded by applying this manifest, so immutable fields must keep their values.


def test_what_cannot_be_changed_in_place_is_as_python_crud_api_had_it(manifest):
    assert named(manifest, "Deployment", "pycrudapi")["spec"]["selector"] == {"matchLabels": {"run": "pycrudapi"}}
    for name in ["postgres0", "pycrudapi"]:
        assert named(manifest, "Service", name)["spec"].get("clusterIP") != "None"
        # Otherwise the Service would keep selecting the old pods.
        assert "run" not in named(manifest, "Service", name)["spec"]["selector"]


# --- every pod ---


def test_every_pod_passes_pod_security_restricted(overlay):
    namespace = of_kind(overlay, "Namespace")[0]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for workload in workloads(overlay):
        spec = pod(workload)["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & spec.keys()
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"sysctls", "seLinuxOptions", "windowsOptions"} & spec["securityContext"].keys()
        for volume in spec.get("volumes", []):
            allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
            assert volume.keys() - {"name"} <= allowed, volume
        for container in containers(workload):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert not any("hostPort" in port for port in container.get("ports", []))


def test_every_pod_carries_the_six_recommended_labels_and_no_token(overlay):
    six = {f"app.kubernetes.io/{name}" for name in ["name", "instance", "version", "component", "part-of", "managed-by"]}
    for workload in workloads(overlay):
        assert six <= workload["metadata"]["labels"].keys()
        assert six <= pod(workload)["metadata"]["labels"].keys()
        spec = pod(workload)["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert named(overlay, "ServiceAccount", spec["serviceAccountName"])["automountServiceAccountToken"] is False
    for item in overlay:
        assert six - {"app.kubernetes.io/version"} <= item["metadata"]["labels"].keys(), item["metadata"]


def test_every_container_has_probes_and_bounded_resources(overlay):
    for workload in of_kind(overlay, "Deployment", "StatefulSet"):
        for container in pod(workload)["spec"]["containers"]:
            assert {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys()
            requests, limits = container["resources"]["requests"], container["resources"]["limits"]
            assert requests.keys() == limits.keys() == {"cpu", "memory", "ephemeral-storage"}
            assert requests["memory"] == limits["memory"]
        on_disk = [
            mebibytes(volume["emptyDir"]["sizeLimit"])
            for volume in pod(workload)["spec"]["volumes"]
            if "emptyDir" in volume and volume["emptyDir"].get("medium") != "Memory"
        ]
        storage = sum(mebibytes(each["resources"]["limits"]["ephemeral-storage"]) for each in containers(workload))
        assert sum(on_disk) + 50 <= storage, "volumes and 50 Mi of logs count against ephemeral-storage"


def test_every_image_reference_stays_what_it_is(overlay):
    for workload in workloads(overlay):
        for container in containers(workload):
            assert re.search(r":\d[\w.-]*(@sha256:[0-9a-f]{64})?$", container["image"]), container["image"]


def test_every_reference_is_met_inside_the_overlay(overlay):
    secrets = {item["metadata"]["name"]: {**item.get("data", {}), **item.get("stringData", {})} for item in of_kind(overlay, "Secret")}
    # Created once, by an install or manually (docs/running.md): PostgreSQL keeps this password, so later applies must not include one.
    secrets.setdefault("postgres0", {"postgres-password": None})
    for workload in workloads(overlay):
        volumes = {volume["name"]: volume for volume in pod(workload)["spec"].get("volumes", [])}
        claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        for volume in volumes.values():
            for item in volume.get("secret", {}).get("items", []):
                assert item["key"] in secrets[volume["secret"]["secretName"]]
        mounted = {mount["name"] for container in containers(workload) for mount in container.get("volumeMounts", [])}
        assert mounted == volumes.keys() | claims
        for container in containers(workload):
            for variable in container["env"]:
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                assert not reference or reference["key"] in secrets[reference["name"]]


def test_every_selector_finds_its_pods_and_every_named_port_exists(overlay):
    for item in of_kind(overlay, "Service", "NetworkPolicy", "PodDisruptionBudget"):
        spec = item["spec"]
        selector = {"matchLabels": spec["selector"]} if item["kind"] == "Service" else spec.get("selector", spec.get("podSelector"))
        found = [workload for workload in workloads(overlay) if matches(selector, workload)]
        assert found, item["metadata"]["name"]
        wanted = [port["targetPort"] for port in spec.get("ports", [])]
        wanted += [port["port"] for rule in spec.get("ingress", []) for port in rule.get("ports", [])]
        named_ports = {port["name"] for workload in found for port in main_container(workload)["ports"]}
        assert set(wanted) <= named_ports, item["metadata"]["name"]
        for rule in spec.get("egress", []):
            for peer in rule["to"]:
                if "podSelector" in peer:
                    assert any(matches(peer["podSelector"], workload) for workload in workloads(overlay))


# --- the network ---


def test_the_network_is_closed_but_for_what_the_service_is_made_of(overlay):
    policies = {item["metadata"]["name"]: item["spec"] for item in of_kind(overlay, "NetworkPolicy")}
    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    api = policies["pycrudapi"]
    assert [port["port"] for rule in api["ingress"] if "from" not in rule for port in rule["ports"]] == ["http"]
    assert [port["port"] for rule in api["ingress"] if "from" in rule for port in rule["ports"]] == ["metrics"]
    assert [port["port"] for rule in api["egress"] for port in rule["ports"]] == [5432, 6379]
    for name in {"postgres0", "redis"} & policies.keys():
        peers = [peer for rule in policies[name]["ingress"] for peer in rule["from"]]
        assert [peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in peers] == ["api"]
        assert "egress" not in policies[name]


# --- rollouts, stopping, scaling ---


def test_a_rollout_never_removes_a_ready_pod_first(overlay):
    spec = named(overlay, "Deployment", "pycrudapi")["spec"]
    assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert spec["strategy"]["rollingUpdate"]["maxSurge"] >= 1
    spread = {each["topologyKey"]: each["whenUnsatisfiable"] for each in spec["template"]["spec"]["topologySpreadConstraints"]}
    assert spread == {"topology.kubernetes.io/zone": "ScheduleAnyway", "kubernetes.io/hostname": "ScheduleAnyway"}


def test_the_grace_period_covers_prestop_and_both_drains(overlay):
    supervisord = (ROOT / "supervisord.conf").read_text()
    stops = [int(seconds) for seconds in re.findall(r"(?m)^\s*stopwaitsecs\s*=\s*(\d+)", supervisord)]
    assert len(stops) >= 2, "nginx and the server each say how long they may take"
    spec = pod(named(overlay, "Deployment", "pycrudapi"))["spec"]
    prestop = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] > prestop + sum(sorted(stops)[-2:])


def test_probes_go_through_nginx_and_liveness_asks_nothing_of_the_database(overlay):
    container = main_container(named(overlay, "Deployment", "pycrudapi"))
    (url,) = (word for word in container["startupProbe"]["exec"]["command"] if word.startswith("--healthcheck-url="))
    assert url.endswith("http://127.0.0.1:8080/livez")
    paths = {name: container[f"{name}Probe"]["httpGet"] for name in ["liveness", "readiness"]}
    assert {name: each["path"] for name, each in paths.items()} == {
        "liveness": "/livez",
        "readiness": "/readyz?exclude=postgres",
    }
    assert {each["port"] for each in paths.values()} == {"http"}
    assert {"name": "http", "containerPort": 8080, "protocol": "TCP"} in container["ports"]


def test_a_start_that_takes_its_time_fails_no_probe(overlay):
    """Each failed probe raises an event, so the commands of startup probes wait, and a single probe has the whole time."""
    for workload in of_kind(overlay, "Deployment", "StatefulSet"):
        probe = main_container(workload)["startupProbe"]
        assert "exec" in probe and probe["failureThreshold"] == 1 and probe["timeoutSeconds"] >= 60, workload["metadata"]["name"]
        assert {"--wait"} & set(probe["exec"]["command"]) or "until " in probe["exec"]["command"][-1]


def test_disruption_budgets_let_unhealthy_pods_go(overlay):
    budgets = of_kind(overlay, "PodDisruptionBudget")
    assert "pycrudapi" in [budget["metadata"]["name"] for budget in budgets]
    for budget in budgets:
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        assert budget["spec"]["maxUnavailable"] == 1


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_replicas_are_stated_once(rendered, name):
    deployment = named(rendered[name], "Deployment", "pycrudapi")
    scalers = of_kind(rendered[name], "HorizontalPodAutoscaler")
    expected = {"dev": 1, "staging": 2}.get(name)
    assert deployment["spec"].get("replicas") == expected
    assert len(scalers) == (expected is None)


def test_the_database_admits_every_connection_of_a_full_scale_out(rendered):
    postgres = containers(named(rendered["production"], "StatefulSet", "postgres0"))[0]
    admitted = int(postgres["args"][-1].removeprefix("max_connections="))
    scaler = named(rendered["production"], "HorizontalPodAutoscaler", "pycrudapi")
    surge = 1
    pool_size = 10
    probe_and_follower = 2
    superuser_reserve = 3
    per_replica = pool_size + probe_and_follower
    assert (scaler["spec"]["maxReplicas"] + surge) * per_replica + superuser_reserve <= admitted


# --- differences of the overlays ---


def test_each_environment_has_a_namespace_of_its_own(rendered):
    names = {name: of_kind(objects, "Namespace")[0]["metadata"]["name"] for name, objects in rendered.items()}
    assert names == {
        "dev": "python-crud-api-dev",
        "install": "python-crud-api",
        "production": "python-crud-api",
        "production-external-database": "python-crud-api",
        "staging": "python-crud-api-staging",
    }


@pytest.mark.parametrize("name", ["staging", "production", "production-external-database"])
def test_an_ingress_with_tls_leads_to_the_service(rendered, name):
    spec = named(rendered[name], "Ingress", "pycrudapi")["spec"]
    (rule,) = spec["rules"]
    assert spec["tls"] == [{"hosts": [rule["host"]], "secretName": "pycrudapi-tls"}]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": "pycrudapi", "port": {"name": "http"}}
    assert named(rendered[name], "Service", "pycrudapi")["spec"]["type"] == "ClusterIP"


def defaults():
    """The documented default of every setting."""
    return dict(re.findall(r"(?m)^\| `([A-Z_]+)` \| `(\d+)` \|", (ROOT / "docs/settings.md").read_text()))


@pytest.mark.parametrize("name", ["staging", "production", "production-external-database"])
def test_the_ingress_takes_what_the_service_takes(rendered, name):
    annotations = named(rendered[name], "Ingress", "pycrudapi")["metadata"]["annotations"]
    size, seconds = int(defaults()["BULK_MAX_BYTES"]), int(defaults()["BULK_TIMEOUT_MS"]) // 1000 + 5
    for prefix, size_name, unit in (
        ("nginx.ingress.kubernetes.io", "proxy-body-size", ""),
        ("nginx.org", "client-max-body-size", "s"),
    ):
        assert annotations[f"{prefix}/proxy-next-upstream"] == "off"
        assert annotations[f"{prefix}/{size_name}"] == f"{size // 1024**2}m"
        for timeout in ("proxy-read-timeout", "proxy-send-timeout"):
            assert annotations[f"{prefix}/{timeout}"] == f"{seconds}{unit}"


@pytest.mark.parametrize("resource", ["base", "overlays/staging", "overlays/production", "overlays/production-external-database"])
def test_an_overlay_sets_the_identity_provider_as_the_documentation_says(kustomize, resource):
    # The literal patch of docs/security.md.
    (block,) = re.findall(r"^    patches:\n(?:    .*\n)+", (ROOT / "docs" / "security.md").read_text(), re.M)
    objects = render_with(kustomize, resource, "identity-provider", **yaml.safe_load(textwrap.dedent(block)))
    variables = environment(objects)
    assert variables["AUTH"] == "on"
    assert variables["AUTH_ISSUER"] == "https://login.example.net/tenant"
    assert variables["AUTH_AUDIENCE"] and variables["AUTH_CLIENT_ID"]
    # Its keys can be fetched, and no other connection is allowed.
    opened = [rule for rule in named(objects, "NetworkPolicy", "pycrudapi")["spec"]["egress"] if {"port": 443, "protocol": "TCP"} in rule["ports"]]
    assert len(opened) == 1 and len(opened[0]["ports"]) == 1
    for item in objects:
        kubernetes_validate.validate(item, VERSIONS[-1], strict=True)


def test_a_gateway_can_take_the_place_of_the_ingress(kustomize):
    objects = render_with(kustomize, "base", "gateway", "python-crud-api-gateway")
    route, service = named(objects, "HTTPRoute", "pycrudapi"), named(objects, "Service", "pycrudapi")
    assert route["metadata"]["namespace"] == "python-crud-api-gateway"
    (rule,) = route["spec"]["rules"]
    # Includes the defaults of the Gateway API; otherwise each apply would change the list.
    port = service["spec"]["ports"][0]["port"]
    assert rule["backendRefs"] == [{"group": "", "kind": "Service", "name": "pycrudapi", "port": port, "weight": 1}]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}
    assert route["spec"]["parentRefs"] and route["spec"]["hostnames"]
    assert environment(objects)["TRUSTED_PROXIES"]
    for item in objects:
        if item["kind"] != "HTTPRoute":
            kubernetes_validate.validate(item, VERSIONS[-1], strict=True)


def environment(objects):
    """The names and values of the server's environment, in their order."""
    container = containers(named(objects, "Deployment", "pycrudapi"))[-1]
    return {variable["name"]: variable.get("value") for variable in container["env"]}


@pytest.mark.parametrize("name", ["staging", "production", "production-external-database"])
def test_the_host_of_the_ingress_is_answered(rendered, name):
    (rule,) = named(rendered[name], "Ingress", "pycrudapi")["spec"]["rules"]
    assert rule["host"] in environment(rendered[name])["ALLOWED_HOSTS"].split(",")


def test_the_name_of_the_service_with_its_namespace_is_answered(overlay):
    variables = environment(overlay)
    assert "pycrudapi.$(POD_NAMESPACE)" in variables["ALLOWED_HOSTS"].split(",")
    # A reference is resolved only if the variable is defined before it.
    assert list(variables).index("POD_NAMESPACE") < list(variables).index("ALLOWED_HOSTS")


@pytest.mark.parametrize("name", ["staging", "production"])
def test_no_password_of_staging_or_production_is_in_the_repository(name):
    overlay = ROOT / "kustomize" / "overlays" / name
    assert "envs: [secret.env]" in (overlay / "kustomization.yaml").read_text()
    tracked = subprocess.run(["git", "ls-files", "--", overlay], cwd=ROOT, capture_output=True, text=True)
    assert "secret.env\n" not in tracked.stdout
    assert (overlay / ".gitignore").read_text() == "secret.env\n"
