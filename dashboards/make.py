"""Makes the Grafana dashboards and the rules of the service-level objectives.

`python3 make.py` writes grafana/*.json, rules/slo.yaml, tests/alerts.yaml and
tests/errors.yaml; `python3 make.py --check` fails where what
is there is not what this file makes. The panels are in panels.py, one list a dashboard.
"""

import json
import pathlib
import sys

import cases
import panels

HERE = pathlib.Path(__file__).parent

# An objective, what went wrong and what was asked for, each with [W] where the window goes.
# A series that has never been counted must not make the ratio disappear: hence the `or ... * 0`.
OBJECTIVES = [
    {
        "slo": "requests",
        "objective": 0.999,
        "meaning": "HTTP requests under /v1/ that are not answered with 5xx",
        "errors": 'stormwire_http_requests_total{route=~"/v1/.*",status=~"5.."}[W]',
        "total": 'stormwire_http_requests_total{route=~"/v1/.*"}[W]',
    },
    {
        "slo": "publishes",
        "objective": 0.999,
        "meaning": "publishes that are not refused on WebSockets for a fault of the server",
        "errors": 'stormwire_refusals_total{code=~"overloaded|journal_unavailable|journal_rewound|unknown_outcome|internal"}[W]',
        "total": "stormwire_ingest_frame_events_sum[W]",
        "total_has_errors": False,
    },
    {
        "slo": "latency",
        "objective": 0.99,
        "meaning": "publishes on WebSockets that are acknowledged within 100 ms, the wait in the lane included",
        "good": 'stormwire_publish_seconds_bucket{le="0.1"}[W]',
        "total": "stormwire_publish_seconds_count[W]",
    },
    {
        "slo": "delivery",
        "objective": 0.99,
        "meaning": "frames that are queued for their live subscribers within 100 ms of their time in the journal",
        "good": 'stormwire_delivery_seconds_bucket{le="0.1"}[W]',
        "total": "stormwire_delivery_seconds_count[W]",
    },
]
WINDOWS = ["5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d"]
# (severity, how many times the budget's even rate, long window, short window) as in the SRE workbook,
# chapter "Alerting on SLOs": 2 % of a month's budget in an hour, 5 % in six, 10 % in three days.
BURNS = [
    ("P1", 14.4, "1h", "5m"),
    ("P1", 6, "6h", "30m"),
    ("P3", 3, "1d", "2h"),
    ("P3", 1, "3d", "6h"),
]
RUNBOOKS = "https://github.com/stormwire/stormwire/blob/main/docs/runbooks/"


def rate(selector):
    return f"sum by (namespace) (rate({selector}))"


def error_ratio(slo, window):
    """The share of bad events in a window; no traffic gives no number."""
    total = rate(slo["total"])
    if "good" in slo:
        ratio = f"1 - {rate(slo['good'])} / {total}"
    else:
        errors = f"({rate(slo['errors'])} or {total} * 0)"
        if not slo.get("total_has_errors", True):
            total = f"({total} + {errors} or {errors})"
        ratio = f"{errors} / {total}"
    return ratio.replace("[W]", f"[{window}]")


def recording_rules(slo):
    rules = [
        {
            "record": f"slo:sli_error:ratio_rate{window}",
            "expr": error_ratio(slo, window),
            "labels": {"slo": slo["slo"]},
        }
        for window in WINDOWS
    ]
    budget = round(1 - slo["objective"], 6)
    rules.append(
        {
            "record": "slo:error_budget_left:ratio",
            "expr": f'1 - slo:sli_error:ratio_rate30d{{slo="{slo["slo"]}"}} / {budget}',
            "labels": {"slo": slo["slo"]},
        }
    )
    return rules


def burn_alert(slo, severity):
    """Either pair of windows: the long one says that it matters, the short one that it goes on."""
    budget = 1 - slo["objective"]

    def burns(window, factor):
        return f'slo:sli_error:ratio_rate{window}{{slo="{slo["slo"]}"}} > {round(factor * budget, 6)}'

    pairs = [
        f"({burns(long, factor)} and {burns(short, factor)})"
        for which, factor, long, short in BURNS
        if which == severity
    ]
    name = "ErrorBudgetBurnsFast" if severity == "P1" else "ErrorBudgetBurns"
    when = "within days" if severity == "P1" else "before the month is over"
    return {
        "alert": f"Stormwire{name}",
        "expr": " or ".join(pairs),
        "labels": {"severity": severity, "slo": slo["slo"]},
        "annotations": {
            "summary": f"The error budget of {slo['slo']} will be used up {when}.",
            "description": f"{slo['meaning'][0].upper()}{slo['meaning'][1:]}: the objective is "
            f"{slo['objective'] * 100:g} %, {{{{ $value | humanizePercentage }}}} fail now.",
            "dashboard": "/d/stormwire-slo",
            "runbook_url": RUNBOOKS + f"Stormwire{name}.md",
        },
    }


def slo_rules():
    groups = []
    for slo in OBJECTIVES:
        groups.append({"name": f"stormwire-slo-{slo['slo']}", "interval": "30s", "rules": recording_rules(slo)})
    alerts = [burn_alert(slo, severity) for slo in OBJECTIVES for severity in ("P1", "P3")]
    groups.append({"name": "stormwire-burn", "rules": alerts})
    head = "# Made by dashboards/make.py from its list OBJECTIVES; do not edit.\n"
    return head + yaml({"groups": groups})


def yaml(value, indent=0):
    """The little YAML that is needed here: maps, lists and quoted text."""
    pad = "  " * indent
    if isinstance(value, dict):
        lines = []
        for key, item in value.items():
            if isinstance(item, (dict, list)) and item:
                lines.append(f"{pad}{key}:\n{yaml(item, indent + 1)}")
            else:
                lines.append(f"{pad}{key}: {json.dumps(item)}\n")
        return "".join(lines)
    return "".join(f"{pad}- {yaml(item, indent + 1).lstrip() if isinstance(item, dict) else json.dumps(item) + chr(10)}" for item in value)


def alert_tests(*rules, objectives):
    head = "# Made by dashboards/make.py from dashboards/cases.py; do not edit.\n"
    top = {"rule_files": [f"../rules/{name}.yaml" for name in rules], "evaluation_interval": "1m"}
    return head + yaml({**top, "tests": list(cases.tests(objectives))})


def files():
    made = {
        HERE / "rules" / "slo.yaml": slo_rules(),
        HERE / "tests" / "alerts.yaml": alert_tests("alerts", objectives=False),
        HERE / "tests" / "errors.yaml": alert_tests("slo", "alerts", objectives=True),
    }
    for dashboard in panels.dashboards():
        text = json.dumps(dashboard, indent=1, ensure_ascii=False) + "\n"
        made[HERE / "grafana" / f"{dashboard['uid']}.json"] = text
    return made


def main():
    made = files()
    if "--check" in sys.argv:
        stale = [p.name for p, text in made.items() if not p.exists() or p.read_text() != text]
        extra = [p.name for p in (HERE / "grafana").glob("*.json") if p not in made]
        if stale or extra:
            sys.exit(f"run `python3 dashboards/make.py`: {', '.join(stale + extra)}")
        return
    for path, text in made.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
