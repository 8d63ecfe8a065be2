"""The lesson's figure of Ingress on a real cluster: one address, two hosts, two Services, pods on two nodes, a default backend."""

from __future__ import annotations

import json
import os
import signal

import pytest

from sampan.ingress.haproxy.files import Files
from sampan.ingress.haproxy.process import master_of
from tests.cluster.front_door import NEEDED, FrontDoor, eventually, until
from tests.ingress.objects import backend
from tests.real_cluster import SAMPAN, run

pytestmark = NEEDED


def figure(name: str, domain: str, default: str = "") -> str:
    """The figure's Ingress, for a domain."""
    made = f"""
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}}}
spec:
  rules:
  - host: foo.{domain}
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: foo, port: {{name: http}}}}}}}}]}}
  - host: {domain}
    http: {{paths: [{{path: /bar/, pathType: Prefix, backend: {{service: {{name: bar, port: {{number: 80}}}}}}}}]}}
"""
    if default:
        made += f"  defaultBackend: {{service: {{name: {default}, port: {{number: 80}}}}}}\n"
    return made


FIGURE = figure("figure", "mydomain.com", default="other")


@pytest.fixture(scope="module")
def door(front_door: FrontDoor) -> FrontDoor:
    """Three applications and the figure's Ingress."""
    front_door.run_apps("foo", "bar", "other", replicas=2)
    front_door.kubectl("apply", "-f", "-", stdin=FIGURE)
    front_door.wait_address("figure")
    return front_door


def test_the_lessons_figure(door: FrontDoor) -> None:
    config, kubectl = door.cluster.config, door.kubectl
    for place in (door.address, *(config.node_address(n) for n in config.nodes)):
        until(place, "foo.mydomain.com", "/", "200 foo ")
        until(place, "mydomain.com", "/bar/", "200 bar ")
        until(place, "mydomain.com", "/", "200 other ")
        until(place, "unknown.org", "/", "200 other ")
    pods = set(kubectl("get", "pods", "-l", "app=foo", "-o", "jsonpath={.items[*].metadata.name}").split())
    eventually(lambda: {door.ask("foo.mydomain.com").pod for _ in range(10)}, pods.__eq__)
    nodes = set(kubectl("get", "pods", "-l", "app=foo", "-o", "jsonpath={.items[*].spec.nodeName}").split())
    assert nodes == set(config.nodes)
    assert f"sampan   foo.mydomain.com,mydomain.com   {door.address}" in kubectl("get", "ingress", "figure")
    assert door.wait_address("figure") == door.address
    assert kubectl.run("apply", "-f", "-", stdin=FIGURE).err == ""


def test_routes_say_where_they_came_from(door: FrontDoor) -> None:
    said = run([SAMPAN, "ingress", "routes", "--name", door.cluster.name])
    assert said.code == 0, said.err
    rows = [line.split() for line in said.out.splitlines()]
    assert rows[0] == ["HOST", "PATH", "MATCH", "BACKEND", "ENDPOINTS", "FROM"]
    found = {(r[0], r[1], r[2], r[3], r[-1]) for r in rows[1:]}
    here, source = door.namespace, f"Ingress/{door.namespace}/figure"
    assert ("foo.mydomain.com", "/", "Prefix", f"{here}/foo:80", source) in found
    assert ("mydomain.com", "/bar", "Prefix", f"{here}/bar:80", source) in found
    assert ("*", "-", "default", f"{here}/other:80", source) in found


def test_what_cannot_be_done_is_told(door: FrontDoor) -> None:
    kubectl = door.kubectl
    path = {"path": "/", "pathType": "Prefix"}
    missing_service = {**path, "backend": backend("nobody")}
    missing_port = {**path, "path": "/p", "backend": {"service": {"name": "foo", "port": {"name": "grpc"}}}}
    resource = {
        **path,
        "path": "/r",
        "backend": {"resource": {"kind": "Bucket", "name": "b", "apiGroup": "x.io"}},
    }
    taken = {"host": "foo.mydomain.com", "http": {"paths": [missing_service]}}
    rules = [{"host": "broken.org", "http": {"paths": [missing_service, missing_port, resource]}}, taken]
    broken = door.ingress("broken")
    broken["spec"]["rules"] = rules
    door.apply(broken)
    events = eventually(
        lambda: kubectl("events", "--for", "ingress/broken"), lambda found: found.count("Warning") >= 5
    )
    assert f"there is no Service {door.namespace}/nobody" in events
    assert f"Service {door.namespace}/foo has no port grpc; it has http (80)" in events
    assert "backend is the resource Bucket b: only Services are supported" in events
    assert f"Ingress {door.namespace}/figure has it and goes first" in events
    door.until("foo.mydomain.com", "/", "200 foo ")
    assert door.ask("broken.org").status == "503"
    kubectl("delete", "ingress", "broken")
    door.until("broken.org", "/", "200 other ")


def test_the_front_door_outlives_who_looks_after_it(door: FrontDoor) -> None:
    run_directory = door.cluster.config.run_directory
    proxy = Files(run_directory / "nodes/node-1/ingress", ())
    node = door.node_address("node-1")
    before = master_of(proxy)
    assert before
    agent = json.loads((run_directory / "parts.json").read_text())["node-1"]["pid"]
    os.kill(agent, signal.SIGKILL)
    until(node, "foo.mydomain.com", "/", "200 foo ")
    door.kubectl("scale", "deployment/other", "--replicas=1")
    door.kubectl("apply", "-f", "-", stdin=figure("late", "late.org"))
    until(node, "foo.late.org", "/", "200 foo ")
    assert master_of(proxy) == before
    os.kill(before, signal.SIGKILL)
    until(node, "foo.late.org", "/", "200 foo ")
    assert master_of(proxy) != before
    assert proxy.master_socket.stat().st_mode & 0o077 == 0
