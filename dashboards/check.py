"""Checks dashboards and rules against what exists.

Without arguments: every metric, label and label's value that a query names is in the list of metrics
(crates/telemetry/src/metrics.rs) or in external.yaml, every alert has its texts, its runbook and its test,
every dashboard its description, units and links.

`--prometheus URL [--psql COMMAND]`: every query is run as well, against a Prometheus that has scraped a
cluster under load, and must find something. Which series a healthy cluster does not have is said in QUIET.
"""

import argparse
import json
import pathlib
import re
import shlex
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import yaml

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent
TARGET = {"namespace", "pod", "instance", "job", "le", "slo", "alertname", "severity", "alertstate", "of"}
WORDS = {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "offset", "bool",
         "inf", "nan"}
# What a cluster does not show while all is well: the query must run, and may find nothing.
QUIET = re.compile(
    "stormwire_(refusals|task_panics|persist_(failures|gaps|stopped)|dead_letters|archive_partition_failures|retention_"
    "|nats_(disconnects|slow_consumers)|journal_tail_dropped|tail_(repairs|failures)|presence_|signals|log_lines"
    "|dependency_(retries|breaker_opened)|limit_leases|password|sign_ins|refreshes|sqlite|gaps_told|subscriptions_parked"
    "|events_recovered|archive_reads|limits_degraded|canary_|revo)|cnpg_|redis_(up|memory|conn|comm|evict)|kubelet_|kube_"
)


def own_metrics():
    """Names, and labels with their values where the sentence in the list says them."""
    text = (ROOT / "crates/telemetry/src/metrics.rs").read_text()
    listed = {}
    entry = re.compile(r'((?:^ +/// .*\n)+) +[A-Z_]+ (Counter|Gauge|Histogram) \w+ "([a-z_]+)";', re.M)
    for doc, kind, name in entry.findall(text):
        sentence = " ".join(line.strip().removeprefix("/// ") for line in doc.strip().splitlines())
        labels = labels_of(sentence)
        if kind == "Histogram":
            listed.update({f"{name}_{part}": labels for part in ("bucket", "sum", "count")})
        else:
            listed[name] = labels
    return listed


def counted_nowhere():
    """Metrics of the list that no code counts."""
    names = re.findall(r"^ +([A-Z_]+) (?:Counter|Gauge|Histogram) ", (ROOT / "crates/telemetry/src/metrics.rs").read_text(), re.M)
    sources = [path for folder in ("crates", "services") for path in (ROOT / folder).rglob("*.rs")
               if path.name not in ("metrics.rs", "tests.rs") and "target" not in path.parts]
    text = "\n".join(path.read_text() for path in sources)
    return [name for name in names if not re.search(rf"\b{name}\b", text)]


def labels_of(sentence):
    """`.., by scope (user, ip) and outcome (ok, failed).` names labels, and the values that there are."""
    start = re.search(r", by ([a-z])", sentence)
    labels, rest = {}, sentence[start.start(1):] if start else ""
    while found := re.match(r"([a-z]+)(?: \(([^)]*)\))?(, | and )?", rest):
        values = found[2] and {value.split()[0] for value in found[2].split(", ")}
        labels[found[1]] = values
        rest = rest[found.end():]
        if not found[3]:
            break
    return labels


def recorded():
    return {
        rule["record"]
        for path in (HERE / "rules").glob("*.yaml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    }


def selectors(expression):
    """(metric, [(label, operator, value)]) of each selector, and the labels of by(), on() and the like."""
    strings = []

    def keep(match):
        strings.append(match[0][1:-1])
        return f'"{len(strings) - 1}"'

    text = re.sub(r'"[^"]*"', keep, expression)
    grouped = [
        label.strip()
        for labels in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", text)
        for label in labels.split(",")
        if label.strip()
    ]
    text = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    text = re.sub(r"\[[^]]*\]", " ", text)
    found = []
    for name, body in re.findall(r"([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?(?!\s*\(|[\w:])", text):
        if name in WORDS or re.fullmatch(r"\d.*", name) or (not body and re.search(rf'{name}\s*(=|!)', text)):
            continue
        if re.fullmatch(r"[smhdwy]|ms", name):
            continue
        matchers = [
            (label, operator, strings[int(index)])
            for label, operator, index in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"(\d+)"', body or "")
        ]
        found.append((name, matchers))
    return found, grouped


def complaints_of(where, expression, known):
    names, grouped = selectors(expression)
    labels_there = set(TARGET)
    for name, matchers in names:
        if name == "ALERTS" or name in known["recorded"]:
            labels_there |= TARGET
            continue
        labels = known["own"].get(name, known["external"].get(name))
        if labels is None:
            yield f"{where}: there is no metric {name}"
            continue
        labels_there |= set(labels)
        for label, operator, value in matchers:
            if label not in labels and label not in TARGET:
                yield f"{where}: {name} has no label {label}"
            values = labels.get(label) if isinstance(labels, dict) else None
            if values and operator in ("=", "!=") and value not in values:
                yield f"{where}: {label} of {name} is never {value}, only {', '.join(sorted(values))}"
            if values and operator == "=~" and not any(re.fullmatch(value, one) for one in values):
                yield f"{where}: {label} of {name} never matches {value}"
    if not names:
        yield f"{where}: {expression} names no metric"
    for label in grouped:
        if label not in labels_there:
            yield f"{where}: nothing in {expression} has the label {label}"


def dashboards():
    for path in sorted((HERE / "grafana").glob("*.json")):
        yield path.name, json.loads(path.read_text())


def queries():
    """(where, kind, text) of everything that is asked."""
    for name, dashboard in dashboards():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                where = f"{name}: {panel['title']}"
                if "expr" in target:
                    yield where, "promql", target["expr"]
                else:
                    yield where, "sql", target["rawSql"]
        for annotation in dashboard["annotations"]["list"]:
            yield f"{name}: annotation {annotation['name']}", "promql", annotation["expr"]
    for path in sorted((HERE / "rules").glob("*.yaml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield f"{path.name}: {rule.get('alert', rule.get('record'))}", "promql", rule["expr"]


def dashboard_complaints():
    uids = {dashboard["uid"] for _, dashboard in dashboards()}
    for name, dashboard in dashboards():
        if dashboard["id"] is not None or dashboard["schemaVersion"] != 39 or "stormwire" not in dashboard["tags"]:
            yield f"{name}: id is null, schemaVersion 39, and a tag is stormwire"
        for panel in dashboard["panels"]:
            if panel["type"] == "row":
                continue
            if not panel["description"] or not panel["fieldConfig"]["defaults"].get("unit"):
                yield f"{name}: {panel['title']} lacks a description or a unit"
            for target in panel["targets"]:
                if not target["datasource"]["uid"].startswith("${"):
                    yield f"{name}: {panel['title']} names a data source of one Grafana"
                if "rate(" in target.get("expr", "") and "[$__rate_interval]" not in target["expr"]:
                    yield f"{name}: {panel['title']} has a rate over a fixed time"
    made = [yaml.safe_load((HERE / "tests" / name).read_text()) for name in ("alerts.yaml", "errors.yaml")]
    tested = {test["name"] for tests in made for test in tests["tests"]}
    tested |= set(re.findall(r'alertname="(\w+)"', (HERE / "tests/slo.yaml").read_text()))
    for path in sorted((HERE / "rules").glob("*.yaml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    yield from alert_complaints(rule, uids, tested)


def alert_complaints(rule, uids, tested):
    alert, texts = rule["alert"], rule.get("annotations", {})
    if rule.get("labels", {}).get("severity") not in ("P1", "P2", "P3", "P4"):
        yield f"{alert}: severity is P1 to P4"
    if not texts.get("summary") or not texts.get("description"):
        yield f"{alert}: lacks summary or description"
    if texts.get("dashboard", "").removeprefix("/d/") not in uids:
        yield f"{alert}: there is no dashboard {texts.get('dashboard')}"
    page = ROOT / "docs/runbooks" / f"{alert}.md"
    if not texts.get("runbook_url", "").endswith(f"/docs/runbooks/{alert}.md") or not page.exists():
        yield f"{alert}: has no page in docs/runbooks"
    elif not all(part in page.read_text() for part in ("## Look", "## Do")):
        yield f"{alert}: its runbook says what to look at and what to do"
    if alert not in tested:
        yield f"{alert}: has no test"


def filled(expression):
    for variable, value in {"$namespace": ".*", "$pod": ".*", "$__rate_interval": "1m"}.items():
        expression = expression.replace(variable, value)
    return expression


def asked(url, expression):
    query = urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(f"{url}/api/v1/query?{query}", timeout=30) as answer:
            return len(json.load(answer)["data"]["result"]), None
    except urllib.error.HTTPError as error:
        return 0, error.read().decode()


def live_complaints(url, psql):
    series = json.load(urllib.request.urlopen(f"{url}/api/v1/label/__name__/values", timeout=30))["data"]
    known = own_metrics()
    for name in series:
        if name.startswith("stormwire_") and name not in known:
            yield f"the program exposes {name}, which is not in the list"
    found = 0
    for where, kind, text in queries():
        if kind == "sql":
            yield from sql_complaints(where, text, psql)
            continue
        number, error = asked(url, filled(text))
        if error:
            yield f"{where}: {error}"
        elif number == 0 and not QUIET.search(text) and not where.startswith("alerts.yaml") and "ErrorBudget" not in where:
            yield f"{where}: finds nothing: {filled(text)}"
        found += number > 0
    print(f"{found} queries found series")
    yield from label_complaints(url, known, series)


def label_complaints(url, known, series):
    """What the list says of labels and their values is what is scraped."""
    for name in series:
        if name not in known:
            continue
        match = urllib.parse.urlencode({"match[]": name, "start": int(time.time()) - 3600})
        with urllib.request.urlopen(f"{url}/api/v1/series?{match}", timeout=30) as answer:
            for labels in json.load(answer)["data"]:
                for label in set(labels) - TARGET - {"__name__"}:
                    if label not in known[name]:
                        yield f"{name} has the label {label}, and the list does not say so"
                    elif known[name][label] and labels[label] not in known[name][label]:
                        yield f"{name}: {label} is {labels[label]}, and the list does not say so"


def sql_complaints(where, sql, psql):
    if not psql:
        return
    sql = re.sub(r"\$__timeFilter\((.*?)\)(?= GROUP| ORDER)", r"\1 >= now() - interval '1 day'", sql)
    done = subprocess.run([*shlex.split(psql), "-v", "ON_ERROR_STOP=1", "-Atc", sql], capture_output=True, text=True)
    if done.returncode:
        yield f"{where}: {done.stderr.strip()}"
    elif not done.stdout.strip() and "identity_accounts" not in sql:
        yield f"{where}: finds nothing"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--prometheus")
    parser.add_argument("--psql")
    arguments = parser.parse_args()
    known = {
        "own": own_metrics(),
        "external": yaml.safe_load((HERE / "external.yaml").read_text()),
        "recorded": recorded(),
    }
    complaints = list(dashboard_complaints())
    complaints += [f"{name} is in the list of metrics, and no code counts it" for name in counted_nowhere()]
    number = 0
    for where, kind, text in queries():
        number += 1
        if kind == "promql":
            complaints += complaints_of(where, text, known)
    if arguments.prometheus:
        complaints += live_complaints(arguments.prometheus, arguments.psql)
    if complaints:
        sys.exit("\n".join(dict.fromkeys(complaints)))
    print(f"{number} queries, {len(known['own'])} series of the program")


if __name__ == "__main__":
    main()
