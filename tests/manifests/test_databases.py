"""Databases that replace postgres0: a managed one, and one that CloudNativePG runs."""

import re

import kubernetes_validate
import pytest
import yaml

from conftest import ROOT, render_with
from test_manifests import VERSIONS, containers, main_container, named, pod

# Custom resources of operators, which have no schema in the Kubernetes API.
CUSTOM = {"Cluster", "ObjectStore", "PodMonitor", "ScheduledBackup"}


def test_the_external_database_variant_has_no_postgres0_and_reads_a_url(rendered):
    objects = rendered["production-external-database"]
    assert not [item for item in objects if item["metadata"]["name"] == "postgres0"]
    names = {variable["name"] for variable in main_container(named(objects, "Deployment", "pycrudapi"))["env"]}
    assert "DATABASE_URL" in names
    assert not [name for name in names if name.startswith("POSTGRES_")]


@pytest.fixture(scope="module")
def operated(kustomize):
    return render_with(kustomize, "overlays/production", "cloudnative-pg")


def test_cloudnative_pg_takes_the_place_of_postgres0_in_the_overlay_s_namespace(operated):
    assert not [item for item in operated if item["metadata"]["name"] == "postgres0"]
    assert CUSTOM <= {item["kind"] for item in operated}
    for item in operated:
        assert item["kind"] == "Namespace" or item["metadata"]["namespace"] == "python-crud-api"
        if item["kind"] not in CUSTOM:
            kubernetes_validate.validate(item, VERSIONS[-1], strict=True)


def test_requests_and_migrations_log_in_to_the_primary_as_different_roles(operated):
    deployment = named(operated, "Deployment", "pycrudapi")
    (migrate,) = [container for container in containers(deployment) if container["name"] == "migrate"]
    cluster = named(operated, "Cluster", "postgres")["spec"]
    for container in (migrate, main_container(deployment)):
        variables = {variable["name"]: variable for variable in container["env"]}
        url = variables["DATABASE_URL"]["value"]
        assert "host=postgres-rw " in url and "sslmode=verify-full" in url and "target_session_attrs=read-write" in url
        assert f"dbname={cluster['bootstrap']['initdb']['database']} " in url
        # A reference is resolved only if the variable is defined before it.
        names = list(variables)
        for name in re.findall(r"\$\((\w+)\)", url):
            assert names.index(name) < names.index("DATABASE_URL")
        (path,) = re.findall(r"sslrootcert=(\S+)", url)
        (mount,) = [mount for mount in container["volumeMounts"] if path.startswith(mount["mountPath"] + "/")]
        volume = next(volume for volume in pod(deployment)["spec"]["volumes"] if volume["name"] == mount["name"])
        assert volume["secret"]["secretName"] == "postgres-ca"
        assert [item["path"] for item in volume["secret"]["items"]] == [path.rpartition("/")[2]]
    (read,) = [variable["value"] for variable in main_container(deployment)["env"] if variable["name"] == "DATABASE_READ_URL"]
    assert read == "host=postgres-ro target_session_attrs=standby"
    secret = {variable["name"]: variable.get("valueFrom", {}).get("secretKeyRef", {}) for variable in migrate["env"]}
    assert secret["MIGRATE_USER"]["name"] == secret["MIGRATE_PASSWORD"]["name"] == "postgres-app"
    assert [role["name"] for role in cluster["managed"]["roles"]] == [cluster["bootstrap"]["initdb"]["owner"]]


def test_a_commit_of_cloudnative_pg_is_on_a_standby_before_it_is_acknowledged(operated):
    cluster = named(operated, "Cluster", "postgres")["spec"]
    assert cluster["instances"] >= 3
    assert cluster["postgresql"]["synchronous"] == {"method": "any", "number": 1, "dataDurability": "required"}
    scaler = named(operated, "HorizontalPodAutoscaler", "pycrudapi")["spec"]
    # A replica uses POOL_SIZE connections and three more with AUTH=on; during a rollout there is one more replica.
    assert (scaler["maxReplicas"] + 1) * 13 + 3 <= int(cluster["postgresql"]["parameters"]["max_connections"])


def test_backups_of_cloudnative_pg_go_where_its_wal_goes(operated):
    (plugin,) = named(operated, "Cluster", "postgres")["spec"]["plugins"]
    backup = named(operated, "ScheduledBackup", "postgres")["spec"]
    assert plugin["isWALArchiver"] and plugin["name"] == backup["pluginConfiguration"]["name"]
    assert named(operated, "ObjectStore", plugin["parameters"]["barmanObjectName"])["spec"]["retentionPolicy"]
    assert backup["cluster"] == {"name": "postgres"}
    # The operator's cron format has seconds; five fields would be rejected.
    assert len(backup["schedule"].split()) == 6


def test_the_instances_of_cloudnative_pg_reach_each_other_and_clients_reach_them_alone(operated):
    instances = {"matchLabels": {"cnpg.io/cluster": "postgres"}}
    policy = named(operated, "NetworkPolicy", "postgres")["spec"]
    assert policy["podSelector"] == instances
    assert {"podSelector": instances} in [peer for rule in policy["ingress"] for peer in rule["from"]]
    assert {"podSelector": instances} in [peer for rule in policy["egress"] for peer in rule["to"]]
    (rule, *_) = named(operated, "NetworkPolicy", "pycrudapi")["spec"]["egress"]
    assert rule["to"] == [{"podSelector": instances}] and [port["port"] for port in rule["ports"]] == [5432]
    assert named(operated, "PodMonitor", "postgres")["spec"]["selector"] == instances


def test_the_overlay_of_the_documentation_is_the_one_that_is_tried_here():
    text = (ROOT / "docs/production.md").read_text()
    overlay = next(yaml.safe_load(block) for block in re.findall(r"(?m)((?:^    .*\n)+)", text) if "components/cloudnative-pg" in block)
    assert overlay["namespace"] == "python-crud-api"
    assert overlay["resources"] == ["../production"] and overlay["components"] == ["../../components/cloudnative-pg"]
