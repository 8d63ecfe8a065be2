"""The cluster's front door as clients outside of it see it: what tests of Ingresses and Gateways have in common.

One cluster of two nodes serves all of them (the fixtures are in conftest.py). Each module has a namespace of its own, which is
deleted before the next one begins: a default backend gets what nobody else wants, of whichever namespace it is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from shutil import which
from typing import NamedTuple, TypeVar

import pytest

from sampan.api.errors import Object
from sampan.cluster import config as configuration
from tests.ingress import objects
from tests.ingress.objects import Rule
from tests.real_cluster import ROOT, Cluster, missing, run, sampan

NEEDED = [
    pytest.mark.root,
    pytest.mark.cluster,
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed"),
]
"""The `pytestmark` of every module."""
SECONDS = 40.0
"""How long what is waited for may take."""
_PAUSE = 0.02
T = TypeVar("T")

SERVER = """
import os, signal, socket, threading
who = os.environ["APP"] + " " + socket.gethostname()
ANSWER = "HTTP/1.1 200 OK\\r\\nContent-Type: text/plain\\r\\nContent-Length: %d\\r\\n\\r\\n%s"
def serve(connection):
    with connection, connection.makefile("rb") as lines:
        while request := lines.readline():
            method, target, _ = request.decode().split()
            headers = {}
            while line := lines.readline().strip():
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            left = int(headers.get("content-length", 0))
            while left and (part := lines.read(min(left, 1 << 20))):
                left -= len(part)
            body = f"{who} {method} {headers.get('host', '')} {target}"
            if "x-log" in headers:
                print(method, headers.get("host"), target, flush=True)
            if shown := headers.get("x-show"):
                body += f" {shown}={headers.get(shown.lower(), '')}"
            connection.sendall((ANSWER % (len(body), "" if method == "HEAD" else body)).encode())
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
listener = socket.create_server(("", 8080), backlog=128)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
"""What the pods of `app` run: they answer with application, pod, method, Host and path of the request, and the header that
`X-Show` names; with `X-Log` they write it down."""


def app(name: str, replicas: int = 1, pre_stop: float = 0) -> list[Object]:
    """A Deployment, and a Service with port 80 named http. A pod that is told to end goes on for `pre_stop` seconds."""
    container: Object = {
        "name": "server",
        "image": "training/webapp",
        "command": ["python3", "-c", SERVER],
        "env": [{"name": "APP", "value": name}],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    if pre_stop:
        container["lifecycle"] = {"preStop": {"exec": {"command": ["sleep", str(pre_stop)]}}}
    labels = {"app": name}
    pod = {"containers": [container], "terminationGracePeriodSeconds": 10 if pre_stop else 0}
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name},
            "spec": {"selector": labels, "ports": ports},
        },
    ]


def outside(name: str, address: str, port: int, **service_port: object) -> list[Object]:
    """A Service that leads to a server outside of the cluster."""
    meta = {"name": name, "labels": {"kubernetes.io/service-name": name}}
    ports = [{"name": "http", "port": 80, "targetPort": port, **service_port}]
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": ports}},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": meta,
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address]}],
            "ports": [{"name": "http", "port": port}],
        },
    ]


def tls_secret(name: str, chain: str, key: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": name},
        "stringData": {"tls.crt": chain, "tls.key": key},
    }


class Answer(NamedTuple):
    """To one request: the status ("000" if there was no answer), the body, and where a redirect leads."""

    status: str
    body: str
    location: str = ""

    @property
    def app(self) -> str:
        return self.body.partition(" ")[0]

    @property
    def pod(self) -> str:
        return self.body.split(" ")[1]

    def __str__(self) -> str:
        return " ".join(part for part in (self.status, self.location, self.body) if part)


def ask(address: str, host: str, path: str = "/", *options: str, scheme: str = "http") -> Answer:
    """Ask at an address for a path of a host (or host:port); `options` are curl's."""
    command = ["curl", "-s", "-m", "5", "--noproxy", "*", "--path-as-is", "--connect-to", f"::{address}:"]
    shown = "\n%{redirect_url}\n%{http_code}"
    said = run([*command, "-w", shown, *options, f"{scheme}://{host}{path}"]).out
    body, location, status = said.rsplit("\n", 2)
    return Answer(status, body.strip(), location)


def eventually(read: Callable[[], T], enough: Callable[[T], bool]) -> T:
    """What `read` returns once that is enough."""
    deadline = time.monotonic() + SECONDS
    while not enough(got := read()):
        assert time.monotonic() < deadline, f"not within {SECONDS:.0f} s: {got}"
        time.sleep(_PAUSE)
    return got


def until(address: str, host: str, path: str, wanted: str, *options: str, scheme: str = "http") -> Answer:
    """Ask until the answer begins so: "200 foo ", "404", "308 https://foo.org/"."""
    return eventually(
        lambda: ask(address, host, path, *options, scheme=scheme), lambda got: str(got).startswith(wanted)
    )


class FrontDoor:
    """The front door, and a namespace for what stands behind it."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.kubectl = cluster.kubectl(namespace)

    @cached_property
    def address(self) -> str:
        system = self.cluster.kubectl("kube-system")
        where = ".status.loadBalancer.ingress[0].ip"
        system.wait("service/sampan-ingress", f"jsonpath={{{where}}}")
        return system.value("service/sampan-ingress", where)

    def node_address(self, node: str) -> str:
        return self.cluster.config.node_address(node)

    def apply(self, *made: Object) -> None:
        """Apply objects, in this order."""
        items = {"apiVersion": "v1", "kind": "List", "items": made}
        self.kubectl("apply", "-f", "-", stdin=json.dumps(items))

    def run_apps(self, *names: str, replicas: int = 1) -> None:
        """Have these applications, and wait until they serve."""
        self.apply(*(one for name in names for one in app(name, replicas)))
        self.kubectl.wait("deployment", "condition=Available", "--all")

    def ingress(
        self,
        name: str,
        rules: Iterable[Rule] = (),
        default: str = "",
        annotations: Mapping[str, str] | None = None,
        **spec: object,
    ) -> Object:
        """An Ingress of this namespace; `spec` has what its rules and default backend do not say."""
        made = objects.ingress(name, rules, default, namespace=self.namespace)
        made["metadata"] = {"name": name, "annotations": dict(annotations or {})}
        made["spec"] |= spec
        return made

    def wait_address(self, ingress: str) -> str:
        """Wait until an Ingress says where it is served; there."""
        where = ".status.loadBalancer.ingress[0].ip"
        self.kubectl.wait(f"ingress/{ingress}", f"jsonpath={{{where}}}")
        return self.kubectl.value(f"ingress/{ingress}", where)

    def wait_event(self, ingress: str, reason: str) -> str:
        """Wait for events of one reason about an Ingress; their messages."""
        selector = f"involvedObject.kind=Ingress,involvedObject.name={ingress},reason={reason}"
        command = "get", "events", "--field-selector", selector, "-o", "jsonpath={..message}"
        return eventually(lambda: self.kubectl(*command).strip(), bool)

    def ask(self, host: str, path: str = "/", *options: str, scheme: str = "http") -> Answer:
        return ask(self.address, host, path, *options, scheme=scheme)

    def until(self, host: str, path: str, wanted: str, *options: str, scheme: str = "http") -> Answer:
        return until(self.address, host, path, wanted, *options, scheme=scheme)


@contextmanager
def started(home: Path, name: str, *flags: str, image: str = "webapp") -> Iterator[Cluster]:
    """A cluster that has an image of images/ (that of `app`), deleted at the end of the block."""
    config_file = home / "kubeconfig"
    try:
        sampan("up", "--name", name, *flags, kubeconfig=config_file)
        if image:
            sampan("image", "build", str(ROOT / "images" / image), "--name", name, kubeconfig=config_file)
        yield Cluster(configuration.existing(name))
    finally:
        if configuration.load(name) is not None:
            sampan("delete", "--name", name, kubeconfig=config_file)
