#!/usr/bin/env python3
"""`make monitoring-pictures`: draws each dashboard from what Prometheus has of a stack under load, into docs/monitoring/."""

import json
import math
import pathlib
import re
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), *(str(HERE / path) for path in ("../stack", "../../bench", "../../monitoring/dashboards"))]

import matplotlib  # noqa: E402

matplotlib.use("Agg")

import drills  # noqa: E402
import matplotlib.pyplot as plt  # noqa: E402
import panels  # noqa: E402
import world as worlds  # noqa: E402
from support import REPOSITORY  # noqa: E402

PICTURES = REPOSITORY / "docs" / "monitoring"
LOADED_SECONDS = 120
COLUMNS = 3
# As Grafana's legends: beyond these a picture has no room.
CURVES = 8


def legend(pattern, labels):
    for name, value in labels.items():
        pattern = pattern.replace("{{" + name + "}}", value)
    return re.sub(r"{{\w+}}", "", pattern).strip() or "(none)"


def number(value, unit):
    if unit == panels.RATIO:
        return f"{value * 100:.3g} %"
    if unit == panels.BYTES:
        power = min(int(math.log(max(abs(value), 1), 1024)), 4)
        return f"{value / 1024**power:.3g} {['B', 'KiB', 'MiB', 'GiB', 'TiB'][power]}"
    if unit == panels.SECONDS:
        if value >= 172800:
            return f"{value / 86400:.3g} d"
        if value >= 7200:
            return f"{value / 3600:.3g} h"
        return f"{value:.3g} s" if value >= 1 or value == 0 else f"{value * 1000:.3g} ms"
    return f"{value:.3g}/s" if unit == panels.PER_SECOND else f"{value:.4g}"


def draw(panel, axes, prometheus, end):
    unit = panel["fieldConfig"]["defaults"]["unit"]
    axes.set_title(panel["title"], loc="left", fontsize=9, fontweight="bold")
    curves = []
    for target in panel["targets"]:
        expression = target["expr"].replace("$__rate_interval", "12s").replace("$namespace", ".*")
        data = prometheus.get("query_range", query=expression, start=end - LOADED_SECONDS, end=end, step=2)
        curves += [(legend(target["legendFormat"], each["metric"]), each["values"]) for each in data["result"]]
    if panel["type"] == "stat":
        axes.axis("off")
        text = "\n".join(f"{number(float(values[-1][1]), unit)}" if name != "1" else "1" for name, values in curves) or "none"
        axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=20, color="#1f6feb")
        return
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.25)
    axes.set_xlim(-LOADED_SECONDS, 0)
    axes.yaxis.set_major_formatter(lambda value, _: number(value, unit))
    if not curves:
        axes.text(0.5, 0.5, panel.get("description", "").rstrip("."), transform=axes.transAxes, ha="center", fontsize=8, color="grey")
    for name, values in sorted(curves, key=lambda curve: -float(curve[1][-1][1]))[:CURVES]:
        axes.plot([float(at) - end for at, _ in values], [float(value) for _, value in values], linewidth=1.1, label=name[:44])
    # A little room below, where a curve lies on zero.
    top = axes.get_ylim()[1]
    axes.set_ylim(-0.03 * top, top)
    if curves:
        axes.legend(fontsize=6, loc="upper left", framealpha=0.7)


def picture(name, prometheus, end):
    shown = [panel for panel in json.loads((REPOSITORY / "monitoring" / "dashboards" / f"{name}.json").read_text())["panels"] if panel["type"] != "row"]
    rows = math.ceil(len(shown) / COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(15, 2.6 * rows), squeeze=False, layout="constrained")
    figure.suptitle(panels.DASHBOARDS[name][0], fontsize=13, fontweight="bold")
    flat = [each for row in axes for each in row]
    for panel, each in zip(shown, flat, strict=False):
        draw(panel, each, prometheus, end)
    for each in flat[len(shown):]:
        each.axis("off")
    PICTURES.mkdir(exist_ok=True)
    figure.savefig(PICTURES / f"{name}.png", dpi=70)
    plt.close(figure)


def main():
    with worlds.whole() as world:
        drills.good_runs(world)
        ended = threading.Event()
        with worlds.Load(world, clients=4):
            # A quarter of a minute of trouble, so that curves have something to show.
            ended.wait(LOADED_SECONDS * 0.6)
            with drills.wrong_tokens(world), drills.replay_paused(world), drills.deadlocks(world):
                ended.wait(LOADED_SECONDS * 0.15)
            ended.wait(LOADED_SECONDS * 0.3)
            end = time.time()
        for name in panels.DASHBOARDS:
            picture(name, world.prometheus, end)


if __name__ == "__main__":
    main()
