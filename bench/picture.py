"""The picture of the README: gets by key per second as bars, for light and dark pages."""

from html import escape

from contestants import NGINX, OURS

WIDTH, BAR, GAP, TOP, LABELS, FIGURES = 760, 24, 10, 64, 230, 90

STYLE = """
  text { font: 14px system-ui, sans-serif; fill: #1f2328 }
  .title { font-size: 17px; font-weight: 600 }
  .small { font-size: 12px; fill: #59636e }
  .ours { fill: #b7410e } .through { fill: #d98a63 } .others { fill: #8c959f }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .small { fill: #9198a1 }
    .ours { fill: #f0743a } .through { fill: #b05a33 } .others { fill: #6e7681 }
  }
"""


def draw(rates, about):
    bars = sorted(rates.items(), key=lambda item: -item[1])
    scale = (WIDTH - LABELS - FIGURES) / bars[0][1]
    height = TOP + len(bars) * (BAR + GAP) + 6
    machine = about["machine"]
    title = "Passengers read by key per second, 64 connections"
    below = f"{about['method']['rows']:,} rows, {machine['cores']} cores shared with load generator and PostgreSQL, "
    below += f"{about['date']}; make bench repeats it"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">',
        f"<style>{STYLE}</style>",
        f'<text class="title" x="0" y="20">{title}</text>',
        f'<text class="small" x="0" y="42">{escape(below)}</text>',
    ]
    for index, (name, rate) in enumerate(bars):
        y = TOP + index * (BAR + GAP)
        length = max(1, rate * scale)
        kind = {OURS: "ours", NGINX: "through"}.get(name, "others")
        parts += [
            f'<text x="{LABELS - 10}" y="{y + 17}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR}" rx="3"/>',
            f'<text x="{LABELS + length + 8:.1f}" y="{y + 17}">{rate:,.0f}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])
