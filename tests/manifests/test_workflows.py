"""Static checks of the workflows and Compose files."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
COMPOSE = sorted(ROOT.glob("docker-compose*.yml"))


def check_schema(name, files):
    check = shutil.which("check-jsonschema", path=pathlib.Path(sys.executable).parent)
    done = subprocess.run([check, "--builtin-schema", name, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def steps():
    for file in WORKFLOWS:
        for name, job in yaml.safe_load(file.read_text())["jobs"].items():
            for step in job["steps"]:
                yield f"{file.name} {name}", step


def test_workflows_fit_their_schema_and_every_job_has_a_deadline():
    check_schema("vendor.github-workflows", WORKFLOWS)
    check_schema("custom.github-workflows-require-timeout", WORKFLOWS)


def test_compose_files_fit_the_compose_specification():
    check_schema("vendor.compose-spec", COMPOSE)


def test_every_place_with_pinned_dependencies_is_updated():
    file = ROOT / ".github/dependabot.yml"
    check_schema("vendor.dependabot", [file])
    updated = set()
    for update in yaml.safe_load(file.read_text())["updates"]:
        for directory in update.get("directories", [update.get("directory")]):
            updated.add((update["package-ecosystem"], directory))
    kinds = {"Cargo.lock": "cargo", "requirements.txt": "pip", "package-lock.json": "npm", "Dockerfile": "docker"}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    pinned = {
        (kinds[path.name], "/" + str(path.parent).removeprefix("."))
        for path in map(pathlib.Path, listed)
        if path.name in kinds
    }
    assert updated == pinned | {("github-actions", "/")}


def test_every_action_is_pinned_to_a_commit_whose_version_stands_beside_it():
    used = [line for file in WORKFLOWS for line in file.read_text().splitlines() if "uses:" in line]
    assert used
    for line in used:
        assert re.search(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


def test_no_script_of_a_workflow_has_text_put_into_it():
    # Expressions are substituted before the shell reads the script, so a branch name could become a command.
    for where, step in steps():
        assert "${{" not in step.get("run", ""), where


def test_every_make_target_a_workflow_calls_exists():
    described = "\n".join(file.read_text() for file in [ROOT / "Makefile", *ROOT.glob("make/*.mk")])
    called = {target for _, step in steps() for target in re.findall(r"(?m)^make ([\w-]+)", step.get("run", ""))}
    assert "manifest" in called
    for target in called:
        assert re.search(rf"(?m)^{target}:", described), target


@pytest.mark.parametrize("name", ["dev", "staging", "production"])
def test_a_branch_leads_to_each_overlay(name):
    branches = yaml.safe_load((ROOT / ".github/workflows/deploy.yml").read_text())[True]["workflow_run"]["branches"]
    assert {"dev": "dev", "staging": "staging", "production": "main"}[name] in branches
    assert (ROOT / "kustomize/overlays" / name / "kustomization.yaml").exists()


def test_the_example_of_the_settings_names_every_variable_of_the_compose_files():
    used = {name for file in COMPOSE for name in re.findall(r"\$\{(\w+)", file.read_text())}
    named = set(re.findall(r"(?m)^(?:# )?([A-Z_]+)=", (ROOT / ".env.example").read_text()))
    assert used == named


# Settings fixed by Compose: paths in its containers, and the logins for its PostgreSQL and Redis.
OF_COMPOSE = set("""
    DATABASE_URL DATABASE_URL_FILE DATABASE_READ_URL_FILE POSTGRES_HOST POSTGRES_PORT POSTGRES_USER POSTGRES_PASSWORD POSTGRES_PASSWORD_FILE
    POSTGRES_DB MIGRATE MIGRATE_USER MIGRATE_PASSWORD MIGRATE_PASSWORD_FILE REDIS_URL REDIS_PASSWORD_FILE DATA_DIR PG_BIN
    RESOURCES_DIR LISTEN METRICS_LISTEN METRICS_PORT HTTP_PORT HTTPS_PORT HEALTHCHECK_URL UPSTREAM SPOOL_DIR RUN_DIR TLS_CERT
    TLS_KEY TLS_DIR PARENT_PID LOG_DROPPED_FILE AUTH_JWKS_FILE AUTH_CA_FILE OTEL_EXPORTER_OTLP_CERTIFICATE
""".split())
# Settings of backups, which separate containers create (docker-compose.backup.yml).
OF_BACKUPS = set("""
    BACKUP_DIR BACKUP_KEY_FILE BACKUP_KEEP BACKUP_KEEP_FOR RESTORE_INTO RESTORE_BACKUP DRILL_INTO AWS_ENDPOINT_URL AWS_REGION AWS_ACCESS_KEY_ID
    AWS_SECRET_ACCESS_KEY AWS_SECRET_ACCESS_KEY_FILE AWS_SESSION_TOKEN AWS_CA_BUNDLE
""".split())
# nginx has a separate container there, with the settings of docker-compose.yml.
OF_NGINX = set("TLS_SELF_SIGNED RATE_LIMIT CONN_LIMIT TRUSTED_PROXIES CLIENT_TIMEOUT_MS UPSTREAM_TIMEOUT_MS ACCESS_LOG NGINX_WORKERS NGINX_STATUS_PORT".split())


def test_every_setting_can_be_given_in_the_file_of_compose():
    documented = set(re.findall(r"(?m)^\| `([A-Z_]+)` \|", (ROOT / "docs/settings.md").read_text()))
    assert OF_COMPOSE | OF_BACKUPS | OF_NGINX < documented
    for file, service, elsewhere in (
        ("docker-compose.yml", "pycrudapi", set()),
        ("docker-compose.scale.yml", "api1", OF_NGINX),
        ("docker-compose.scale.yml", "api2", OF_NGINX),
        ("docker-compose.scale.yml", "api3", OF_NGINX),
    ):
        given = yaml.safe_load((ROOT / file).read_text())["services"][service]["environment"]
        passed_on = {name for name, value in given.items() if str(value).startswith(f"${{{name}:-")}
        assert documented - OF_COMPOSE - OF_BACKUPS - elsewhere == passed_on, f"{file}: {service}"


def test_the_trial_of_signing_in_has_a_service_and_a_provider_that_mean_the_same():
    services = yaml.safe_load((ROOT / "docker-compose.auth.yml").read_text())["services"]
    service, provider = services["pycrudapi"], services["identity"]
    assert service["environment"]["AUTH"] == "on"
    assert service["environment"]["AUTH_ISSUER"] == provider["environment"]["ISSUER"]
    assert service["environment"]["AUTH_AUDIENCE"] == provider["environment"]["AUDIENCE"]
    # The same URL for the browser on this machine and the service in its container, not reachable from other machines.
    assert provider["network_mode"] == "service:pycrudapi"
    port = provider["environment"]["PORT"]
    assert provider["environment"]["ISSUER"] == f"http://localhost:{port}"
    assert service["ports"] == [f"127.0.0.1:{port}:{port}"]
    # The same confinement as for the other containers.
    hardened = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["x-hardening"]
    assert hardened.items() <= provider.items()
    lines = (ROOT / "identity/Dockerfile").read_text().splitlines()
    assert {line.split()[1] for line in lines if line.startswith("FROM ")} == {"debian:trixie-slim"}
    assert "USER 10001:10001" in lines


def test_the_dockerfile_names_public_images_by_version_and_ends_unprivileged():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert [line.split()[1] for line in lines if line.startswith("FROM ")] == ["rust:1.95-slim-trixie", "debian:trixie-slim"]
    channel = re.search(r'channel = "(\d+\.\d+)', (ROOT / "rust-toolchain.toml").read_text())[1]
    assert f"FROM rust:{channel}-slim-trixie AS build" in lines
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:10001"]


def test_every_setting_of_the_compose_files_is_in_the_example():
    example = (ROOT / ".env.example").read_text()
    used = {name for file in COMPOSE for name in re.findall(r"\$\{(\w+)", file.read_text())}
    assert len(used) > 15
    for name in used:
        assert re.search(rf"(?m)^(# )?{name}=", example), f"{name} is not in .env.example"


def test_every_container_of_compose_that_serves_or_migrates_has_the_descriptions():
    read = {}
    for file in COMPOSE:
        services = yaml.safe_load(file.read_text())["services"]
        for name, service in services.items():
            read.setdefault(name, []).append(service)
    mounted = "${RESOURCES_DIRECTORY:-./resources}:/etc/pycrudapi/resources:ro"
    for name in ["migrate", "pycrudapi", "api1", "api2", "api3"]:
        assert any(mounted in service.get("volumes", []) for service in read[name]), name
        assert any(service.get("environment", {}).get("RESOURCES") == "${RESOURCES:-}" for service in read[name]), name
    assert "RESOURCES_DIR=/etc/pycrudapi/resources" in (ROOT / "Dockerfile").read_text()


def test_backups_and_drills_are_jobs_that_are_shut_in_and_started_by_nobody_else():
    services = yaml.safe_load((ROOT / "docker-compose.backup.yml").read_text())["services"]
    main = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    hardened = {name: main["x-hardening"][name] for name in ("read_only", "cap_drop", "security_opt")}
    for name, service in services.items():
        assert hardened.items() <= service.items(), name
        assert service["profiles"] == ["backup"] and service["restart"] == "no", name
        assert service["networks"] == ["private"], name
    environment = main["services"]["pycrudapi"]["environment"]
    for name in ("backup", "restore-drill", "restore"):
        given = services[name]["environment"]
        assert given["BACKUP_DIR"] == services[name]["volumes"][0].rsplit(":", 1)[1]
        for setting in ("POSTGRES_HOST", "POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD"):
            assert given[setting] == environment[setting], f"{name}: {setting}"
    assert "throwaway" in services["restore-drill"]["environment"]["DRILL_INTO"]
    assert services["throwaway"]["image"] == main["services"]["postgres"]["image"]
    # In a bucket: the same jobs with external network access, and the volume as space for the current backup.
    for name, bucket in yaml.safe_load((ROOT / "docker-compose.bucket.yml").read_text())["services"].items():
        given = bucket["environment"]
        assert given["BACKUP_DIR"].startswith("${BACKUP_BUCKET:?")
        assert {"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= set(given) & OF_BACKUPS | {"TMPDIR"}
        assert given["TMPDIR"] == services[name]["volumes"][0].rsplit(":", 1)[1]
        assert bucket["networks"] == ["private", "outside"], name
    # The data of a throwaway database is in memory.
    assert any(entry.startswith("/var/lib/postgresql/data:") for entry in services["throwaway"]["tmpfs"])
