"""The component `backup`: a backup every night and a drill every week, in every overlay that includes it."""

import re
import shlex
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml

from conftest import ROOT, render
from test_manifests import VERSIONS, containers, named, of_kind, pod


@pytest.fixture(scope="module", params=["own database", "external database", "bucket"])
def objects(request, kustomize):
    components = ["../../components/backup"]
    if request.param == "bucket":
        components.append("../../components/backup-bucket")
    if request.param == "external database":
        components.append("../../components/external-database")
    overlay = kustomize / "overlays" / "backup"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "python-crud-api",
        "resources": ["../../base"],
        "components": components,
    }))
    try:
        return request.param, render(overlay)
    finally:
        shutil.rmtree(overlay)


def jobs(objects):
    found = {item["metadata"]["name"]: item for item in of_kind(objects, "CronJob")}
    assert set(found) == {"backup", "restore-drill", "restore"}
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_fits_the_api_schema_strictly(objects, version):
    for item in objects[1]:
        kubernetes_validate.validate(item, version, strict=True)


def test_a_job_ends_leaves_nothing_and_may_nothing(objects):
    account = named(objects[1], "ServiceAccount", "backup")
    assert account["automountServiceAccountToken"] is False
    for job in jobs(objects[1]).values():
        assert job["spec"]["concurrencyPolicy"] == "Forbid"
        spec = job["spec"]["jobTemplate"]["spec"]
        assert spec["activeDeadlineSeconds"] > 0 and spec["ttlSecondsAfterFinished"] > 0
        shut = pod(job)["spec"]
        assert shut["serviceAccountName"] == "backup" and shut["automountServiceAccountToken"] is False
        assert shut["securityContext"]["runAsNonRoot"] is True
        for container in containers(job):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert set(container["resources"]["limits"]) == {"cpu", "memory", "ephemeral-storage"}
            assert container["image"] != "pycrudapi", "the component image names the build"


def test_both_jobs_read_the_database_that_the_service_has_and_the_same_claim(objects):
    kind, items = objects
    deployment = pod(named(items, "Deployment", "pycrudapi"))["spec"]["containers"][0]
    wanted = {each["name"]: each for each in deployment["env"]}
    for name, job in jobs(items).items():
        (container,) = pod(job)["spec"]["containers"]
        given = {each["name"]: each for each in container["env"]}
        settings = ["DATABASE_URL"] if kind == "external database" else ["POSTGRES_HOST", "POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD_FILE"]
        for setting in settings:
            assert given[setting] == wanted[setting], f"{name}: {setting}"
        assert ("POSTGRES_HOST" in given) == (kind != "external database")
        volumes = {volume["name"]: volume for volume in pod(job)["spec"]["volumes"]}
        assert volumes["backups"]["persistentVolumeClaim"]["claimName"] == "backup"
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        if kind == "bucket":
            assert given["BACKUP_DIR"]["value"].startswith("s3://")
            assert given["TMPDIR"]["value"] == mounted["backups"]
            assert given["AWS_SECRET_ACCESS_KEY_FILE"]["value"].startswith(mounted["bucket"])
            assert not next(mount for mount in container["volumeMounts"] if mount["name"] == "backups").get("readOnly")
        else:
            assert given["BACKUP_DIR"]["value"] == mounted["backups"]
        assert set(mounted) <= set(volumes)
    named(items, "PersistentVolumeClaim", "backup")


def test_a_restore_never_starts_by_itself_and_takes_the_backup_that_the_command_of_the_documentation_names(objects):
    kind, items = objects
    job = jobs(items)["restore"]
    assert job["spec"]["suspend"] is True and not any(other["spec"].get("suspend") for name, other in jobs(items).items() if name != "restore")
    manual = (ROOT / "docs" / "operations.md").read_text()
    (command,) = re.findall(r"kubectl set env --local [^|]*RESTORE_BACKUP=ID[^|]*", manual)
    made = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "restore"}, "spec": job["spec"]["jobTemplate"]["spec"]}
    changed = subprocess.run(shlex.split(command), input=yaml.safe_dump(made), capture_output=True, text=True, check=True).stdout
    (container,) = yaml.safe_load(changed)["spec"]["template"]["spec"]["containers"]
    given = {each["name"]: each for each in container["env"]}
    assert given["RESTORE_BACKUP"]["value"] == "ID"
    assert container["command"] == ["pycrudapi", "restore"]
    if kind == "external database":
        assert given["RESTORE_INTO"]["valueFrom"]["secretKeyRef"]["key"] == "restore-url"
    else:
        assert given["RESTORE_INTO"]["value"].endswith("@postgres0:5432/restored")
        mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert given["MIGRATE_PASSWORD_FILE"]["value"] == f"{mounted['administrator']}/postgres-password"


def test_the_drill_has_a_postgres_of_its_own_that_goes_with_it(objects):
    job = jobs(objects[1])["restore-drill"]
    (throwaway,) = pod(job)["spec"]["initContainers"]
    assert throwaway["restartPolicy"] == "Always", "a sidecar, which ends with the job"
    volumes = {volume["name"]: volume for volume in pod(job)["spec"]["volumes"]}
    for mount in throwaway["volumeMounts"]:
        assert "emptyDir" in volumes[mount["name"]], mount
    (container,) = pod(job)["spec"]["containers"]
    into = next(each["value"] for each in container["env"] if each["name"] == "DRILL_INTO")
    assert "@127.0.0.1:5432/" in into


def test_the_network_lets_the_jobs_reach_the_database_and_the_bucket_alone(objects):
    kind, items = objects
    policy = named(items, "NetworkPolicy", "backup")["spec"]
    assert not policy.get("ingress") and [port["port"] for rule in policy["egress"] for port in rule["ports"]] == (
        [5432, 443] if kind == "bucket" else [5432]
    )
    for job in jobs(items).values():
        assert policy["podSelector"]["matchLabels"].items() <= pod(job)["metadata"]["labels"].items()
    names = {item["metadata"]["name"] for item in of_kind(items, "NetworkPolicy")}
    assert ("postgres0-backup" in names) == (kind != "external database")
