"""Each alert on the real thing: a fault, its notification at a webhook of Alertmanager, and the all-clear when it is gone."""

import contextlib

import pytest

import drills
from support import until

PATIENCE = 120


@pytest.mark.parametrize("name", drills.ROUNDS)
def test_what_breaks_is_told_and_its_end_too(world, name):
    impossible = drills.impossible(world)
    for fault in drills.ROUNDS[name].keys() & impossible.keys():
        print(f"not drilled: {drills.ROUNDS[name][fault]}: {impossible[fault]}")
    faults = {fault: alerts for fault, alerts in drills.ROUNDS[name].items() if fault not in impossible}
    expected = [alert for alerts in faults.values() for alert in alerts]
    until(lambda: not world.prometheus.firing() & set(expected), f"nothing of {expected} is left of before", PATIENCE)
    since = len(world.receiver.notifications)
    with contextlib.ExitStack() as broken:
        for fault in faults:
            broken.enter_context(fault(world))
        for alert in expected:
            until(lambda: world.receiver.told(alert, "firing", since), f"{alert} is told; fires: {world.prometheus.firing()}", PATIENCE)  # noqa: B023
            told = world.receiver.told(alert, "firing", since)[-1]
            assert told["annotations"]["summary"] and "<no value>" not in told["annotations"]["summary"], told
            assert told["annotations"]["runbook_url"] == f"docs/runbooks.md#{alert.lower()}"
            print(f"{alert}: {told['annotations']['summary']}")
        if "ReplicaDown" in expected:
            # It must not end before its fault does.
            assert "ReplicaDown" in world.prometheus.firing() and world.receiver.latest("ReplicaDown") == "firing"
    for alert in expected:
        # One that ended while the others were awaited may have been told as resolved already.
        until(lambda: world.receiver.latest(alert) == "resolved", f"the end of {alert} is told; fires: {world.prometheus.firing()}", PATIENCE)  # noqa: B023


@pytest.mark.parametrize("alert", drills.AT_FIRST)
def test_what_is_missing_at_first_is_told_until_it_is_there(world, alert):
    assert world.receiver.told(alert, "firing")
    until(lambda: world.receiver.told(alert, "resolved"), f"the end of {alert} is told", PATIENCE)


def test_every_alert_is_drilled():
    from test_rules import alerts

    drilled = {alert for faults in drills.ROUNDS.values() for told in faults.values() for alert in told}
    assert drilled | set(drills.AT_FIRST) == set(alerts())
