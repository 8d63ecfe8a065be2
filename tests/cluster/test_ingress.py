"""The lesson's figure of Ingress on a real cluster: one address, two hosts, two Services, pods on two nodes, a default backend."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from shutil import which

import pytest

from sampan.cluster import config as configuration
from tests.real_cluster import ROOT, SAMPAN, Cluster, Kubectl, Result, missing, run, sampan

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.skipif(not which("haproxy"), reason="haproxy is not installed"),
]

SERVER = "mkdir /w; hostname > /w/index.html; mkdir /w/bar; hostname > /w/bar/index.html; exec httpd -f -p 8080 -h /w"


def app(name: str) -> str:
    container = {
        "name": "server",
        "image": "busybox",
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", SERVER],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": template},
    }
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": ports},
    }
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [deployment, service]})


FIGURE = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: figure}
spec:
  defaultBackend: {service: {name: other, port: {number: 80}}}
  rules:
  - host: foo.mydomain.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: foo, port: {name: http}}}}]}
  - host: mydomain.com
    http: {paths: [{path: /bar/, pathType: Prefix, backend: {service: {name: bar, port: {number: 80}}}}]}
"""


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes, three applications and the figure's Ingress."""
    home = tmp_path_factory.mktemp("ingress")
    config_file, name = home / "kubeconfig", f"pytest-ing-{os.getpid()}"
    try:
        sampan("up", "--name", name, "--nodes", "2", kubeconfig=config_file)
        sampan("image", "build", str(ROOT / "images/busybox"), "--name", name, kubeconfig=config_file)
        cluster = Cluster(configuration.existing(name))
        kubectl = cluster.kubectl()
        for one in ("foo", "bar", "other"):
            kubectl("apply", "-f", "-", stdin=app(one))
        kubectl("apply", "-f", "-", stdin=FIGURE)
        kubectl("wait", "deployment", "--all", "--for=condition=Available", "--timeout=60s")
        kubectl(
            "wait", "ingress/figure", "--for=jsonpath={.status.loadBalancer.ingress[0].ip}", "--timeout=30s"
        )
        yield cluster
    finally:
        if configuration.load(name) is not None:
            sampan("delete", "--name", name, kubeconfig=config_file)


@pytest.fixture
def kubectl(owner: Cluster) -> Kubectl:
    return owner.kubectl()


@pytest.fixture
def address(kubectl: Kubectl) -> str:
    return kubectl("get", "ingress", "figure", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}").strip()


def ask(address: str, host: str, path: str = "/") -> Result:
    return run(
        ["curl", "-s", "-m", "5", "-w", " %{http_code}", "-H", f"Host: {host}", f"http://{address}{path}"]
    )


def until(address: str, host: str, path: str, wanted: str) -> None:
    """Ask until the answer begins so."""
    deadline = time.monotonic() + 20
    while not (got := ask(address, host, path).out.lstrip()).startswith(wanted):
        assert time.monotonic() < deadline, got


def test_the_lessons_figure(owner: Cluster, kubectl: Kubectl, address: str) -> None:
    for place in (address, *(owner.config.node_address(n) for n in owner.config.nodes)):
        until(place, "foo.mydomain.com", "/", "foo-")
        until(place, "mydomain.com", "/bar/", "bar-")
        until(place, "mydomain.com", "/", "other-")
        until(place, "unknown.org", "/", "other-")
    pods = set(kubectl("get", "pods", "-l", "app=foo", "-o", "jsonpath={.items[*].metadata.name}").split())
    assert {ask(address, "foo.mydomain.com").out.split()[0] for _ in range(10)} == pods
    nodes = set(kubectl("get", "pods", "-l", "app=foo", "-o", "jsonpath={.items[*].spec.nodeName}").split())
    assert nodes == set(owner.config.nodes)
    shown = kubectl("get", "ingress", "figure")
    assert f"sampan   foo.mydomain.com,mydomain.com   {address}" in shown
    assert kubectl.run("apply", "-f", "-", stdin=FIGURE).err == ""


def test_routes_say_where_they_came_from(owner: Cluster) -> None:
    said = run([SAMPAN, "ingress", "routes", "--name", owner.config.name])
    assert said.code == 0, said.err
    rows = [line.split() for line in said.out.splitlines()]
    assert rows[0] == ["HOST", "PATH", "MATCH", "BACKEND", "ENDPOINTS", "FROM"]
    found = {(r[0], r[1], r[2], r[3], r[-1]) for r in rows[1:]}
    assert ("foo.mydomain.com", "/", "Prefix", "default/foo:80", "Ingress/default/figure") in found
    assert ("mydomain.com", "/bar", "Prefix", "default/bar:80", "Ingress/default/figure") in found
    assert ("*", "-", "default", "default/other:80", "Ingress/default/figure") in found


def test_what_cannot_be_done_is_told(kubectl: Kubectl, address: str) -> None:
    path = {"path": "/", "pathType": "Prefix"}
    missing_service = {**path, "backend": {"service": {"name": "nobody", "port": {"number": 80}}}}
    missing_port = {**path, "path": "/p", "backend": {"service": {"name": "foo", "port": {"name": "grpc"}}}}
    resource = {
        **path,
        "path": "/r",
        "backend": {"resource": {"kind": "Bucket", "name": "b", "apiGroup": "x.io"}},
    }
    taken = {"host": "foo.mydomain.com", "http": {"paths": [{**path, "backend": missing_service["backend"]}]}}
    rules = [{"host": "broken.org", "http": {"paths": [missing_service, missing_port, resource]}}, taken]
    made = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "broken"},
        "spec": {"rules": rules},
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(made))
    deadline = time.monotonic() + 20
    while (events := kubectl("events", "--for", "ingress/broken")).count("Warning") < 5:
        assert time.monotonic() < deadline, events
    assert "there is no Service default/nobody" in events
    assert "Service default/foo has no port grpc; it has http (80)" in events
    assert "backend is the resource Bucket b: only Services are supported" in events
    assert "Ingress default/figure has it and goes first" in events
    until(address, "foo.mydomain.com", "/", "foo-")
    assert ask(address, "broken.org").out.endswith(" 503")
    kubectl("delete", "ingress", "broken")
    until(address, "broken.org", "/", "other-")


def test_a_foreign_class_is_left_alone(kubectl: Kubectl, address: str) -> None:
    foreign = FIGURE.replace("name: figure", "name: foreign").replace(
        "spec:", "spec:\n  ingressClassName: traefik", 1
    )
    kubectl(
        "apply",
        "-f",
        "-",
        stdin=foreign.replace("mydomain.com", "foreign.org").replace("name: other", "name: bar"),
    )
    until(address, "foo.foreign.org", "/", "other-")
    assert kubectl("get", "ingress", "foreign", "-o", "jsonpath={.status.loadBalancer}").strip() == "{}"
    kubectl("delete", "ingress", "foreign")


def test_the_front_door_outlives_who_looks_after_it(owner: Cluster, kubectl: Kubectl, address: str) -> None:
    run_directory = owner.config.run_directory
    record = run_directory / "nodes/node-1/ingress/haproxy.json"
    node = owner.config.node_address("node-1")
    before = json.loads(record.read_text())["pid"]
    agent = json.loads((run_directory / "parts.json").read_text())["node-1"]["pid"]
    os.kill(agent, signal.SIGKILL)
    until(node, "foo.mydomain.com", "/", "foo-")
    kubectl("scale", "deployment/other", "--replicas=1")
    late = FIGURE.replace("name: figure", "name: late").replace("mydomain.com", "late.org")
    kubectl("apply", "-f", "-", stdin=late)
    until(node, "foo.late.org", "/", "foo-")
    assert json.loads(record.read_text())["pid"] == before
    os.kill(before, signal.SIGKILL)
    until(node, "foo.late.org", "/", "foo-")
    assert json.loads(record.read_text())["pid"] != before
    assert Path(record).stat().st_mode & 0o077 == 0
