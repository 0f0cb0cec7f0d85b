"""The zone checker of `make prove` with histories of one row, and the exit status of `make prove`."""

import pathlib
import subprocess
import sys

import pytest

from support import REPOSITORY

sys.path.append(str(REPOSITORY / "prove"))

from history import DONE, NOT_FOUND, PRECONDITION_FAILED, NOT_DONE, UNKNOWN, Operation, anomalies  # noqa: E402

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
    "one after the other": [write(2, 3, DONE, "a", "v1"), read(4, 5, "v1", "a"), delete(6, 7, DONE), Operation("read", 8, 9, NOT_FOUND)],
    "two at once, read in either order": [
        write(2, 6, DONE, "a", "v1"),
        write(2, 6, DONE, "b", "v2"),
        read(3, 4, "v2", "b"),
        read(7, 8, "v1", "a"),
    ],
    "an unknown write that was seen": [write(2, FOREVER, UNKNOWN, "a"), read(3, 4, "v0", "created"), read(5, 6, "v1", "a")],
    "an unknown write that was not seen explains a failed precondition": [
        write(2, FOREVER, UNKNOWN, "a"),
        write(4, 5, PRECONDITION_FAILED, "b", expected="v0"),
    ],
    "a failed precondition after another change": [
        write(2, 3, DONE, "a", "v1", expected="v0"),
        write(2, 4, PRECONDITION_FAILED, "b", expected="v0"),
        read(5, 6, "v1", "a"),
    ],
    "an unknown deletion explains absence": [delete(2, FOREVER, UNKNOWN), write(3, 4, NOT_FOUND, "a")],
    "versions in no order": [write(2, 3, DONE, "a", "v9"), write(4, 5, DONE, "b", "v1"), read(6, 7, "v1", "b")],
}

UNEXPLAINED = {
    "read a state that was never written": [read(2, 3, "v1", "a")],
    "applied although answered as not applied": [write(2, 3, NOT_DONE, "a"), read(4, 5, "v1", "a")],
    "applied twice": [write(2, 3, DONE, "a", "v1"), read(4, 5, "v2", "a")],
    "read before it was written": [write(4, 5, DONE, "a", "v1"), read(2, 3, "v1", "a")],
    "stale: the state of the first": [write(2, 3, DONE, "a", "v1"), read(4, 5, "v1", "a"), read(6, 7, "v0", "created")],
    "stale: written": [read(8, 9, "v0", "created"), write(4, 5, DONE, "a", "v1")],
    "lost update": [
        write(2, 6, DONE, "a", "v1", expected="v0"),
        write(3, 5, DONE, "b", "v2", expected="v0"),
    ],
    "412 although the expected version was current later": [
        write(2, 3, PRECONDITION_FAILED, "a", expected="v0"),
        write(2, FOREVER, UNKNOWN, "b"),
        read(4, 5, "v0", "created"),
    ],
    "412 although no other change can have replaced the expected version": [write(2, 3, PRECONDITION_FAILED, "a", expected="v0")],
    "404 although no deletion can have been applied": [delete(2, 3, NOT_FOUND, expected="v0")],
    "404 although the row was present later": [
        delete(2, FOREVER, UNKNOWN),
        write(3, 4, NOT_FOUND, "a"),
        read(5, 6, "v0", "created"),
    ],
    "present after its deletion": [delete(2, 3, DONE), read(4, 5, "v0", "created")],
    "deleted twice": [delete(2, 3, DONE), delete(4, 5, DONE)],
    "412 after the row was deleted": [
        delete(2, 3, DONE),
        write(2, FOREVER, UNKNOWN, "b"),
        write(4, 5, PRECONDITION_FAILED, "a", expected="v0"),
    ],
}


@pytest.mark.parametrize("name", EXPLAINED)
def test_a_history_that_an_order_explains_has_no_anomaly(name):
    assert anomalies([create(0, 1), *EXPLAINED[name]]) == []


@pytest.mark.parametrize("name", UNEXPLAINED)
def test_a_history_that_no_order_explains_is_reported(name):
    found = anomalies([create(0, 1), *UNEXPLAINED[name]])
    assert any(anomaly.startswith(name) for anomaly in found), found


@pytest.mark.parametrize(("held", "status"), [("True", 0), ("False", 1), ("1 / 0", 1)])
def test_a_broken_promise_is_the_exit_status(directory, held, status):
    here = pathlib.Path(directory) / "prove"
    (here / "scenarios").mkdir(parents=True)
    for file in ("run.py", "scenario.py", "publish.py", "timeline_picture.py"):
        (here / file).write_text((REPOSITORY / "prove" / file).read_text())
    (here / "scenarios" / "made_up.py").write_text(
        "from scenario import Result\n"
        "async def run(context):\n"
        f"    return [Result('a promise', '0', {{'seconds': int(context.seconds)}}, {held})]\n"
    )
    done = subprocess.run(
        [sys.executable, here / "run.py", "--minutes", "2", "--seed", "7"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done
    report = (directory / "var" / "prove" / "report.md").read_text()
    assert "Seed 7." in report
    assert ("repeat with: make prove ONLY=made_up MINUTES=2 SEED=7" in report) == (status == 1), report
    if held != "1 / 0":
        assert "seconds 120" in report, report
