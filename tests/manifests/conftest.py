"""Renders every overlay once, with the installed kustomize or kubectl.

The checkout is copied first, because staging and production require a `secret.env`, which is never committed:
the copy uses that of the example.
"""

import os
import pathlib
import shutil
import subprocess

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
OVERLAYS = sorted(path.name for path in (ROOT / "kustomize" / "overlays").iterdir())


def renderer():
    """The command that renders a kustomization, or None."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    return None


@pytest.fixture(scope="session")
def kustomize(tmp_path_factory):
    """The path of a copy of kustomize/ in which every overlay has its secrets."""
    if renderer() is None:
        reason = "neither kustomize nor kubectl is installed: the overlays cannot be rendered"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    copy = tmp_path_factory.mktemp("repository") / "kustomize"
    shutil.copytree(ROOT / "kustomize", copy, ignore=shutil.ignore_patterns("secret.env"))
    # The components for monitoring include files from this folder.
    shutil.copytree(ROOT / "monitoring", copy.parent / "monitoring")
    for example in copy.glob("overlays/*/secret.env.example"):
        shutil.copy(example, example.with_suffix(""))
    return copy


@pytest.fixture(scope="session")
def rendered(kustomize):
    """{overlay: its objects}"""
    return {name: render(kustomize / "overlays" / name) for name in OVERLAYS}


def render(folder):
    """The objects of one kustomization."""
    done = subprocess.run([*renderer(), str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def render_with(kustomize, onto, component, namespace="python-crud-api", **more):
    """The objects of an overlay that adds a component to `onto`, written as a user would."""
    overlay = kustomize / "overlays" / f"with-{component}"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": namespace,
        "resources": [f"../../{onto}"],
        "components": [f"../../components/{component}"],
        **more,
    }))
    try:
        return render(overlay)
    finally:
        shutil.rmtree(overlay)


@pytest.fixture(params=OVERLAYS)
def overlay(request, rendered):
    """The objects of each overlay."""
    return rendered[request.param]


@pytest.fixture(scope="session")
def manifest():
    """The objects of the committed install manifest."""
    return list(yaml.safe_load_all((ROOT / "install" / "pycrudapi.yaml").read_text()))
