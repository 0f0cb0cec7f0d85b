#!/usr/bin/env python3
"""Writes the dashboards' JSON from panels.py, with Grafana's builders: `make monitoring`."""

import pathlib

from grafana_foundation_sdk.builders.common import ReduceDataOptions, VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import Dashboard, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.stat import Panel as Stat
from grafana_foundation_sdk.builders.timeseries import Panel as Timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from panels import DASHBOARDS

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = DataSourceRef(type_val="prometheus", uid="${source}")
NAMESPACES = 'namespace=~"$namespace"'


def panel(of):
    made = Stat().reduce_options(ReduceDataOptions().calcs(["lastNotNull"])) if of.number else Timeseries().min(0).fill_opacity(10).legend(
        VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    )
    made = made.title(of.title).unit(of.unit).datasource(SOURCE).height(5 if of.number else 8).span(4 if of.number else 8)
    if of.needs:
        made = made.description(f"Empty without {of.needs}.")
    for place, (legend, expression) in enumerate(of.queries.items()):
        query = Dataquery().ref_id(chr(ord("A") + place)).legend_format(legend)
        query = query.expr(expression.replace("NS", NAMESPACES).replace("[R]", "[$__rate_interval]"))
        made = made.with_target(query.instant() if of.number else query.range())
    return made


def dashboard(name):
    title, rows = DASHBOARDS[name]
    made = Dashboard(title).uid(f"pycrudapi-{name}").tags(["pycrudapi"]).refresh("30s").time("now-3h", "now").timezone("browser")
    made = made.with_variable(DatasourceVariable("source").label("Prometheus").type("prometheus"))
    made = made.with_variable(
        QueryVariable("namespace").label("Namespace").datasource(SOURCE).query('label_values(up{job="pycrudapi"}, namespace)')
        .include_all(True).all_value(".*").refresh(2)
    )
    for row, panels in rows.items():
        made = made.with_row(Row(row))
        for each in panels:
            made = made.with_panel(panel(each))
    return JSONEncoder(sort_keys=True, indent=2).encode(made.build()) + "\n"


if __name__ == "__main__":
    for name in DASHBOARDS:
        (HERE / f"{name}.json").write_text(dashboard(name))
