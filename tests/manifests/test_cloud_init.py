"""install/cloud-init.yaml: validated with cloud-init's own schema, and its script run with a stand-in for Docker."""

import json
import os
import pathlib
import re
import shutil
import stat
import subprocess

import jsonschema
import pytest
import yaml

from conftest import ROOT

FILE = ROOT / "install/cloud-init.yaml"
DOCUMENT = yaml.safe_load(FILE.read_text())
FILES = {file["path"]: file for file in DOCUMENT["write_files"]}
SCRIPT = FILES["/usr/local/sbin/pycrudapi-install"]["content"]

# Answers like docker with Compose as a plugin, and records its arguments.
DOCKER = """#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in *'token create'*) echo pycrudapi_secret ;; esac
"""


def test_it_is_cloud_config_by_cloud_init_s_own_schema(tmp_path):
    assert FILE.read_text().startswith("#cloud-config\n")
    if shutil.which("cloud-init"):
        done = subprocess.run(["cloud-init", "schema", "--config-file", FILE], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return
    # Debian's package, only unpacked: installed, it would configure the developer's machine at its next start.
    done = subprocess.run(["apt-get", "download", "cloud-init"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.glob("*.deb")
    subprocess.run(["dpkg-deb", "--extract", package, tmp_path / "cloud-init"], check=True)
    (schema,) = (tmp_path / "cloud-init").rglob("schema-cloud-config-v1.json")
    jsonschema.Draft4Validator(json.loads(schema.read_text())).validate(DOCUMENT)


def test_what_runs_at_the_first_start_is_what_was_written_before():
    ((program, settings),) = DOCUMENT["runcmd"]
    assert FILES.keys() == {program, settings}
    assert FILES[program]["permissions"] == "0755"
    assert {"git", "curl", "openssl"} <= set(DOCUMENT["packages"])


@pytest.fixture
def machine(tmp_path):
    """machine(**settings): runs the script on a machine with Docker; returns the calls of Docker."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in (("docker", DOCKER), ("curl", "#!/bin/sh\n"), ("apt-get", "#!/bin/sh\nexit 1\n")):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    source = tmp_path / "source"
    subprocess.run(["git", "init", "--quiet", "--initial-branch=main", source], check=True)
    identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.com"]
    subprocess.run(["git", "-C", source, *identity, "commit", "--quiet", "--allow-empty", "-m", "Begin"], check=True)
    script = tmp_path / "install"
    script.write_text(SCRIPT)

    def run(**settings):
        calls = tmp_path / "calls"
        calls.unlink(missing_ok=True)
        given = {"REPOSITORY": source, "DIRECTORY": tmp_path / "service", **settings}
        conf = tmp_path / "conf"
        conf.write_text(FILES["/etc/pycrudapi.conf"]["content"] + "".join(f"{name}={value}\n" for name, value in given.items()))
        environment = {"PATH": f"{tools}:{os.environ['PATH']}", "CALLS": str(calls), "HOME": str(tmp_path)}
        done = subprocess.run(["sh", script, conf], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [line for line in calls.read_text().splitlines() if "version" not in line]

    run.service = tmp_path / "service"
    return run


def settings_of(machine):
    return dict(line.split("=", 1) for line in (machine.service / ".env").read_text().splitlines())


def test_the_service_comes_up_with_passwords_of_its_own_and_a_token_for_root(machine):
    calls = machine(ALLOWED_HOSTS="api.example.com")
    assert calls[0] == "compose up --detach --build"
    found = settings_of(machine)
    passwords = [found[name] for name in ("POSTGRES_PASSWORD", "REQUESTS_PASSWORD", "REDIS_PASSWORD")]
    assert all(re.fullmatch("[0-9a-f]{48}", password) for password in passwords) and len(set(passwords)) == 3
    assert found["AUTH"] == "on" and found["ALLOWED_HOSTS"] == "api.example.com" and "IMAGE" not in found
    assert (machine.service / "token").read_text() == "pycrudapi_secret\n"
    for name in (".env", "token"):
        assert stat.S_IMODE((machine.service / name).stat().st_mode) == 0o600, name
    # Compose reads every setting that it writes.
    assert found.keys() <= set(re.findall(r"(?m)^(?:# )?([A-Z_]+)=", (ROOT / ".env.example").read_text()))


def test_a_second_run_keeps_passwords_and_token(machine):
    machine()
    before = settings_of(machine)
    calls = machine()
    assert settings_of(machine) == before
    assert not [call for call in calls if "token create" in call]


def test_a_published_image_is_pulled_and_not_built(machine):
    calls = machine(IMAGE="ghcr.io/someone/pycrudapi", VERSION="1.2.3-0123456789ab", AUTH="off")
    assert calls == ["compose pull --quiet", "compose up --detach --no-build"]
    assert settings_of(machine)["VERSION"] == "1.2.3-0123456789ab"
    assert not (machine.service / "token").exists()


def test_the_documentation_hands_this_file_to_two_providers():
    text = (ROOT / "docs/running.md").read_text()
    commands = [line for line in text.splitlines() if "install/cloud-init.yaml" in line]
    assert any("aws ec2 run-instances" in line for line in commands) and any("hcloud server create" in line for line in commands)
    assert all(pathlib.Path(ROOT / path).exists() for line in commands for path in re.findall(r"install/[\w.-]+", line))
