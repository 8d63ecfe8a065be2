"""Services as packets see them: real pods, the node's nftables, connections from pods, node and host."""

from __future__ import annotations

import json
import socket
import subprocess
import time

import pytest

from tests.real_cluster import Cluster, Kubectl, curl, fetch

pytestmark = pytest.mark.timeout(120)
REFUSED = 7

SERVER = """
import socket, threading
name = (socket.gethostname() + "\\n").encode()

def serve_udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("", 9090))
    while True:
        s.sendto(name, s.recvfrom(100)[1])

threading.Thread(target=serve_udp, daemon=True).start()
listener = socket.create_server(("", 8080))
while True:
    c, _ = listener.accept()
    with c:
        c.recv(1000)
        c.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(name) + name)
"""
"""What every test's pod runs: its name over HTTP and UDP. A shell stands beside it."""


def pod(name: str, app: str) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"app": app}},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {
                        "name": "server",
                        "image": "training/webapp",
                        "command": ["python3", "-c", SERVER],
                        "ports": [
                            {"name": "http", "containerPort": 8080},
                            {"name": "echo", "containerPort": 9090, "protocol": "UDP"},
                        ],
                        "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1},
                    },
                    {"name": "shell", "image": "busybox", "command": ["sleep", "100000"]},
                ],
            },
        }
    )


def web(kubectl: Kubectl, name: str, app: str = "web") -> None:
    kubectl("apply", "-f", "-", stdin=pod(name, app))
    kubectl.wait_ready(name)


def service(kubectl: Kubectl, name: str, spec: str) -> str:
    manifest = f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    kubectl("apply", "-f", "-", stdin=manifest)
    return kubectl.value(f"service/{name}", ".spec.clusterIP")


def test_several_ports_named_targets_and_udp(kubectl: Kubectl) -> None:
    web(kubectl, "one")
    ip = service(
        kubectl, "web",
        "{selector: {app: web}, ports: [{name: a, port: 80, targetPort: http}, {name: b, port: 81, targetPort: 8080},"
        " {name: c, port: 53, targetPort: echo, protocol: UDP}]}",
    )  # fmt: skip
    kubectl.wait_endpoints("web", 1)
    assert fetch(f"http://{ip}/") == "one\n"
    assert fetch(f"http://{ip}:81/") == "one\n"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(10)
        s.connect((ip, 53))
        s.send(b"who\n")
        assert s.recv(100) == b"one\n"


def test_a_pod_reaches_itself_through_its_service(kubectl: Kubectl) -> None:
    web(kubectl, "one")
    ip = service(kubectl, "web", "{selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}")
    kubectl.wait_endpoints("web", 1)
    fetch(f"http://{ip}/")
    assert kubectl("exec", "one", "-c", "shell", "--", "wget", "-q", "-O", "-", f"http://{ip}/") == "one\n"


def test_without_endpoints_and_without_service_a_connection_is_refused_at_once(
    kubectl: Kubectl, cluster: Cluster
) -> None:
    web(kubectl, "client", app="other")
    ip = service(
        kubectl, "web", "{type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}"
    )
    port = kubectl.value("service/web", ".spec.ports[0].nodePort")
    unused = cluster.config.service_cidr.rpartition(".")[0] + ".9"
    for target in (f"{ip}:80", f"{unused}:80", f"{cluster.node_address}:{port}"):
        assert curl(f"http://{target}/").code == REFUSED, f"from the host to {target}"
        asked = kubectl.run(
            "exec", "client", "-c", "shell", "--", "wget", "-q", "-O", "-", f"http://{target}/"
        )
        assert "refused" in asked.err, f"from a pod to {target}: {asked}"


def test_an_endpoint_that_goes_takes_its_udp_clients_along(kubectl: Kubectl) -> None:
    """The entry of a client that keeps its port would lead to the old pod for as long as it goes on sending."""
    web(kubectl, "one", app="first")
    web(kubectl, "two", app="second")
    ip = service(
        kubectl, "echo", "{selector: {app: first}, ports: [{port: 53, targetPort: 9090, protocol: UDP}]}"
    )
    kubectl.wait_endpoints("echo", 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(1)
        s.connect((ip, 53))
        assert _ask(s) == b"one\n"
        kubectl("patch", "service", "echo", "-p", '{"spec":{"selector":{"app":"second"}}}')
        kubectl.watch(
            "endpointslices -l kubernetes.io/service-name=echo",
            "{{range .object.endpoints}}{{.targetRef.name}}{{end}}",
            lambda name: name == "two",
        )
        deadline = time.monotonic() + 20
        while _ask(s) != b"two\n":
            assert time.monotonic() < deadline, "the client still reaches the old pod"


def _ask(s: socket.socket) -> bytes:
    for _ in range(10):
        try:
            s.send(b"who\n")
            return s.recv(100)
        except (TimeoutError, ConnectionRefusedError):
            continue
    return b""


def test_session_affinity_survives_other_backends_coming_and_going(kubectl: Kubectl) -> None:
    for name in ("one", "two"):
        web(kubectl, name)
    ip = service(
        kubectl,
        "web",
        "{selector: {app: web}, sessionAffinity: ClientIP, ports: [{port: 80, targetPort: 8080}]}",
    )
    kubectl.wait_endpoints("web", 2)
    mine = fetch(f"http://{ip}/")
    assert {fetch(f"http://{ip}/") for _ in range(12)} == {mine}
    web(kubectl, "three")
    kubectl.wait_endpoints("web", 3)
    assert {fetch(f"http://{ip}/") for _ in range(12)} == {mine}
    other = ({"one", "two"} - {mine.strip()}).pop()
    kubectl("delete", "pod", other, "--wait=true")
    kubectl.wait_endpoints("web", 2)
    assert {fetch(f"http://{ip}/") for _ in range(12)} == {mine}


def test_rules_are_a_persons_to_read_and_no_others_are_touched(kubectl: Kubectl, cluster: Cluster) -> None:
    web(kubectl, "one")
    ip = service(
        kubectl, "readable", "{selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}"
    )
    kubectl.wait_endpoints("readable", 1)
    fetch(f"http://{ip}/")
    rules = cluster.in_node("nft", "list", "map", "ip", "sampan", "endpoints").out
    pod = kubectl.value("pod/one", ".status.podIP")
    (line,) = (row for row in rules.splitlines() if f"{kubectl.namespace}/readable:http" in row)
    assert f"{ip} . tcp . 80 . 0x00000000" in line
    assert f"{pod} . 8080" in line
    on_host = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    assert "table ip sampan\n" not in on_host
