"""What `make prove` judges by: histories of one row, and its exit status."""

import pathlib
import subprocess
import sys

import pytest

from support import REPOSITORY

sys.path.append(str(REPOSITORY / "prove"))

from history import DONE, MISSING, REFUSED, UNDONE, UNKNOWN, Operation, faults  # noqa: E402

FOREVER = float("inf")


def create(begun, ended):
    return Operation("create", begun, ended, DONE, "v0", "created")


def read(begun, ended, version, name):
    return Operation("read", begun, ended, DONE, version, name)


def write(begun, ended, outcome, name, version=None, expected=None):
    return Operation("write", begun, ended, outcome, version, name, expected)


def delete(begun, ended, outcome, expected=None):
    return Operation("delete", begun, ended, outcome, expected=expected)


EXPLAINED = {
    "one after the other": [write(2, 3, DONE, "a", "v1"), read(4, 5, "v1", "a"), delete(6, 7, DONE), Operation("read", 8, 9, MISSING)],
    "two at once, read in either order": [
        write(2, 6, DONE, "a", "v1"),
        write(2, 6, DONE, "b", "v2"),
        read(3, 4, "v2", "b"),
        read(7, 8, "v1", "a"),
    ],
    "an unknown write that was seen": [write(2, FOREVER, UNKNOWN, "a"), read(3, 4, "v0", "created"), read(5, 6, "v1", "a")],
    "an unknown write that was not seen explains a refusal": [
        write(2, FOREVER, UNKNOWN, "a"),
        write(4, 5, REFUSED, "b", expected="v0"),
    ],
    "a refusal after another's change": [
        write(2, 3, DONE, "a", "v1", expected="v0"),
        write(2, 4, REFUSED, "b", expected="v0"),
        read(5, 6, "v1", "a"),
    ],
    "an unknown deletion explains absence": [delete(2, FOREVER, UNKNOWN), write(3, 4, MISSING, "a")],
    "versions in no order": [write(2, 3, DONE, "a", "v9"), write(4, 5, DONE, "b", "v1"), read(6, 7, "v1", "b")],
}

UNEXPLAINED = {
    "read what nobody wrote": [read(2, 3, "v1", "a")],
    "carried out although answered otherwise": [write(2, 3, UNDONE, "a"), read(4, 5, "v1", "a")],
    "carried out twice": [write(2, 3, DONE, "a", "v1"), read(4, 5, "v2", "a")],
    "read before it was written": [write(4, 5, DONE, "a", "v1"), read(2, 3, "v1", "a")],
    "stale: the state": [write(2, 3, DONE, "a", "v1"), read(4, 5, "v1", "a"), read(6, 7, "v0", "created")],
    "stale: written": [read(8, 9, "v0", "created"), write(4, 5, DONE, "a", "v1")],
    "both changed the same state": [
        write(2, 6, DONE, "a", "v1", expected="v0"),
        write(3, 5, DONE, "b", "v2", expected="v0"),
    ],
    "refused although its state was there later": [
        write(2, 3, REFUSED, "a", expected="v0"),
        write(2, FOREVER, UNKNOWN, "b"),
        read(4, 5, "v0", "created"),
    ],
    "refused although nobody else can have changed it": [write(2, 3, REFUSED, "a", expected="v0")],
    "missing although nobody else can have deleted it": [delete(2, 3, MISSING, expected="v0")],
    "missing although it was there later": [
        delete(2, FOREVER, UNKNOWN),
        write(3, 4, MISSING, "a"),
        read(5, 6, "v0", "created"),
    ],
    "there after it was deleted": [delete(2, 3, DONE), read(4, 5, "v0", "created")],
    "deleted twice": [delete(2, 3, DONE), delete(4, 5, DONE)],
    "refused by a condition after it was deleted": [
        delete(2, 3, DONE),
        write(2, FOREVER, UNKNOWN, "b"),
        write(4, 5, REFUSED, "a", expected="v0"),
    ],
}


@pytest.mark.parametrize("name", EXPLAINED)
def test_a_history_that_an_order_explains_has_no_fault(name):
    assert faults([create(0, 1), *EXPLAINED[name]]) == []


@pytest.mark.parametrize("name", UNEXPLAINED)
def test_a_history_that_no_order_explains_is_reported(name):
    found = faults([create(0, 1), *UNEXPLAINED[name]])
    assert any(fault.startswith(name) for fault in found), found


@pytest.mark.parametrize(("held", "status"), [("True", 0), ("False", 1), ("1 / 0", 1)])
def test_a_broken_promise_is_the_exit_status(directory, held, status):
    here = pathlib.Path(directory) / "prove"
    (here / "scenarios").mkdir(parents=True)
    for file in ("run.py", "scenario.py", "publish.py", "timeline_picture.py"):
        (here / file).write_text((REPOSITORY / "prove" / file).read_text())
    (here / "scenarios" / "made_up.py").write_text(
        "from scenario import Row\n"
        "async def run(context):\n"
        f"    return [Row('a promise', '0', {{'seconds': int(context.seconds)}}, {held})]\n"
    )
    done = subprocess.run(
        [sys.executable, here / "run.py", "--minutes", "2", "--seed", "7"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done
    report = (directory / "var" / "prove" / "report.md").read_text()
    assert "Seed 7." in report
    assert ("again: make prove ONLY=made_up MINUTES=2 SEED=7" in report) == (status == 1), report
    if held != "1 / 0":
        assert "seconds 120" in report, report
