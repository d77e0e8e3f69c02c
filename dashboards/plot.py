"""Draws a dashboard's panels from a Prometheus, for where there is no Grafana.

`python3 dashboards/plot.py PROMETHEUS DASHBOARD SECONDS FILE`: the last SECONDS of grafana/DASHBOARD.json as
an SVG, by the queries of its panels.
"""

import html
import json
import pathlib
import sys
import time
import urllib.parse
import urllib.request

import check

WIDTH, CELL, GAP = 1440, 60, 8
COLOURS = ["#3274d9", "#e0752d", "#37872d", "#a352cc", "#c4162a", "#8f3bb8", "#5794f2", "#b877d9"]


def asked(url, expression, seconds):
    now = time.time()
    query = {"query": check.filled(expression), "start": now - seconds, "end": now, "step": max(1, seconds // 120)}
    with urllib.request.urlopen(f"{url}/api/v1/query_range?{urllib.parse.urlencode(query)}", timeout=30) as answer:
        result = json.load(answer)["data"]["result"]
    number = lambda text: None if text in ("NaN", "+Inf", "-Inf") else float(text)
    return [(series["metric"], [(at, number(value)) for at, value in series["values"]]) for series in result]


def shown(value, unit):
    if value is None:
        return "no data"
    if unit == "percentunit":
        return f"{value * 100:.3g} %" if value < 0.99 else f"{value * 100:.5g} %"
    if unit == "s":
        return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
    if unit == "bytes":
        return f"{value / 1024:.3g} KiB"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def legend(text, labels):
    for name, value in labels.items():
        text = text.replace(f"{{{{{name}}}}}", value)
    return text


def text(x, y, words, size=12, colour="#ccccdc", weight="normal", anchor="start"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" font-weight="{weight}" '
            f'text-anchor="{anchor}">{html.escape(words)}</text>')


def line(points, box, start, seconds, bottom, top, colour):
    x, y, w, h = box
    path, pen = [], "M"
    for at, value in points:
        if value is None:
            pen = "M"
            continue
        path.append(f"{pen}{x + (at - start) / seconds * w:.1f},{y + h - (value - bottom) / (top - bottom) * h:.1f}")
        pen = "L"
    return f'<path d="{"".join(path)}" fill="none" stroke="{colour}" stroke-width="1.5"/>'


def coloured(panel, value):
    """The colour of the highest threshold that the value has reached."""
    steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
    reached = [step["color"] for step in steps if value is not None and (step["value"] is None or value >= step["value"])]
    return {"red": "#f2495c"}.get(reached[-1] if reached else "", "#73bf69")


def drawn(panel, url, seconds):
    place = panel["gridPos"]
    x, w = place["x"] * WIDTH / 24, place["w"] * WIDTH / 24 - GAP
    y, h = place["y"] * CELL / 1.6, place["h"] * CELL / 1.6 - GAP
    if panel["type"] == "row":
        return [text(x + 4, y + 24, panel["title"], 16, "#ffffff", "bold")]
    out = [f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="3" fill="#1f1f24"/>',
           text(x + 10, y + 20, panel["title"], 13, "#ffffff", "bold")]
    unit = panel["fieldConfig"]["defaults"]["unit"]
    series = [(legend(target["legendFormat"], labels), points)
              for target in panel["targets"] for labels, points in asked(url, target["expr"], seconds)]
    if panel["type"] == "stat":
        last = next((v for _, points in series for _, v in reversed(points) if v is not None), None)
        return out + [text(x + w / 2, y + h / 2 + 22, shown(last, unit), 30, coloured(panel, last), "bold", "middle")]
    values = [value for _, points in series for _, value in points if value is not None]
    top, bottom = max(values, default=0) * 1.1 or 1, min(values, default=0)
    bottom = min(bottom * 1.1, 0)
    box = (x + 64, y + 32, w - 76, h - 32 - 16 * (1 + len(series[:6])))
    for share in (0, 0.5, 1):
        level = box[1] + box[3] * (1 - share)
        out.append(f'<line x1="{box[0]:.1f}" x2="{box[0] + box[2]:.1f}" y1="{level:.1f}" y2="{level:.1f}" stroke="#34343b"/>')
        out.append(text(box[0] - 6, level + 4, shown(bottom + (top - bottom) * share, unit), 10, "#9fa7b3", anchor="end"))
    for index, (name, points) in enumerate(series[:6]):
        colour = COLOURS[index % len(COLOURS)]
        out.append(line(points, box, time.time() - seconds, seconds, bottom, top, colour))
        out.append(text(x + 14, y + h - 8 - 15 * (len(series[:6]) - 1 - index), f"– {name}", 11, colour))
    return out


def main():
    url, name, seconds, path = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    dashboard = json.loads((check.HERE / "grafana" / f"{name}.json").read_text())
    panels = [panel for panel in dashboard["panels"] if all("expr" in t for t in panel.get("targets", []))]
    parts = [part for panel in panels for part in drawn(panel, url, seconds)]
    height = max((p["gridPos"]["y"] + p["gridPos"]["h"]) for p in panels) * CELL / 1.6 + GAP
    pathlib.Path(path).write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'font-family="Inter, Helvetica, Arial, sans-serif"><rect width="100%" height="100%" fill="#111217"/>'
        + "".join(parts) + "</svg>\n")


if __name__ == "__main__":
    main()
