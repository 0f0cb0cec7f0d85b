"""The whole service with everything that watches it, started once for all tests."""

import pytest

import drills
import world as worlds
from support import until


@pytest.fixture(scope="session")
def world():
    with worlds.whole() as one:
        for alert in drills.AT_FIRST:
            until(lambda: one.receiver.told(alert, "firing"), f"{alert} is told")  # noqa: B023
        drills.good_runs(one)
        yield one
        # Shown beside a test that failed.
        print(f"--- what the stack said\n{one.stack.process.output[-4000:]}")
