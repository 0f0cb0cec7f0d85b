"""The dashboards: made from their source, and every panel of them shows something when the service is under load."""

import json
import re
import time

import pytest

import dashboards
import panels
import world as worlds
from support import REPOSITORY, until

DASHBOARDS = REPOSITORY / "monitoring" / "dashboards"
# What the tests' service does not have.
ABSENT = {"containers", "a cluster", "a failure"}


@pytest.mark.parametrize("name", panels.DASHBOARDS)
def test_the_committed_dashboard_is_what_its_source_makes(name):
    assert (DASHBOARDS / f"{name}.json").read_text() == dashboards.dashboard(name), "run `make monitoring`"


def queries(name):
    """(panel, query) of a committed dashboard, with what Grafana fills in."""
    for panel in json.loads((DASHBOARDS / f"{name}.json").read_text())["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"].replace("$__rate_interval", "12s").replace("$namespace", ".*")
            assert "$" not in expression.replace("${source}", ""), expression
            yield panel, expression


@pytest.fixture(scope="module")
def loaded(world):
    """The service has been under load for as long as every window of a panel."""
    with worlds.Load(world) as load:
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 25 and load.answered > 500, "a loaded period", 120)
        yield world
    print(load.by_status)


@pytest.mark.parametrize("name", panels.DASHBOARDS)
def test_every_panel_shows_something(loaded, name):
    seen = 0
    for panel, expression in queries(name):
        needs = re.sub(r"^Empty without (.*)\.$", r"\1", panel.get("description", ""))
        samples = loaded.prometheus.query(expression)
        assert needs in ABSENT or samples, f"{panel['title']}: {expression}"
        assert needs in ABSENT or any(value == value for _, value in samples), f"{panel['title']}: not a number: {expression}"
        seen += 1
    assert seen >= 8
