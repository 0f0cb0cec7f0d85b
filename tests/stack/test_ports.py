"""Concurrent suites receive different ports, although no process listens on them yet."""

import random
import subprocess
import sys

from ports import free_port
from support import REPOSITORY

ANOTHER = "import random, ports; random.seed(1); print(ports.free_port(), ports.free_port())"


def test_another_process_is_given_other_ports_as_long_as_this_one_lives(monkeypatch):
    # Both generate the same random numbers.
    monkeypatch.setattr("ports.random", random.Random(1))
    mine = {free_port() for _ in range(5)}
    done = subprocess.run([sys.executable, "-c", ANOTHER], cwd=REPOSITORY / "tests" / "stack", capture_output=True, text=True, check=True)
    others = {int(port) for port in done.stdout.split()}
    assert len(mine) == 5 and len(others) == 2
    assert not mine & others
    # The ports of the other process are free again after its exit.
    monkeypatch.setattr("ports.random", random.Random(1))
    assert {free_port() for _ in range(2)} == others
