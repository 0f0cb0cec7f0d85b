#!/usr/bin/env python3
"""Writes the rules as an object of the Prometheus Operator: `make monitoring`."""

import pathlib

import yaml

HERE = pathlib.Path(__file__).resolve().parent
LABELS = {
    "app.kubernetes.io/name": "pycrudapi",
    "app.kubernetes.io/instance": "pycrudapi",
    "app.kubernetes.io/component": "monitoring",
    "app.kubernetes.io/managed-by": "kustomize",
    "app.kubernetes.io/part-of": "python-crud-api",
}


def prometheus_rule():
    groups = [group for file in sorted((HERE / "rules").glob("*.yml")) for group in yaml.safe_load(file.read_text())["groups"]]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "pycrudapi", "labels": LABELS},
        "spec": {"groups": groups},
    }
    comment = "# Written by `make monitoring` from rules/; edit those.\n"
    return comment + yaml.safe_dump(rule, sort_keys=False, width=4096, allow_unicode=True)


if __name__ == "__main__":
    (HERE / "prometheusrule.yaml").write_text(prometheus_rule())
