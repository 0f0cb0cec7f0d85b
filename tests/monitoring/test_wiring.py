"""How it is wired: Compose, Grafana's provisioning, the operator's objects."""

import json
import re
import shutil
import subprocess

import dashboards
import panels
import prometheus_rule
import pytest
import yaml

from support import REPOSITORY, clean_environment

MONITORING = REPOSITORY / "monitoring"
COMPOSE = yaml.safe_load((REPOSITORY / "docker-compose.monitoring.yml").read_text())


def test_the_operators_rules_are_what_their_sources_make():
    assert (MONITORING / "prometheus" / "prometheusrule.yaml").read_text() == prometheus_rule.prometheus_rule(), "run `make monitoring`"


def test_every_dashboard_is_in_a_configmap_of_its_own():
    made = yaml.safe_load((MONITORING / "dashboards" / "kustomization.yaml").read_text())["configMapGenerator"]
    assert {file for each in made for file in each["files"]} == {f"{name}.json" for name in panels.DASHBOARDS}
    for name in panels.DASHBOARDS:
        # kubectl apply keeps the object in an annotation, which may have 256 KiB.
        assert len(json.dumps((MONITORING / "dashboards" / f"{name}.json").read_text())) < 200_000


def test_panels_have_names_of_their_own_and_the_variables_that_they_use():
    for name in panels.DASHBOARDS:
        made = json.loads(dashboards.dashboard(name))
        assert {variable["name"] for variable in made["templating"]["list"]} == {"source", "namespace"}
        for row, shown in panels.DASHBOARDS[name][1].items():
            assert len({panel.title for panel in shown}) == len(shown), row


def test_nothing_is_published_beyond_this_machine():
    for name, service in COMPOSE["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: {port}"


def test_every_image_is_pinned_by_a_version():
    images = [service["image"] for service in COMPOSE["services"].values() if "image" in service]
    assert len(images) > 8
    for image in images:
        assert re.search(r":v?\d+(\.\d+)*$", image), image


def test_every_file_that_compose_mounts_is_there():
    mounted = [volume.split(":")[0] for service in COMPOSE["services"].values() for volume in service.get("volumes", [])]
    files = [path for path in mounted if path.startswith("./")]
    assert len(files) > 8
    for path in files:
        assert (REPOSITORY / path).exists(), path


def test_compose_scrapes_services_that_it_has():
    config = yaml.safe_load((MONITORING / "prometheus" / "prometheus.yml").read_text())
    for job in config["scrape_configs"]:
        for target in job["static_configs"][0]["targets"]:
            host = re.sub(r"^https://|[:/].*$", "", target.removeprefix("https://"))
            # nginx's exporter lives in the network of the service.
            assert host in COMPOSE["services"], target


def test_compose_accepts_it():
    tool = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
    if not shutil.which(tool[0]):
        pytest.skip("no compose here")
    command = [*tool, "-f", "docker-compose.yml", "-f", "docker-compose.monitoring.yml", "config", "--quiet"]
    done = subprocess.run(command, cwd=REPOSITORY, env=clean_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_finds_sources_and_dashboards():
    provisioning = MONITORING / "grafana" / "provisioning"
    sources = yaml.safe_load((provisioning / "datasources" / "sources.yml").read_text())["datasources"]
    for source in sources:
        host = re.match(r"http://([\w-]+):", source["url"])[1]
        assert host in COMPOSE["services"], source
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "dashboards.yml").read_text())["providers"]
    assert f"./monitoring/dashboards:{provider['options']['path']}:ro" in COMPOSE["services"]["grafana"]["volumes"]
