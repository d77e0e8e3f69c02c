"""The rendered chart against a real Kubernetes API server, and its autoscaling executed.

`python3 charts/kube/run.py PROGRAMS CRDS WORK [--load FILE]`: PROGRAMS is the folder of kube-apiserver,
kube-controller-manager, keda-operator and keda-adapter; CRDS a folder of custom resource definitions; WORK is
made anew. Everything is a process on the loopback interface; there is no kubelet, so pods stay pending.

First every profile is applied as a dry run of the server, with strict validation, in a namespace that enforces
the Pod Security standard `restricted`; a misspelt field, a root container and an unknown enum must be refused.
Then, if FILE tells of a loaded cluster (see `cargo xtask kube`), the chart's ScaledObjects are applied for
real: KEDA reads the Prometheus that scrapes that cluster, makes the autoscalers, and the controller manager
moves the replica counts of the chart's Deployments up with the load, and down after it.
"""

import argparse
import base64
import contextlib
import copy
import json
import os
import pathlib
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
import check  # noqa: E402
from kube import Kube, PATIENCE  # noqa: E402

NAMESPACE = "stormwire"
# What the least replicas are meant for is 20 sockets and 50 frames each.
SOCKETS, FRAMES = 110, 300
GATEWAY, MESSAGES = "stormwire-gateway", "stormwire-messages"


def waited(what, condition, patience=PATIENCE):
    until, last = time.monotonic() + patience, None
    while time.monotonic() < until:
        last = condition()
        if last:
            return last
        time.sleep(0.5)
    sys.exit(f"{what} has not happened in {patience} s")


def refused(kube, what, document):
    """A checker that takes everything is none."""
    said = kube.apply(document, dry_run=True)
    if not said:
        sys.exit(f"the API server takes {what}")
    print(f"refused as it must be, {what}: {said[:110]}")


def dry_run(kube):
    """Every profile, object by object."""
    complaints = []
    for profile, values in check.profiles():
        found = list(check.objects(check.render(values)))
        for one in found:
            said = kube.apply(one, dry_run=True)
            if said:
                complaints.append(f"{profile}: {one['kind']} {one['metadata']['name']}: {said}")
        print(f"{profile}: {len(found)} objects by server-side dry run")
    found = list(check.objects(check.render({})))
    deployment = next(o for o in found if o["kind"] == "Deployment" and o["metadata"]["name"] == GATEWAY)
    wrong = copy.deepcopy(deployment)
    wrong["spec"]["template"]["spec"]["containers"][0]["imagePulPolicy"] = "Always"
    refused(kube, "a misspelt field", wrong)
    scaled = copy.deepcopy(next(o for o in found if o["kind"] == "ScaledObject"))
    scaled["spec"]["pollingIntervall"] = 1
    refused(kube, "a misspelt field of a custom resource", scaled)
    template = deployment["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root"}, "spec": copy.deepcopy(template["spec"])}
    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    refused(kube, "a container that may gain rights", pod)
    if complaints:
        sys.exit("\n".join(complaints))


def replicas(kube, name):
    found = kube.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}")
    return found["spec"]["replicas"]


def pods(kube, component):
    found = kube.get(f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=app.kubernetes.io/component%3D{component}")
    return len(found["items"])


def ready(kube, name):
    found = kube.get(f"/apis/keda.sh/v1alpha1/namespaces/{NAMESPACE}/scaledobjects/{name}")
    conditions = {c["type"]: c["status"] for c in found.get("status", {}).get("conditions", [])}
    return conditions.get("Ready") == "True"


def of_scaling(prometheus):
    """The objects that scaling is about. The values are the chart's own; what is changed of what it renders:
    how long a fall is looked at before it is believed (minutes, on purpose), how often is asked, and the triggers
    on CPU and memory, which want the kubelets' metrics."""
    values = {"monitoring": {"prometheusUrl": prometheus},
              "gateway": {"autoscaling": {"connections": 20}}, "messages": {"autoscaling": {"backlogFrames": 50}}}
    found = list(check.objects(check.render(values)))
    for one in found:
        kind, name = one["kind"], one["metadata"]["name"]
        if kind in ("ServiceAccount", "ConfigMap") and "dashboard" not in name:
            yield one
        elif kind == "Deployment" and name in (GATEWAY, MESSAGES):
            one["spec"]["replicas"] = 1
            yield one
        elif kind == "ScaledObject":
            spec = one["spec"]
            spec["pollingInterval"] = 2
            spec["triggers"] = [t for t in spec["triggers"] if t["type"] == "prometheus"]
            behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
            for rule in behavior.values():
                rule["stabilizationWindowSeconds"] = 0
                for policy in rule["policies"]:
                    policy["periodSeconds"] = 2
            yield one


@contextlib.contextmanager
def sockets(load):
    """More WebSockets than the least gateways are meant for; they answer the server's pings."""
    clients, stop = [], threading.Event()
    for index in range(SOCKETS):
        host, port = load["urls"][index % len(load["urls"])].removeprefix("http://").split(":")
        one = socket.create_connection((host, int(port)), timeout=PATIENCE)
        key = base64.b64encode(os.urandom(16)).decode()
        one.sendall((f"GET /v1/ws HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: stormwire.v1.json\r\n"
                     f"Authorization: Bearer {load['token']}\r\n\r\n").encode())
        if b" 101 " not in one.recv(4096).split(b"\r\n")[0]:
            sys.exit("a gateway takes no WebSocket")
        one.sendall(frame(1, json.dumps({"op": "connect", "id": 1}).encode()))
        clients.append(one)

    def keep():
        while not stop.is_set():
            for one in select.select(clients, [], [], 0.5)[0]:
                # A ping is short, and alone on a quiet connection.
                received = one.recv(4096)
                if received[:1] == b"\x89":
                    one.sendall(frame(10, received[2:2 + received[1]]))

    keeper = threading.Thread(target=keep)
    keeper.start()
    try:
        yield
    finally:
        stop.set()
        keeper.join()
        for one in clients:
            one.close()


def frame(opcode, payload):
    """A short masked frame; the mask is zero."""
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


@contextlib.contextmanager
def backlog(load):
    """Postgres stands still while events are published: the journal has what the archive has not."""
    root = load["postgres"]
    everyone = [root] + [int(pid) for pid in pathlib.Path(f"/proc/{root}/task/{root}/children").read_text().split()]
    for pid in everyone:
        os.kill(pid, signal.SIGSTOP)
    try:
        for number in range(FRAMES):
            body = json.dumps({"data": number}).encode()
            request = urllib.request.Request(
                f"{load['urls'][0]}/v1/channels/kube:{number % 40}/events", method="POST", data=body,
                headers={"Authorization": f"Bearer {load['token']}", "Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=PATIENCE).close()
        yield
    finally:
        for pid in everyone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def secrets_of(found):
    """What the processes are told by reference: KEDA looks up the environment of what it scales."""
    wanted = {}
    for one in found:
        for container in one["spec"]["template"]["spec"]["containers"] if one["kind"] == "Deployment" else ():
            for variable in container["env"]:
                reference = variable.get("valueFrom", {}).get("secretKeyRef")
                if reference:
                    wanted.setdefault(reference["name"], {})[reference["key"]] = "none"
    for name, data in wanted.items():
        yield {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def asked(prometheus, query):
    url = f"{prometheus}/api/v1/query?query={urllib.request.quote(query)}"
    with urllib.request.urlopen(url, timeout=5) as answer:
        result = json.load(answer)["data"]["result"]
    return float(result[0]["value"][1]) if result else 0.0


def scaling(kube, load):
    prometheus = load["prometheus"]
    found = list(of_scaling(prometheus))
    for one in [*secrets_of(found), *found]:
        said = kube.apply(one)
        if said:
            sys.exit(f"{one['kind']} {one['metadata']['name']}: {said}")
    kube.start_keda()
    for name in (GATEWAY, MESSAGES):
        waited(f"KEDA takes the ScaledObject {name}", lambda name=name: ready(kube, name))
        waited(f"KEDA makes the autoscaler of {name}",
               lambda name=name: kube.get(f"/apis/autoscaling/v2/namespaces/{NAMESPACE}/horizontalpodautoscalers/keda-hpa-{name}"))
    least = {GATEWAY: 3, MESSAGES: 2}
    for name, low in least.items():
        waited(f"{name} has its least replicas", lambda name=name, low=low: replicas(kube, name) == low)
    waited("the pods are admitted", lambda: (pods(kube, "gateway"), pods(kube, "messages")) == (3, 2))
    print(f"at rest: {GATEWAY} 3, {MESSAGES} 2")
    for what, name, query in ((sockets, GATEWAY, f'sum(stormwire_connections{{namespace="{NAMESPACE}"}})'),
                              (backlog, MESSAGES, f'sum(max by (partition) (stormwire_persist_backlog_frames{{namespace="{NAMESPACE}"}}))')):
        low = least[name]
        with what(load):
            began = time.monotonic()
            waited(f"{name} grows", lambda name=name, low=low: replicas(kube, name) > low)
            print(f"{what.__name__}: {asked(prometheus, query):g} read, {name} {low} -> {replicas(kube, name)} after {time.monotonic() - began:.0f} s")
            waited("its pods are admitted", lambda name=name: pods(kube, name.removeprefix("stormwire-")) == replicas(kube, name))
        began = time.monotonic()
        waited(f"{name} shrinks", lambda name=name, low=low: replicas(kube, name) == low)
        print(f"no {what.__name__}: {name} -> {low} after {time.monotonic() - began:.0f} s")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("programs", type=pathlib.Path)
    parser.add_argument("crds", type=pathlib.Path)
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--load", type=pathlib.Path)
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        kube = stack.enter_context(Kube(options.programs, options.work))
        count = kube.define(options.crds)
        print(f"API server {kube.version()}, {count} custom resource definitions")
        kube.make_namespace(NAMESPACE, {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")})
        dry_run(kube)
        if options.load:
            scaling(kube, json.loads(options.load.read_text()))


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}: {error.stderr}")
