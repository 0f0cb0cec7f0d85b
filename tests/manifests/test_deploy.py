"""scripts/deploy, which the workflow runs: on a repository with earlier builds, and stand-ins for kubectl and cosign."""

import os
import re
import shutil
import subprocess

import pytest
import yaml

from conftest import ROOT, renderer

IMAGE = "ghcr.io/someone/pycrudapi"
BUILDS = {"0.1.0-aaaaaaaaaaaa": "sha256:" + 64 * "a", "0.1.0-bbbbbbbbbbbb": "sha256:" + 64 * "b"}
OLD, NEW = BUILDS
SIGNED_BY = "https://github.com/someone/pycrudapi/.github/workflows/image.yml@refs/heads/main"

# Renders like the real one, and records applied manifests and all other calls.
KUBECTL = """#!/bin/sh
case $1 in
kustomize) exec {real} "$2" ;;
apply) cp "$3" "$APPLIED" ;;
esac
echo "$*" >>"$CALLS"
"""
COSIGN = '#!/bin/sh\necho "cosign $*" >>"$CALLS"\nexit "${COSIGN_STATUS:-0}"\n'


@pytest.fixture
def deploy(tmp_path, kustomize):
    """deploy(*arguments, **variables): the completed script; `.calls()` and `.applied()` return what the cluster received."""
    repository, tools = tmp_path / "repository", tmp_path / "bin"
    tools.mkdir()
    real = " ".join([shutil.which(renderer()[0]), *renderer()[1:]])
    for name, text in (("kubectl", KUBECTL.replace("{real}", real)), ("cosign", COSIGN)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    shutil.copytree(kustomize, repository / "kustomize")
    (repository / "install").mkdir()
    (repository / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/deploy", repository / "scripts/deploy")
    (repository / ".gitignore").write_text("secret.env\n")

    def git(*arguments):
        identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.com"]
        subprocess.run(["git", "-C", repository, *identity, *arguments], check=True, capture_output=True)

    git("init", "--initial-branch=main")
    for version, digest in BUILDS.items():
        subprocess.run([repository / "kustomize/manifest", IMAGE, version, digest], check=True, capture_output=True)
        # Another change of the same build, which a rollback must restore, too.
        (repository / "kustomize/overlays/production/build.txt").write_text(version)
        git("add", "--all")
        git("commit", "--message", f"Run {version}")
    git("commit", "--allow-empty", "--message", "Go on")

    def run(*arguments, **variables):
        environment = {"PATH": f"{tools}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"), "APPLIED": str(tmp_path / "applied")}
        return subprocess.run(
            [repository / "scripts/deploy", *arguments], env=environment | variables, capture_output=True, text=True
        )

    def read(name):
        return (tmp_path / name).read_text() if (tmp_path / name).exists() else ""

    run.repository = repository
    run.calls = lambda: read("calls").splitlines()
    run.applied = lambda: read("applied")
    return run


def images(text):
    return set(re.findall(rf"image: ({IMAGE}\S+)", text))


def test_an_environment_gets_its_overlay_and_its_rollout_is_waited_for(deploy):
    done = deploy("production", SIGNED_BY=SIGNED_BY)
    assert done.returncode == 0, done.stderr
    assert images(deploy.applied()) == {f"{IMAGE}:{NEW}@{BUILDS[NEW]}"}
    verified, _, database, service = deploy.calls()
    assert SIGNED_BY in verified and verified.endswith(BUILDS[NEW])
    assert database.startswith("--namespace python-crud-api rollout status statefulset/postgres0")
    assert service.startswith("--namespace python-crud-api rollout status deployment/pycrudapi")


def test_a_rollback_uses_the_manifests_of_that_version_and_the_current_secrets(deploy):
    secrets = deploy.repository / "kustomize/overlays/production/secret.env"
    secrets.write_text(secrets.read_text().replace("redis-password=change-me", "redis-password=of-today"))
    done = deploy("production", OLD, SIGNED_BY=SIGNED_BY)
    assert done.returncode == 0, done.stderr
    assert images(deploy.applied()) == {f"{IMAGE}:{OLD}@{BUILDS[OLD]}"}
    assert (deploy.repository / "kustomize/overlays/production/build.txt").read_text() == OLD
    assert "redis-password=of-today" in secrets.read_text()
    assert deploy.calls()[0].endswith(BUILDS[OLD])


@pytest.mark.parametrize("version", ["0.1.0-cccccccccccc", "0.1.0", ".*", "0.1.0-aaaaaaaaaaaa; true", "-a"])
def test_a_version_that_was_never_deployed_changes_nothing(deploy, version):
    done = deploy("production", version)
    assert done.returncode == 2
    assert f'no commit of this branch is "Run {version}"' in done.stderr and f"Run {OLD}" in done.stderr
    assert not deploy.calls()


def test_an_image_without_the_workflow_s_signature_is_not_deployed(deploy):
    assert deploy("production", SIGNED_BY=SIGNED_BY, COSIGN_STATUS="1").returncode != 0
    assert not deploy.applied()


def test_an_image_without_a_digest_is_not_deployed_where_a_signature_is_asked_for(deploy):
    subprocess.run([deploy.repository / "kustomize/manifest", IMAGE, "0.2.0"], check=True, capture_output=True)
    done = deploy("production", SIGNED_BY=SIGNED_BY)
    assert done.returncode == 1 and "a signature is of a digest" in done.stderr
    assert not deploy.applied()


def test_an_environment_without_an_overlay_is_an_error(deploy):
    done = deploy("feature")
    assert done.returncode == 2 and "there is no kustomize/overlays/feature" in done.stderr


def test_the_workflow_hands_the_script_what_it_asks_for():
    workflow = yaml.safe_load((ROOT / ".github/workflows/deploy.yml").read_text())
    assert workflow[True]["workflow_dispatch"]["inputs"].keys() == {"version"}
    (job,) = workflow["jobs"].values()
    (step,) = [step for step in job["steps"] if "scripts/deploy" in step.get("run", "")]
    assert step["env"]["VERSION"] == "${{ inputs.version }}"
    assert job["steps"][0]["with"]["fetch-depth"] == 0, "a version of before is found in the history"
    # The workflow signs with the same identity that the deployment verifies.
    assert "/.github/workflows/image.yml@refs/heads/$BRANCH" in step["run"]
    build = (ROOT / ".github/workflows/image.yml").read_text()
    assert 'git commit --message "Run $VERSION"' in build and 'cosign sign --yes --recursive "$IMAGE@$digest"' in build
    assert "sbom: true" in build and "provenance: mode=max" in build
