"""The image itself: its size, labels, the contents of its layers, and its exit."""

import io
import json
import re
import subprocess
import tarfile
import time

import pytest

from containers import docker, inspect
from support import REPOSITORY

# The limit; the image has 120 MB.
SIZE_MAX_BYTES = 130_000_000


def test_it_is_small(image):
    assert inspect(image)["Size"] < SIZE_MAX_BYTES, docker("history", image)


def test_it_says_what_it_is_and_how_it_runs(image):
    config = inspect(image)["Config"]
    assert config["User"] == "10001:10001"
    assert config["ExposedPorts"].keys() == {"8080/tcp", "8443/tcp", "9464/tcp"}
    # A list without CMD-SHELL needs no shell and no curl.
    assert config["Healthcheck"]["Test"] == ["CMD", "pycrudapi", "healthcheck"]
    assert config["Cmd"][:3] == ["python3", "-m", "begin"]
    assert not config.get("Entrypoint")
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert labels["title"] == "pycrudapi"
    assert labels["licenses"] == "MIT"
    assert labels["version"] == "test"
    assert re.fullmatch(r"[0-9a-f]{12}|unknown", labels["revision"])


def test_the_server_has_no_embedded_database(image):
    done = subprocess.run(["docker", "run", "--rm", image, "pycrudapi", "serve"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "DATABASE_URL" in done.stdout + done.stderr


def layers(image, directory):
    """Each layer of the image, as an open tar file."""
    archive = directory / "image.tar"
    docker("save", "--output", archive, image)
    with tarfile.open(archive) as outer:
        manifest = json.load(outer.extractfile("manifest.json"))
        for name in manifest[0]["Layers"]:
            with tarfile.open(fileobj=outer.extractfile(name)) as layer:
                yield layer


def test_no_layer_contains_secrets_or_foreign_files(image, tmp_path):
    seen = 0
    for layer in layers(image, tmp_path):
        for member in layer:
            seen += 1
            name = "/" + member.name.removeprefix("./")
            assert not re.search(r"/\.git(/|$)|/(secret)?\.env$|/id_(rsa|ed25519)|\.tfstate$", name), name
            # Any private key, but not the certificates of the trust store: the whole header, in a file small enough to be a key.
            if member.isfile() and member.size < 65_536:
                content = layer.extractfile(member).read()
                assert not re.search(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40}", content), name
    assert seen > 1000
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
    environment = inspect(image)["Config"]["Env"]
    assert not re.search(r"(?i)(password|secret|token)=", history + "\n".join(environment))


def test_the_build_context_has_only_sources(tmp_path):
    """Even with secrets in common places, the build context contains only what the Dockerfile copies."""
    context = tmp_path / "checkout"
    for name in ["src", "migrations", "data", "nginx", "supervisor", ".git", "target", "kustomize/overlays/production"]:
        (context / name).mkdir(parents=True)
        (context / name / "file").touch()
    for name in [".env", "Cargo.toml", "Cargo.lock", "supervisord.conf", "tls.key", "kustomize/overlays/production/secret.env"]:
        (context / name).touch()
    (context / ".dockerignore").write_text((REPOSITORY / ".dockerignore").read_text())
    tag = "pycrudapi-test-context"
    docker("build", "--tag", tag, "--file", "-", context, input="FROM scratch\nCOPY . /context/\n")
    container = docker("create", tag, "nothing")
    try:
        exported = subprocess.run(["docker", "export", container], capture_output=True, check=True).stdout
    finally:
        docker("rm", container)
        docker("rmi", tag)
    with tarfile.open(fileobj=io.BytesIO(exported)) as archive:
        sent = {name.split("/")[1] for name in archive.getnames() if name.startswith("context/")}
    assert sent == {"Cargo.toml", "Cargo.lock", "src", "migrations", "data", "nginx", "supervisor", "supervisord.conf"}


@pytest.mark.parametrize(
    ("setting", "said"),
    [("POOL_SIZE=many", "POOL_SIZE|pool-size"), ("RATE_LIMIT=many", "RATE_LIMIT")],
    ids=["server", "nginx"],
)
def test_a_child_that_keeps_exiting_stops_the_container(image, setting, said):
    began = time.monotonic()
    # A database is set, so that only the tested setting is wrong.
    done = subprocess.run(
        ["docker", "run", "--rm", "--read-only", "--tmpfs=/tmp", "--tmpfs=/run/pycrudapi",
         "--env=POSTGRES_HOST=127.0.0.1", f"--env={setting}", image],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode not in (0, 137), done.stdout + done.stderr
    assert re.search(said, done.stdout + done.stderr)
    assert time.monotonic() - began < 45
