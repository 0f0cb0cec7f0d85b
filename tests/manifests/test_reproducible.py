"""scripts/reproducible with a stand-in for cargo, and the timestamp of builds."""

import os
import shutil
import subprocess

import pytest
import yaml

from conftest import ROOT

# Writes the given contents to the given folder, which must be empty.
CARGO = """#!/bin/sh
while [ "$1" != --target-dir ]; do shift; done
[ ! -e "$2" ] || exit 3
mkdir -p "$2/release" && echo {} >"$2/release/pycrudapi"
"""


@pytest.mark.parametrize(("builds", "status"), [("the same", 0), ("$$", 1)])
def test_two_builds_are_compared(tmp_path, builds, status):
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/reproducible", tmp_path / "scripts")
    cargo = tmp_path / "cargo"
    cargo.write_text(CARGO.replace("{}", builds))
    cargo.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "CARGO": str(cargo)}
    done = subprocess.run([tmp_path / "scripts/reproducible"], env=environment, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert ("two builds are the same" in done.stdout) == (status == 0)
    assert not (tmp_path / "target/reproducible").exists()


def test_images_get_the_time_of_the_commit():
    job = yaml.safe_load((ROOT / ".github/workflows/image.yml").read_text())["jobs"]["build"]
    assert any("SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)" in step.get("run", "") for step in job["steps"])
    (build,) = [step["with"] for step in job["steps"] if step.get("id") == "build"]
    assert "SOURCE_DATE_EPOCH=${{ env.SOURCE_DATE_EPOCH }}" in build["build-args"]
    assert "rewrite-timestamp=true" in build["outputs"]
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    # Before the first instruction that records a time, and after the packages, which would otherwise be installed again for each commit.
    place = lines.index("ARG SOURCE_DATE_EPOCH")
    assert any("apt-get install" in line for line in lines[:place])
    assert not any("&& useradd" in line for line in lines[:place])
