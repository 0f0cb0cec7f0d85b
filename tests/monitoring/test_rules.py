"""The rules: valid, each alert with a runbook section and two cases of promtool, and no name that nobody serves."""

import re
import subprocess

import pytest
import yaml

import drills
from support import REPOSITORY, until

PROMETHEUS = REPOSITORY / "monitoring" / "prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
CASES = sorted((PROMETHEUS / "tests").glob("*.yml"))
# Not of this machine: cAdvisor's and the kubelet's, where there are containers or a cluster.
ELSEWHERE = {
    "container_memory_working_set_bytes",
    "container_spec_memory_limit_bytes",
    "kubelet_volume_stats_available_bytes",
    "kubelet_volume_stats_capacity_bytes",
}
WORDS = {"and", "or", "unless", "by", "on", "ignoring", "without", "group_left", "group_right", "bool", "offset"}


def rules():
    return [rule for file in RULES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def alerts():
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def names(expression):
    """The metrics of an expression of PromQL."""
    rest = re.sub(r'"[^"]*"|\[[^]]*\]', "", expression)
    rest = re.sub(r"\{[^}]*\}", "", rest)
    rest = re.sub(r"\b(by|on|ignoring|without|group_left|group_right)\s*\([^)]*\)", "", rest)
    return set(re.findall(r"(?<![\w:.])[a-zA-Z_:][\w:]*(?![\w:]|\s*\()", rest)) - WORDS


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_accepts_every_rule():
    assert len(rules()) > 40
    run("promtool", "check", "rules", "--lint-fatal", *RULES)


def test_promtool_accepts_the_configuration():
    run("promtool", "check", "config", PROMETHEUS / "prometheus.yml")


def test_amtool_accepts_the_routes():
    run("amtool", "check-config", REPOSITORY / "monitoring" / "alertmanager" / "alertmanager.yml")


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_alerts_fire_and_are_silent_as_their_cases_say(file):
    run("promtool", "test", "rules", file)


def test_every_alert_has_a_case_that_fires_it_and_one_that_does_not():
    cases = {case["name"]: case["alert_rule_test"] for file in CASES for case in yaml.safe_load(file.read_text())["tests"]}
    for alert in alerts():
        for state, fires in (("fires", True), ("is silent", False)):
            (test,) = cases[f"{alert} {state}"]
            assert test["alertname"] == alert
            assert bool(test["exp_alerts"]) == fires, f"{alert} {state}"


def test_every_alert_has_a_severity_and_a_section_in_the_runbook():
    sections = dict(re.findall(r"(?ms)^## (\w+)\n(.*?)(?=^## |\Z)", (REPOSITORY / "docs" / "runbooks.md").read_text()))
    assert sections.keys() == alerts().keys()
    for name, alert in alerts().items():
        assert alert["annotations"]["runbook_url"] == f"docs/runbooks.md#{name.lower()}"
        severity = alert["labels"]["severity"]
        assert severity in ("page", "ticket")
        section = sections[name]
        assert f"**Means** ({severity})" in section, name
        assert "**Look" in section and "**Do" in section, name


def test_every_anchor_of_the_runbook_exists():
    text = (REPOSITORY / "docs" / "runbooks.md").read_text()
    anchors = {title.lower() for title in re.findall(r"(?m)^## (\w+)$", text)}
    assert set(re.findall(r"\]\(#([\w-]+)\)", text)) <= anchors


def test_names_of_an_expression_are_found():
    found = names('sum by (le) (rate(a_bucket{b="c", d!~"e"}[5m])) > on (f) 2 * g:h and max(i) or absent(j) unless k > 1e6')
    assert found == {"a_bucket", "g:h", "i", "j", "k"}


def test_rules_use_what_is_served(world):
    with drills.failed_runs(world):
        # Served from the first failure on.
        failures = {"backup_last_failure_timestamp_seconds", "restore_drill_last_failure_timestamp_seconds"}
        until(lambda: failures <= world.prometheus.names(), "the failures are served")
    served = world.prometheus.names()
    for rule in rules():
        used = names(rule["expr"])
        assert used, rule
        missing = used - served - ELSEWHERE
        assert not missing, f"{rule.get('alert') or rule['record']}: nobody serves {missing}"
