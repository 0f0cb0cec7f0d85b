"""The commands of docs/your-own-table.md, and CSV files of different origins: each becomes an API without Rust."""

import csv
import datetime
import importlib.machinery
import importlib.util
import io
import json
import os
import pathlib
import re
import subprocess

import pytest

import support
from support import BINARY_DIR, REPOSITORY

PAGE = REPOSITORY / "docs" / "your-own-table.md"
FILES = sorted((pathlib.Path(__file__).parent / "tables").glob("*.csv"))


def program(directory, *arguments):
    """Runs `pycrudapi` in a directory with its data and descriptions; returns its output."""
    environment = support.clean_environment(RESOURCES_DIR=directory / "my tables", DATA_DIR=directory / "data")
    done = subprocess.run(
        [BINARY_DIR / "pycrudapi", *map(str, arguments)], cwd=directory, env=environment, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARN" not in done.stderr, done.stderr
    return done.stdout


class Reader:
    """Follows the page in its own directory; `make up` is a stack with the same settings."""

    def __init__(self, directory):
        self.directory, self.stack = directory, None
        self.exports = ""

    def run(self, lines):
        """Runs shell lines unchanged except for the port; returns their output, line by line."""
        port = self.stack.port if self.stack else 8080
        environment = support.clean_environment(PATH=f"{BINARY_DIR}:{os.environ['PATH']}")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.exports + lines.replace("localhost:8080", f"localhost:{port}")],
            cwd=self.directory, env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{lines}\n{done.stdout}{done.stderr}"
        self.exports += "".join(line + "\n" for line in lines.splitlines() if line.startswith("export "))
        return done.stdout

    def make_up(self):
        self.stack = support.Stack(
            self.directory, RESOURCES_DIR=self.directory / "tables", DATA_DIR=self.directory / "var"
        ).start()

    def stop(self):
        if self.stack:
            self.stack.stop()
        self.stack = None


@pytest.fixture
def reader(directory):
    one = Reader(directory)
    yield one
    if one.stack:
        one.stack.destroy()
        print(f"--- what the stack said\n{one.stack.process.output[-6000:]}")


def test_the_page_leads_from_nothing_to_an_api_and_an_import(reader):
    said = []
    text = PAGE.read_text().split("## The image alone")[0]
    for language, lines in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if lines == "make up\n":
            reader.make_up()
        elif language == "sh":
            if "pycrudapi import" in lines:
                reader.stop()  # as the page says before it
            said.append(reader.run(lines))
    described, served, inferred, imported, found = said
    assert "vessels.toml: 4 columns, no fault" in described
    answers = []
    while served.startswith(("{", "[")):
        answer, end = json.JSONDecoder().raw_decode(served)
        answers.append(answer)
        served = served[end:].lstrip()
    created, counted, listed = answers
    assert (created["name"], counted, [row["name"] for row in listed]) == ("Ada", {"count": 2}, ["Ada", "Cleo"])
    assert [row[1:] for row in csv.reader(served.splitlines())] == [
        ["name", "type", "tonnage", "built"],
        ["Ada", "ferry", "1200.5", "1999"],
        ["Bea", "cargo", "", "1987"],
        ["Cleo", "tanker", "50000", "2011"],
    ]
    assert "harbours.toml: 5 columns, no fault" in inferred
    assert imported == "6 harbours imported\n"
    assert [row["harbourName"] for row in json.loads(found)] == ["Antwerp", "Zeebrugge", "Ostend"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_csv_file_becomes_an_api_with_every_row_of_it(directory, file):
    said = program(directory, "resource", "infer", file)
    name = pathlib.Path(said.split(":")[0]).stem
    program(directory, "resource", "check", directory / "my tables" / f"{name}.toml")
    rows = list(csv.reader(io.StringIO(file.read_text("utf-8-sig"), newline="")))
    imported = program(directory, "import", "--resource", name, file)
    assert imported == f"{len(rows) - 1} {name} imported\n"
    one = support.Stack(directory, RESOURCES_DIR=directory / "my tables", RESOURCES=name)
    try:
        one.start()
        assert one.request("GET", "/v1/passengers").status == 404
        answer = one.request("GET", f"/v1/{name}?limit=1000", headers={"accept": "text/csv"})
        assert answer.status == 200, answer
        listed = list(csv.reader(io.StringIO(answer.body.decode(), newline="")))
        assert len(listed) == len(rows)
        # The rows equal those of the file, in its order unless it has its own keys.
        skipped = 0 if rows[0][0] == "uuid" else 1
        values = [[plain(cell) for cell in row[skipped:]] for row in listed[1:]]
        expected = [[plain(cell) for cell in row] for row in rows[1:]]
        assert (values == expected) if skipped else (sorted(values) == sorted(expected))
        # The same file can be sent with POST.
        if skipped:
            posted = one.request("POST", f"/v1/{name}", file.read_bytes(), {"content-type": "text/csv"})
            assert posted.status == 201, posted
    finally:
        one.destroy()


def plain(cell):
    """A cell as the service formats it: numbers without trailing zeros, times in UTC."""
    if re.fullmatch(r"-?(0|[1-9]\d*)\.\d+", cell):
        return repr(float(cell)).removesuffix(".0")
    if re.fullmatch(r"\d{4}-\d\d-\d\dT.*(Z|[+-]\d\d:\d\d)", cell):
        return datetime.datetime.fromisoformat(cell).astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return cell


def test_make_up_reads_the_descriptions_of_the_checkout_or_of_another_folder(monkeypatch, tmp_path):
    loader = importlib.machinery.SourceFileLoader("up", str(REPOSITORY / "scripts" / "up"))
    up = importlib.util.module_from_spec(importlib.util.spec_from_loader("up", loader))
    loader.exec_module(up)
    monkeypatch.delenv("RESOURCES_DIR", raising=False)
    assert up.environment(tmp_path)["RESOURCES_DIR"] == str(REPOSITORY / "resources")
    monkeypatch.setenv("RESOURCES_DIR", "")
    assert up.environment(tmp_path)["RESOURCES_DIR"] == str(REPOSITORY / "resources")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESOURCES_DIR", "my tables")
    assert up.environment(tmp_path)["RESOURCES_DIR"] == str(tmp_path / "my tables")
