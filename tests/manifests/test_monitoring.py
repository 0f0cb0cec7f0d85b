"""The components for monitoring: their objects match the schemas of the operator and Kubernetes, and are as confined as the others."""

import shutil

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.prometheus_operator import v1

from conftest import ROOT, render
from test_manifests import VERSIONS, containers, matches, named, of_kind, pod, workloads

OPERATOR = "monitoring.coreos.com/v1"
COMPONENTS = ["monitoring", "monitoring-postgres0"]


@pytest.fixture(scope="module")
def objects(kustomize):
    """The base with both components."""
    overlay = kustomize / "overlays" / "monitored"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "python-crud-api-monitored",
        "resources": ["../../base"],
        "components": [f"../../components/{name}" for name in COMPONENTS],
    }))
    try:
        return render(overlay)
    finally:
        shutil.rmtree(overlay)


def test_they_can_be_added_to_every_overlay(kustomize):
    for folder in sorted((ROOT / "kustomize" / "overlays").iterdir()):
        overlay = kustomize / "overlays" / f"monitored-{folder.name}"
        overlay.mkdir()
        components = COMPONENTS if "external" not in folder.name else COMPONENTS[:1]
        (overlay / "kustomization.yaml").write_text(yaml.safe_dump({
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"../{folder.name}"],
            "components": [f"../../components/{name}" for name in components],
        }))
        try:
            rendered = render(overlay)
        finally:
            shutil.rmtree(overlay)
        assert len(of_kind(rendered, "PodMonitor")) == len(components)


def test_the_operators_objects_fit_its_schema_and_have_no_field_that_it_lacks(objects):
    kinds = [item["kind"] for item in objects if item["apiVersion"] == OPERATOR]
    assert sorted(kinds) == ["PodMonitor", "PodMonitor", "Probe", "PrometheusRule"]
    for item in objects:
        if item["apiVersion"] == OPERATOR:
            read = getattr(v1, item["kind"]).model_validate(item)
            # It omits unknown fields from its output.
            assert read.model_dump(by_alias=True, exclude_unset=True, mode="json")["spec"] == item["spec"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_rest_fits_the_api_schema_strictly(objects, version):
    for item in objects:
        if item["apiVersion"] != OPERATOR:
            kubernetes_validate.validate(item, version, strict=True)


def test_everything_is_in_the_namespace_and_labelled(objects):
    for item in objects:
        if item["kind"] != "Namespace":
            assert item["metadata"]["namespace"] == "python-crud-api-monitored", item["metadata"]
        assert "app.kubernetes.io/part-of" in item["metadata"]["labels"], item["metadata"]


def test_the_exporters_are_confined_and_bounded(objects):
    for workload in workloads(objects):
        spec = pod(workload)["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["automountServiceAccountToken"] is False
        for container in containers(workload):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            resources = container["resources"]
            assert resources["requests"].keys() == resources["limits"].keys() == {"cpu", "memory", "ephemeral-storage"}
            assert resources["requests"]["memory"] == resources["limits"]["memory"]


def test_monitors_find_pods_and_their_ports_and_give_the_jobs_of_the_rules(objects):
    jobs = set()
    for monitor in of_kind(objects, "PodMonitor"):
        (found,) = [workload for workload in workloads(objects) if matches(monitor["spec"]["selector"], workload)]
        ports = {port["name"] for container in containers(found) for port in container.get("ports", [])}
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            assert endpoint["port"] in ports
            jobs |= {each["replacement"] for each in endpoint["relabelings"] if each["targetLabel"] == "job"}
    jobs.add(named(objects, "Probe", "pycrudapi")["spec"]["jobName"])
    config = yaml.safe_load((ROOT / "monitoring" / "prometheus" / "prometheus.yml").read_text())
    # The kubelet replaces node_exporter and cAdvisor.
    assert jobs == {job["job_name"] for job in config["scrape_configs"]} - {"node", "cadvisor"}


def test_prometheus_alone_may_scrape_and_the_exporter_alone_may_ask_postgres(objects):
    policies = {item["metadata"]["name"]: item["spec"] for item in of_kind(objects, "NetworkPolicy")}
    scraped = [rule for name in ("pycrudapi", "postgres-exporter") for rule in policies[name]["ingress"] if "from" in rule]
    assert {port["port"] for rule in scraped for port in rule["ports"]} == {"metrics", "nginx-metrics"}
    for rule in scraped:
        assert [peer["podSelector"]["matchLabels"] for peer in rule["from"]] == [{"app.kubernetes.io/name": "prometheus"}]
    asking = [peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"] for rule in policies["postgres0"]["ingress"] for peer in rule["from"]]
    assert sorted(asking) == ["postgres-exporter", "pycrudapi"]


def test_dashboards_carry_the_label_that_grafana_looks_for(objects):
    found = [item for item in of_kind(objects, "ConfigMap") if item["metadata"]["labels"].get("grafana_dashboard") == "1"]
    assert {file for item in found for file in item["data"]} == {path.name for path in (ROOT / "monitoring" / "dashboards").glob("*.json")}
