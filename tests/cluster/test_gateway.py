"""The Gateway API on a real cluster, with kubectl alone: a Gateway has an address, routes attach, what is told of them is true."""

from __future__ import annotations

import base64
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from shutil import which

import pytest

from sampan.cluster import config as configuration
from tests.ingress.test_certificates import make
from tests.real_cluster import ROOT, Cluster, Kubectl, Result, missing, run, sampan

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed"),
]

APP = """
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: NAME}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: server
    image: busybox
    imagePullPolicy: Never
    command: [sh, -c, "mkdir /w; hostname > /w/index.html; exec httpd -f -p 8080 -h /w"]
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: NAME}
spec: {selector: {app: NAME}, ports: [{port: 80, targetPort: 8080}]}
"""
GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g}
spec:
  gatewayClassName: sampan
  listeners:
  - {name: web, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
  - name: tls
    port: 8443
    protocol: HTTPS
    hostname: safe.example.com
    tls: {certificateRefs: [{name: pair}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: split}
spec:
  parentRefs: [{name: g}]
  hostnames: [split.example.com, safe.example.com]
  rules:
  - backendRefs: [{name: one, port: 80, weight: 3}, {name: two, port: 80, weight: 1}]
  - matches: [{headers: [{name: version, value: two}]}]
    backendRefs: [{name: two, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: far}
spec:
  parentRefs: [{name: g, sectionName: web}]
  hostnames: [far.example.com]
  rules: [{backendRefs: [{name: three, namespace: far, port: 80}]}]
"""
GUEST = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: guest}
spec:
  parentRefs: [{name: g, namespace: default}]
  hostnames: ["*.guest.example.com"]
  rules: [{backendRefs: [{name: three, port: 80}]}]
"""
GRANT = """
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: visitors}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]
  to: [{group: "", kind: Service}]
"""


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three applications, one of them in another namespace, and a Gateway with three routes."""
    home = tmp_path_factory.mktemp("gateway")
    config_file, name = home / "kubeconfig", f"pytest-gw-{os.getpid()}"
    try:
        sampan("up", "--name", name, kubeconfig=config_file)
        sampan("image", "build", str(ROOT / "images/busybox"), "--name", name, kubeconfig=config_file)
        cluster = Cluster(configuration.existing(name))
        kubectl = cluster.kubectl()
        far = cluster.kubectl("far")
        kubectl("create", "namespace", "far")
        for one, where in (("one", kubectl), ("two", kubectl), ("three", far)):
            where("apply", "-f", "-", stdin=APP.replace("NAME", one))
        chain, key = (base64.b64encode(part.encode()).decode() for part in make("safe.example.com"))
        pair = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "pair"},
            "type": "kubernetes.io/tls",
            "data": {"tls.crt": chain, "tls.key": key},
        }
        kubectl("apply", "-f", "-", stdin=json.dumps(pair))
        kubectl("apply", "-f", "-", stdin=GATEWAY)
        far("apply", "-f", "-", stdin=GUEST)
        for where in (kubectl, far):
            where("wait", "pod", "--all", "--for=condition=Ready", "--timeout=60s")
        kubectl("wait", "gateway/g", "--for=condition=Programmed", "--timeout=30s")
        yield cluster
    finally:
        if configuration.load(name) is not None:
            sampan("delete", "--name", name, kubeconfig=config_file)


@pytest.fixture
def kubectl(owner: Cluster) -> Kubectl:
    return owner.kubectl()


@pytest.fixture
def address(kubectl: Kubectl) -> str:
    return kubectl("get", "gateway", "g", "-o", "jsonpath={.status.addresses[0].value}").strip()


def ask(address: str, host: str, *more: str) -> Result:
    return run(
        ["curl", "-s", "-m", "5", "-w", " %{http_code}", "-H", f"Host: {host}", *more, f"http://{address}/"]
    )


def until(address: str, host: str, wanted: str, *more: str) -> None:
    """Ask until the answer has this in it."""
    deadline = time.monotonic() + 20
    while wanted not in (got := ask(address, host, *more)).out:
        assert time.monotonic() < deadline, got


def wait_reason(kubectl: Kubectl, route: str, condition: str, reason: str) -> None:
    path = f'{{.status.parents[0].conditions[?(@.type=="{condition}")].reason}}'
    kubectl("wait", route, f"--for=jsonpath={path}={reason}", "--timeout=20s")


def test_class_and_gateway(owner: Cluster, kubectl: Kubectl, address: str) -> None:
    kubectl("wait", "gatewayclass/sampan", "--for=condition=Accepted", "--timeout=20s")
    assert "sampan   sampan.io/gateway-controller   True" in kubectl("get", "gatewayclass")
    assert f"g      sampan   {address}" in kubectl("get", "gateway")
    listeners = json.loads(kubectl("get", "gateway", "g", "-o", "json"))["status"]["listeners"]
    assert [(one["name"], one["attachedRoutes"]) for one in listeners] == [("web", 3), ("tls", 1)]
    system = owner.kubectl("kube-system")
    front_door = system(
        "get", "service", "sampan-ingress", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}"
    )
    assert address != front_door
    owned = kubectl(
        "get", "service", "sampan-gateway-g", "-o", "jsonpath={.metadata.ownerReferences[0].kind}"
    )
    assert owned == "Gateway"


def test_weights_and_headers(kubectl: Kubectl, address: str) -> None:
    wait_reason(kubectl, "httproute/split", "Accepted", "Accepted")
    until(address, "split.example.com", "200")
    seen = Counter(ask(address, "split.example.com").out.split()[0] for _ in range(60))
    assert set(seen) == {"one", "two"}
    assert seen["one"] > seen["two"]
    assert {ask(address, "split.example.com", "-H", "Version: two").out.split()[0] for _ in range(10)} == {
        "two"
    }
    assert "404" in ask(address, "unknown.example.com").out


def test_tls(address: str) -> None:
    options = ["--resolve", f"safe.example.com:8443:{address}", "-k", "-s", "-m", "5"]
    deadline = time.monotonic() + 20
    while (got := run(["curl", *options, "https://safe.example.com:8443/"])).out.strip() not in (
        "one",
        "two",
    ):
        assert time.monotonic() < deadline, got
    shown = run(["curl", *options, "-v", "https://safe.example.com:8443/"])
    assert "CN=a.test" in shown.err


def test_other_namespaces(owner: Cluster, kubectl: Kubectl, address: str) -> None:
    """Routes of other namespaces attach where they are allowed; Services of others can be had with a grant, and as long as it is there."""
    until(address, "a.b.guest.example.com", "three")
    wait_reason(kubectl, "httproute/far", "ResolvedRefs", "RefNotPermitted")
    until(address, "far.example.com", "500")
    far = owner.kubectl("far")
    far("apply", "-f", "-", stdin=GRANT)
    wait_reason(kubectl, "httproute/far", "ResolvedRefs", "ResolvedRefs")
    until(address, "far.example.com", "three")
    far("delete", "-f", "-", stdin=GRANT)
    wait_reason(kubectl, "httproute/far", "ResolvedRefs", "RefNotPermitted")
    until(address, "far.example.com", "500")


def test_a_gateway_goes(kubectl: Kubectl, address: str) -> None:
    """With it go its Service and what was said of its routes."""
    kubectl("delete", "gateway", "g")
    kubectl("wait", "service/sampan-gateway-g", "--for=delete", "--timeout=20s")
    deadline = time.monotonic() + 20
    while (got := kubectl("get", "httproute", "split", "-o", "jsonpath={.status.parents}")) != "[]":
        assert time.monotonic() < deadline, got
