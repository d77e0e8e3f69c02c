"""Boots the NATS configuration that the chart renders as a cluster of three nodes on this machine.

`python3 charts/boot_nats.py RENDERED NATS_SERVER`: the file of `check.py` and the program. Only addresses and
folders are changed. Ends well when the nodes have elected a leader, write before they acknowledge, and refuse
a client without the password.
"""

import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import yaml

PASSWORD = "Xk7pQ2vT9z"
DEADLINE = 60


def free_ports(number):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def found(objects, kind):
    return next(o for o in objects if o["kind"] == kind and o["metadata"]["name"].endswith("-nats"))


def asked(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return json.load(answer)


def waited(what, condition):
    until = time.monotonic() + DEADLINE
    last = None
    while time.monotonic() < until:
        try:
            if condition():
                return
        except OSError as error:
            last = error
        time.sleep(0.1)
    sys.exit(f"{what} has not happened in {DEADLINE} s: {last}")


def start(index, name, configuration, routes, ports, folder, program):
    client, cluster, monitor = ports
    home = folder / str(index)
    (home / "run").mkdir(parents=True)
    text = configuration.replace("/data", str(home / "data")).replace("/run/nats", str(home / "run"))
    for was, now in ((4222, client), (6222, cluster), (8222, monitor)):
        text, changed = re.subn(rf"port: {was}\b", f"port: {now}", text)
        if changed != 1:
            sys.exit(f"the port {was} is not there once")
    path = home / "nats.conf"
    path.write_text(text)
    environment = {**os.environ, "POD_NAME": f"{name}-{index}", "NATS_PASSWORD": PASSWORD, "NATS_ROUTES": routes}
    with open(home / "log", "wb") as log:
        return subprocess.Popen([program, "--config", path, "--addr", "127.0.0.1"], env=environment, stdout=log, stderr=log)


def refuses_strangers(port):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
        answer = b""
        while part := client.recv(4096):
            answer += part
        return b"Authorization Violation" in answer


def main():
    objects = [o for o in yaml.safe_load_all(pathlib.Path(sys.argv[1]).read_text()) if o]
    configuration = found(objects, "ConfigMap")["data"]["nats.conf"]
    workload = found(objects, "StatefulSet")
    name, container = workload["metadata"]["name"], workload["spec"]["template"]["spec"]["containers"][0]
    routes = next(e["value"] for e in container["env"] if e["name"] == "NATS_ROUTES").replace("$(NATS_PASSWORD)", PASSWORD)
    nodes = workload["spec"]["replicas"]
    ports = [free_ports(3) for _ in range(nodes)]
    for index in range(nodes):
        routes = routes.replace(f"{name}-{index}.{name}:6222", f"127.0.0.1:{ports[index][1]}")
    with tempfile.TemporaryDirectory() as folder:
        running = []
        try:
            for index in range(nodes):
                running.append(start(index, name, configuration, routes, ports[index], pathlib.Path(folder), sys.argv[2]))
            for index, process in enumerate(running):
                def healthy(monitor=ports[index][2], process=process, log=pathlib.Path(folder) / str(index) / "log"):
                    if process.poll() is not None:
                        sys.exit(f"node {index} has ended: {log.read_text()[-2000:]}")
                    return asked(monitor, "/healthz")["status"] == "ok"

                waited(f"node {index} is healthy", healthy)
            waited("a leader", lambda: asked(ports[0][2], "/jsz")["meta_cluster"].get("leader", "").startswith(name))
            for index, (client, _, monitor) in enumerate(ports):
                server, journal = asked(monitor, "/varz"), asked(monitor, "/jsz")
                if journal["meta_cluster"]["cluster_size"] != nodes or server["server_name"] != f"{name}-{index}":
                    sys.exit(f"node {index} does not see {nodes} nodes, or has another name")
                if not server["jetstream"]["config"].get("sync_always"):
                    sys.exit(f"node {index} acknowledges before it has written")
                if not refuses_strangers(client):
                    sys.exit(f"node {index} takes a client without a password")
            print(f"{nodes} nodes, leader {asked(ports[0][2], '/jsz')['meta_cluster']['leader']}")
        finally:
            for process in running:
                process.kill()
            for process in running:
                process.wait()


if __name__ == "__main__":
    main()
