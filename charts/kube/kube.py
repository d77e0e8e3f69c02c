"""A Kubernetes control plane of plain processes: etcd, API server, controller manager, and KEDA."""

import json
import os
import secrets
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request

import yaml

PATIENCE = 180
# Custom resource definitions whose kinds the chart may use; others of these projects are left out.
GROUPS = ("keda.sh", "monitoring.coreos.com", "gateway.networking.k8s.io", "postgresql.cnpg.io", "external-secrets.io",
          "eventing.keda.sh")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Loader(yaml.SafeLoader):
    """YAML 1.1 gives `=` a meaning of its own, which definitions use as a text."""


Loader.add_constructor("tag:yaml.org,2002:value", lambda loader, node: loader.construct_scalar(node))


class Kube:
    """Running from `with` to its end."""

    def __init__(self, programs, work):
        self.programs, self.work = programs.resolve(), work.resolve()
        self.running, self.token = [], secrets.token_hex(16)
        self.ports = {name: free_port() for name in ("etcd", "peer", "api", "manager", "grpc", "adapter", "probe", "metrics", "adapter-metrics")}
        self.paths, self.warnings = {}, []

    def __enter__(self):
        try:
            self.certificates()
            self.start_server()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.running):
            process.kill()
        for process in self.running:
            process.wait()

    def start(self, name, *arguments, **environment):
        with open(self.work / f"{name}.log", "wb") as log:
            process = subprocess.Popen(
                [str(part) for part in arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.work,
                env={**os.environ, "KUBECONFIG": str(self.work / "kubeconfig"), **environment})
        self.running.append(process)
        return process

    def waited(self, what, process, condition):
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if process.poll() is not None:
                break
            if condition():
                return
            time.sleep(0.2)
        log = (self.work / f"{what}.log").read_text(errors="replace")
        sys.exit(f"{what} is not ready within {PATIENCE} s, or has ended: {log[-3000:]}")

    def openssl(self, *arguments):
        subprocess.run(["openssl", *map(str, arguments)], cwd=self.work, check=True, capture_output=True, text=True)

    def certificates(self):
        """One authority; a certificate of the loopback interface, and one of who forwards requests."""
        self.openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", 2, "-subj", "/CN=stormwire-test")
        (self.work / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n")
        for name, subject in (("tls", "/CN=localhost"), ("front", "/CN=front-proxy")):
            self.openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject)
            self.openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", 2,
                         "-extfile", "names", "-out", f"{name}.crt")
        self.openssl("genrsa", "-out", "service.key", 2048)
        self.openssl("rsa", "-in", "service.key", "-pubout", "-out", "service.pub")
        (self.work / "tokens.csv").write_text(f'{self.token},root,root,"system:masters"\n')
        server = f"https://127.0.0.1:{self.ports['api']}"
        (self.work / "kubeconfig").write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "one",
            "clusters": [{"name": "one", "cluster": {"server": server, "certificate-authority": str(self.work / "ca.crt")}}],
            "users": [{"name": "root", "user": {"token": self.token}}],
            "contexts": [{"name": "one", "context": {"cluster": "one", "user": "root"}}]}))
        self.context = ssl.create_default_context(cafile=str(self.work / "ca.crt"))

    def start_server(self):
        etcd = f"http://127.0.0.1:{self.ports['etcd']}"
        peer = f"http://127.0.0.1:{self.ports['peer']}"
        self.start("etcd", "etcd", "--data-dir", "etcd", "--unsafe-no-fsync", "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
                   "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}")
        server = self.start(
            "kube-apiserver", self.programs / "kube-apiserver", f"--etcd-servers={etcd}", "--bind-address=127.0.0.1",
            f"--secure-port={self.ports['api']}", "--tls-cert-file=tls.crt", "--tls-private-key-file=tls.key", "--client-ca-file=ca.crt",
            "--service-account-issuer=https://stormwire.test", "--service-account-key-file=service.pub",
            "--service-account-signing-key-file=service.key", "--service-cluster-ip-range=10.96.0.0/16", "--token-auth-file=tokens.csv",
            "--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount", "--requestheader-client-ca-file=ca.crt",
            "--requestheader-allowed-names=front-proxy", "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--proxy-client-cert-file=front.crt", "--proxy-client-key-file=front.key")
        self.waited("kube-apiserver", server, lambda: self.call("GET", "/readyz")[0] == 200)

    def start_keda(self):
        """And the controller manager, whose autoscaler asks it."""
        self.start("kube-controller-manager", self.programs / "kube-controller-manager", "--kubeconfig=kubeconfig",
                   "--bind-address=127.0.0.1", f"--secure-port={self.ports['manager']}", "--leader-elect=false",
                   "--authentication-skip-lookup=true", "--horizontal-pod-autoscaler-sync-period=2s",
                   "--horizontal-pod-autoscaler-downscale-stabilization=1s", "--concurrent-horizontal-pod-autoscaler-syncs=2")
        certs = self.work / "certs"
        certs.mkdir()
        for name, source in (("ca.crt", "ca.crt"), ("tls.crt", "tls.crt"), ("tls.key", "tls.key")):
            (certs / name).write_bytes((self.work / source).read_bytes())
        self.make_namespace("keda", {})
        ports = self.ports
        operator = self.start(
            "keda-operator", self.programs / "keda-operator", "--enable-cert-rotation=false", f"--cert-dir={certs}", f"--ca-dir={certs}",
            f"--metrics-service-bind-address=127.0.0.1:{ports['grpc']}", f"--metrics-bind-address=127.0.0.1:{ports['metrics']}",
            f"--health-probe-bind-address=127.0.0.1:{ports['probe']}", "--enable-webhook-patching=false",
            "--enable-apiservice-patching=false", POD_NAMESPACE="keda", KEDA_CLUSTER_OBJECT_NAMESPACE="keda", WATCH_NAMESPACE="")
        self.waited("keda-operator", operator, lambda: answers(f"http://127.0.0.1:{ports['probe']}/readyz"))
        config = self.work / "kubeconfig"
        self.start(
            "keda-adapter", self.programs / "keda-adapter", f"--secure-port={ports['adapter']}", "--bind-address=127.0.0.1",
            f"--port={ports['adapter-metrics']}", f"--tls-cert-file={certs}/tls.crt", f"--tls-private-key-file={certs}/tls.key",
            f"--cert-dir={certs}", f"--metrics-service-address=localhost:{ports['grpc']}", f"--kubeconfig={config}",
            f"--lister-kubeconfig={config}", f"--authentication-kubeconfig={config}", f"--authorization-kubeconfig={config}",
            POD_NAMESPACE="keda", KEDA_CLUSTER_OBJECT_NAMESPACE="keda", WATCH_NAMESPACE="")
        for document in (
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "keda-metrics-apiserver", "namespace": "keda"},
             "spec": {"type": "ExternalName", "externalName": "localhost"}},
            {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
             "spec": {"group": "external.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
                      "insecureSkipTLSVerify": True, "service": {"name": "keda-metrics-apiserver", "namespace": "keda", "port": ports["adapter"]}}},
        ):
            said = self.apply(document)
            if said:
                sys.exit(f"{document['kind']}: {said}")

    def call(self, method, path, body=None, kind="application/json"):
        """(status, answer); 0 where nobody answers."""
        request = urllib.request.Request(
            f"https://127.0.0.1:{self.ports['api']}{path}", method=method, data=body and json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": kind, "Accept": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=30, context=self.context) as answer:
                text = answer.read()
                self.warnings = answer.headers.get_all("Warning") or []
                return answer.status, json.loads(text) if text[:1] in b"{[" else text.decode()
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")
            return error.code, json.loads(text) if text.startswith("{") else text
        except OSError as error:
            return 0, str(error)

    def get(self, path):
        """What is there; nothing where it is not."""
        status, found = self.call("GET", path)
        return found if status == 200 else None

    def version(self):
        return self.get("/version")["gitVersion"]

    def make_namespace(self, name, labels):
        said = self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        if said:
            sys.exit(f"the namespace {name}: {said}")

    def path_of(self, document):
        """Where its kind is served."""
        version, kind = document["apiVersion"], document["kind"]
        if (version, kind) not in self.paths:
            root = f"/apis/{version}" if "/" in version else f"/api/{version}"
            for one in (self.get(root) or {"resources": []})["resources"]:
                if "/" not in one["name"]:
                    self.paths[version, one["kind"]] = root, one["name"], one["namespaced"]
        if (version, kind) not in self.paths:
            return None
        root, plural, namespaced = self.paths[version, kind]
        meta = document["metadata"]
        space = f"/namespaces/{meta.get('namespace', 'stormwire')}" if namespaced else ""
        return f"{root}{space}/{plural}/{meta['name']}"

    def apply(self, document, dry_run=False):
        """Applies it on the server with strict validation; what it complains of, or nothing. That the pods of a
        workload would be refused by the namespace's standard is a warning there, and a complaint here."""
        path = self.path_of(document)
        if path is None:
            return f"there is no kind {document['kind']} of {document['apiVersion']}"
        query = "?fieldManager=stormwire-check&fieldValidation=Strict&force=true" + ("&dryRun=All" if dry_run else "")
        status, answer = self.call("PATCH", path + query, document, "application/apply-patch+yaml")
        if status not in (200, 201):
            return answer.get("message", str(answer)) if isinstance(answer, dict) else f"{status} {answer}"
        return "; ".join(self.warnings) or None

    def define(self, folder):
        """Applies the definitions, and waits until their kinds are served."""
        names = []
        for path in sorted(folder.rglob("*.yaml")):
            for document in yaml.load_all(path.read_text(), Loader):
                if document and document["kind"] == "CustomResourceDefinition" and document["spec"]["group"] in GROUPS:
                    said = self.apply(document)
                    if said:
                        sys.exit(f"{path.name}: {said}")
                    names.append(document["metadata"]["name"])
        until = time.monotonic() + PATIENCE
        for name in names:
            while not self.is_established(name):
                if time.monotonic() > until:
                    sys.exit(f"{name} is not served within {PATIENCE} s")
                time.sleep(0.2)
        return len(names)

    def is_established(self, name):
        found = self.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}") or {}
        return any(c["type"] == "Established" and c["status"] == "True" for c in found.get("status", {}).get("conditions", []))


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False
