"""Throughput and latency over time as an SVG, with a line at the beginning of each fault; standard library only."""

import math
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT = 1200, 60, 20
PANEL, GAP, TOP = 190, 50, 40
# Points of a line; more would not be visible.
POINTS = 560
GOOD, FAILED, P50, P99, FAULT = "#2a7f62", "#c0392b", "#3b6ea5", "#d98c21", "#999999"


def draw(timelines):
    """Draws the timelines one after the other, without the time between them."""
    points, marks, borders, offset = [], [], [], 0.0
    for one in timelines:
        own = list(one.points())
        points += [(offset + point[0], *point[1:]) for point in own]
        marks += [(offset + begun, name) for begun, _, name in one.marks]
        offset += (own[-1][0] if own else 0) + 1
        borders.append(offset)
    points = _merge(points)
    seconds = max(offset, 1.0)
    height = TOP + 2 * PANEL + GAP + 40

    def x(at):
        return LEFT + (WIDTH - LEFT - RIGHT) * at / seconds

    most = max([1.0, *(point[1] + point[2] for point in points)])
    slowest = max([0.1, *(point[4] for point in points if point[4])])

    def rate(value):
        return TOP + PANEL * (1 - value / most)

    def latency(value):
        """Logarithmic, from 1 ms."""
        part = math.log10(max(value, 0.001) / 0.001) / math.log10(slowest / 0.001)
        return TOP + PANEL + GAP + PANEL * (1 - part)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    # A few faults are lines through both panels; many would hide the curves and are a row of strokes between the panels.
    few = len(marks) <= 40
    top, bottom = (TOP, TOP + 2 * PANEL + GAP) if few else (TOP + PANEL + 6, TOP + PANEL + 20)
    for at, name in marks:
        parts.append(f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{top}" y2="{bottom}" stroke="{FAULT}" '
                     f'stroke-width="0.6"><title>{escape(name)} at {at:.1f} s</title></line>')  # fmt: skip
    if few:
        parts += [f'<text transform="translate({x(at) + 3:.1f},{TOP + 2}) rotate(90)" font-size="8" fill="#666">{escape(name)}</text>' for at, name in marks]
    for at in borders[:-1]:
        parts.append(f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{TOP}" y2="{TOP + 2 * PANEL + GAP}" stroke="black" stroke-dasharray="4 3"/>')
    for top, title, ticks, scale in (
        (TOP, "requests per second", [most * part / 4 for part in range(5)], rate),
        (TOP + PANEL + GAP, "latency from the due time", [10**power for power in range(-3, 3) if 10**power <= slowest], latency),
    ):
        parts.append(f'<rect x="{LEFT}" y="{top}" width="{WIDTH - LEFT - RIGHT}" height="{PANEL}" fill="none" stroke="#444"/>')
        parts.append(f'<text x="{LEFT}" y="{top - 8}" font-weight="bold">{title}</text>')
        for tick in ticks:
            shown = f"{tick:.0f}" if scale is rate else (f"{tick * 1000:g} ms" if tick < 1 else f"{tick:g} s")
            parts.append(f'<text x="{LEFT - 6}" y="{scale(tick) + 4:.1f}" text-anchor="end">{shown}</text>')
    for column, scale, colour in ((1, rate, GOOD), (2, rate, FAILED), (3, latency, P50), (4, latency, P99)):
        line = " ".join(f"{x(point[0]):.1f},{scale(point[column]):.1f}" for point in points if point[column] is not None)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.2"/>')
    legend = ((GOOD, "answered"), (FAILED, "failed"), (P50, "p50"), (P99, "p99"), (FAULT, "fault"), ("black", "next stack"))
    for number, (colour, name) in enumerate(legend):
        at = LEFT + 330 + number * 120
        parts.append(f'<rect x="{at}" y="{TOP - 18}" width="14" height="4" fill="{colour}"/><text x="{at + 20}" y="{TOP - 12}">{name}</text>')
    for part in range(5):
        at = seconds * part / 4
        parts.append(f'<text x="{x(at):.1f}" y="{height - 20}" text-anchor="middle">{at:.0f} s</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _merge(points):
    """Merges neighbouring points: means of rates, maxima of latencies."""
    size = max(1, math.ceil(len(points) / POINTS))
    merged = []
    for start in range(0, len(points), size):
        some = points[start : start + size]
        means = [sum(point[column] for point in some) / len(some) for column in (1, 2)]
        worst = [max((point[column] for point in some if point[column] is not None), default=None) for column in (3, 4)]
        merged.append((some[0][0], *means, *worst))
    return merged
