"""The programs of docs/languages.md create and read a passenger, run as they are printed there."""

import json
import re
import shutil
import subprocess
import sys

import pytest

import support

PROGRAMS = {
    "curl": ("sh", ["bash", "-euc"]),
    "Python": ("python", [sys.executable, "-c"]),
    "JavaScript": ("javascript", ["node", "--input-type=module", "-e"]),
}


def printed_in_the_readme(language):
    section = (support.REPOSITORY / "docs" / "languages.md").read_text()
    found = re.findall(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert len(found) == 1, f"one program in {language}, not {len(found)}"
    return found[0]


def test_the_programs_in_the_readme_create_and_read(stack):
    running = stack()
    missing = []
    for name, (language, command) in PROGRAMS.items():
        program = printed_in_the_readme(language)
        assert "localhost:8080" in program
        if shutil.which(command[0]) is None:
            missing.append(f"{name}: no {command[0]} on this machine")
            continue
        program = program.replace("localhost:8080", f"localhost:{running.port}")
        run = subprocess.run([*command, program], capture_output=True, text=True, timeout=60, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
        assert json.loads(run.stdout)["name"] == f"From {name}"
    if missing:
        pytest.skip("; ".join(missing))
