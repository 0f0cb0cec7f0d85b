"""The commands of docs/operations.md, "Backup and restore", run with a running stack; and a stack that serves the restored data."""

import datetime
import json
import pathlib
import re
import subprocess

import support
from support import PASSENGER, PROGRAM, REPOSITORY, Stack, until

TIMEOUT_SECONDS = 240


def commands():
    """The lines of the section's first block, without their comments."""
    text = (REPOSITORY / "docs" / "operations.md").read_text()
    block = text.split("## Backup and restore\n", 1)[1].lstrip("\n").split("\n\n", 1)[0]
    return [line.split(" # ")[0].strip() for line in block.splitlines()]


def names(stack):
    return sorted(each["name"] for each in stack.request("GET", "/v1/passengers?limit=100").json())


def test_what_the_documentation_says_brings_everything_back(directory):
    once, follow, listed, newest, instant, serve, drill = commands()
    places = {"/backups": str(directory / "backups"), "/new": str(directory / "new")}
    first = Stack(directory, SEED="false").start()
    environment = support.clean_environment(
        DATA_DIR=first.data_dir, PATH=f"{PROGRAM.parent}:{first.environment['PATH']}", PYCRUDAPI=PROGRAM
    )

    def typed(line):
        for place, here in places.items():
            line = line.replace(place, here)
        return ["bash", "-c", line]

    def run(line):
        done = subprocess.run(
            typed(line), cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        return done.stdout

    def create(name):
        assert first.request("POST", "/v1/passengers", {**PASSENGER, "name": name}).status == 201

    following = None
    try:
        create("before")
        assert "checked" in run(once)
        following = support.Process(typed(follow), environment)
        until(lambda: "following" in following.output, "it follows")
        at = datetime.datetime.now(datetime.UTC)
        create("after")
        written = datetime.datetime.now(datetime.UTC)
        (received,) = (directory / "backups" / "wal").glob("*/received.json")
        until(lambda: datetime.datetime.fromisoformat(json.loads(received.read_text())["at"]) > written, "all is received")
        assert re.search(r"physical .* … ", run(listed))
        assert "is what the database was at" in run(drill)
        assert "DATA_DIR" in run(newest)
        everything = directory / "everything"
        (directory / "new").rename(everything)
        run(re.sub(r"AT=\S+", f"AT={at.isoformat()}", instant))
    finally:
        if following is not None and following.running:
            following.signal(15)
            following.wait()
        first.destroy()
    assert serve.startswith("DATA_DIR=/new make up")
    for place, expected in ((directory / "new", ["before"]), (everything, ["after", "before"])):
        second = Stack(directory / f"of-{place.name}", DATA_DIR=place, SEED="false")
        second.directory.mkdir()
        support.open_to_all(second.directory)
        try:
            assert names(second.start()) == expected, pathlib.Path(place)
        finally:
            second.destroy()
