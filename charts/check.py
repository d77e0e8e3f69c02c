"""Lints the chart and renders every profile with Helm's own library, and checks what came out.

`python3 charts/check.py FOLDER` writes FOLDER/<profile>.yaml, for kubeconform and for an API server, and
FOLDER/<profile>.toml, the settings of its processes.
"""

import pathlib
import sys

import helm_python
import yaml

CHART = pathlib.Path(__file__).parent / "stormwire"
ROOT = CHART.parent.parent
# Who signs in to the database.
ROLES = ["migrate", "gateway", "messages", "identity"]
# What must be refused: a name that does not exist, a value that is none, and parts that need each other.
WRONG = [
    {"gateway": {"replica": 3}},
    {"profile": "prod"},
    {"image": {"digest": "sha256:123"}},
    {"partitions": 65},
    {"postgres": {"synchronous": True, "instances": 1}},
    {"gatewayApi": {"enabled": True}},
    {"redis": {"url": "redis://:secret@host:6379"}},
    {"nats": {"enabled": False}},
    {"postgres": {"enabled": False}},
    {"postgres": {"secrets": {"worker": "stormwire-database"}}},
]


def profiles():
    """The defaults, alone and with a login of its own for each role, and each file of values beside them."""
    yield "defaults", {}
    yield "roles", {"postgres": {"secrets": {role: f"stormwire-database-{role}" for role in ROLES}}}
    for path in sorted((CHART / "profiles").glob("*.yaml")):
        yield path.stem, yaml.safe_load(path.read_text())


def render(values):
    with helm_python.Chart.load(str(CHART)) as chart:
        chart.validate_schema(chart.merge_values(values))
        return chart.render(values, name="stormwire", namespace="stormwire", is_install=True)


def objects(rendered):
    for path, text in sorted(rendered.items()):
        if not path.endswith("NOTES.txt"):
            try:
                yield from (document for document in yaml.safe_load_all(text) if document)
            except yaml.YAMLError as error:
                raise yaml.YAMLError(f"{path}: {error}") from error


def complaints_of(profile, values, found):
    workloads = [o for o in found if o["kind"] in ("Deployment", "StatefulSet", "Job")]
    for one in workloads:
        yield from pod_complaints(f"{profile}: {one['metadata']['name']}", one["kind"], one["spec"]["template"])
    pods = [one["spec"]["template"]["metadata"]["labels"] for one in workloads]
    for one in found:
        where = f"{profile}: {one['kind']} {one['metadata']['name']}"
        for selector in selectors(one):
            if not any(selected(selector, labels) for labels in pods) and "cnpg.io/cluster" not in str(selector):
                yield f"{where}: {selector} selects no pod"
    names = [(one["kind"], one["metadata"]["name"]) for one in found]
    yield from (f"{profile}: {name} is there twice" for name in set(names) if names.count(name) > 1)
    yield from rule_complaints(profile, found)
    yield from secret_complaints(profile, found)
    yield from database_complaints(profile, values, workloads)


def pod_complaints(where, kind, template):
    spec = template["spec"]
    security = spec["securityContext"]
    if not security["runAsNonRoot"] or security["seccompProfile"]["type"] != "RuntimeDefault":
        yield f"{where}: the pod may run as root, or without seccomp"
    if spec.get("automountServiceAccountToken") is not False:
        yield f"{where}: carries a token of the API server"
    for container in spec["containers"]:
        at, context = f"{where}/{container['name']}", container["securityContext"]
        if context["allowPrivilegeEscalation"] or not context["readOnlyRootFilesystem"] or context["capabilities"] != {"drop": ["ALL"]}:
            yield f"{at}: more rights than it needs"
        if "memory" not in container["resources"]["limits"] or "cpu" not in container["resources"]["requests"]:
            yield f"{at}: no limit of memory, or no request for CPU"
        if kind != "Job" and not {"livenessProbe", "readinessProbe"} <= set(container):
            yield f"{at}: lacks a probe"
        if container.get("livenessProbe", {}).get("httpGet", {}).get("path") == "/readyz":
            yield f"{at}: a dependency that is away would restart it"
        if container["image"].endswith((":latest", ":")):
            yield f"{at}: an image without a version"


def selectors(one):
    """Every selector of pods of this release, as matchLabels and expressions."""
    spec = one.get("spec", {})
    if one["kind"] == "Service":
        yield {"matchLabels": spec["selector"]}
    elif one["kind"] in ("PodDisruptionBudget", "Deployment", "StatefulSet"):
        yield spec["selector"]
    elif one["kind"] == "NetworkPolicy":
        yield spec["podSelector"]
        for rule in spec.get("ingress", []) + spec.get("egress", []):
            yield from (peer["podSelector"] for peer in rule.get("from", []) + rule.get("to", []) if "podSelector" in peer)


def selected(selector, labels):
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    return all(labels.get(e["key"]) in e["values"] for e in selector.get("matchExpressions", []))


def rule_complaints(profile, found):
    """What Prometheus gets is what promtool tested."""
    tested = [group for path in sorted((ROOT / "dashboards/rules").glob("*.yaml"))
              for group in yaml.safe_load(path.read_text())["groups"]]
    shipped = [one["spec"]["groups"] for one in found if one["kind"] == "PrometheusRule"]
    if shipped and shipped[0] != tested:
        yield f"{profile}: the rules are not those of dashboards/rules"
    boards = sum(one["metadata"]["labels"].get("grafana_dashboard") == "1" for one in found)
    if boards and boards != len(list((ROOT / "dashboards/grafana").glob("*.json"))):
        yield f"{profile}: {boards} dashboards are not all of dashboards/grafana"


def secret_complaints(profile, found):
    """Secrets are named, never written."""
    for one in found:
        if one["kind"] == "Secret":
            yield f"{profile}: {one['metadata']['name']} is a secret with its value"


def database_complaints(profile, values, workloads):
    """Each role signs in to the database as itself where it has a secret, and as all do where it has none."""
    postgres = values.get("postgres", {})
    for one in workloads:
        role = one["metadata"]["labels"]["app.kubernetes.io/component"]
        expected = postgres.get("secrets", {}).get(role) or postgres.get("secret") or "stormwire-postgres-app"
        for variable in one["spec"]["template"]["spec"]["containers"][0].get("env", []):
            if variable["name"] in ("STORMWIRE_ARCHIVE_URL", "POSTGRES_USER", "POSTGRES_PASSWORD"):
                secret = variable["valueFrom"]["secretKeyRef"]["name"]
                if secret != expected:
                    yield f"{profile}: {role} takes {variable['name']} from {secret}, not from {expected}"


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    complaints = []
    for profile, values in profiles():
        report = helm_python.lint(str(CHART), values, strict=True, namespace="stormwire")
        complaints += [f"{profile}: {m['path']}: {m['error']}" for m in report["messages"] if m["severity"] >= 2]
        try:
            found = list(objects(render(values)))
        except (helm_python.HelmError, yaml.YAMLError) as error:
            complaints.append(f"{profile}: {error}")
            continue
        complaints += complaints_of(profile, values, found)
        (folder / f"{profile}.yaml").write_text(yaml.safe_dump_all(found, sort_keys=False))
        settings = next(o for o in found if o["kind"] == "ConfigMap" and "stormwire.toml" in o["data"])
        (folder / f"{profile}.toml").write_text(settings["data"]["stormwire.toml"])
        print(f"{profile}: {len(found)} objects")
    for wrong in WRONG:
        try:
            render(wrong)
            complaints.append(f"{wrong} is not refused")
        except helm_python.HelmError:
            pass
    if complaints:
        sys.exit("\n".join(complaints))


if __name__ == "__main__":
    main()
