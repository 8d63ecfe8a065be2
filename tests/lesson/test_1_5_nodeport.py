"""1.5.2 NodePort: a port of every node leads to the Service; its cluster address stays."""

from __future__ import annotations

import pytest

from tests.lesson.manifests import LESSON, with_fault
from tests.real_cluster import Cluster, Kubectl, curl, fetch

CONNECTION_REFUSED = 7


@pytest.fixture
def app(kubectl: Kubectl) -> Kubectl:
    kubectl.apply(LESSON / "my-app.yaml")
    return kubectl


def test_the_port_that_was_asked_for(app: Kubectl, cluster: Cluster) -> None:
    app.apply(LESSON / "my-nodeport-service.yaml")
    app.wait_endpoints("my-nodeport-service", 3)
    assert fetch(f"http://{cluster.node_address}:30036/").startswith("Hello my-app-")
    address = app.value("service/my-nodeport-service", ".spec.clusterIP")
    assert fetch(f"http://{address}/").startswith("Hello my-app-")
    pod = app.value("pods", ".items[0].metadata.name")
    app("run", "client", "--image=busybox", "--restart=Never", "--",
        "wget", "-q", "-O", "-", f"http://{cluster.node_address}:30036/")  # fmt: skip
    app.wait("pod/client", "jsonpath={.status.phase}=Succeeded")
    assert app("logs", "client").startswith("Hello my-app-"), f"from a pod, too, such as {pod}"


def test_not_on_loopback(app: Kubectl, cluster: Cluster) -> None:
    """As in upstream's nftables mode: the primary address of the node, and neither its loopback nor the host's."""
    app.apply(LESSON / "my-nodeport-service.yaml")
    app.wait_endpoints("my-nodeport-service", 3)
    fetch(f"http://{cluster.node_address}:30036/")
    assert curl("http://127.0.0.1:30036/").code == CONNECTION_REFUSED
    inside = cluster.in_node(
        "curl", "--silent", "--noproxy", "*", "--max-time", "5", "http://127.0.0.1:30036/"
    )
    assert inside.code == CONNECTION_REFUSED


def test_a_random_port(app: Kubectl, cluster: Cluster) -> None:
    ports = []
    for number in range(3):
        name = f"random-{number}"
        app("expose", "deployment", "my-app", "--type=NodePort", f"--name={name}")
        app.wait_endpoints(name, 3)
        ports.append(int(app.value(f"service/{name}", ".spec.ports[0].nodePort")))
        assert fetch(f"http://{cluster.node_address}:{ports[-1]}/").startswith("Hello my-app-")
    assert all(30000 <= p <= 32767 for p in ports)
    assert len(set(ports)) == 3


@pytest.mark.parametrize("port", ["29999", "32768", "37844"])
def test_outside_of_the_range(kubectl: Kubectl, port: str) -> None:
    manifest = with_fault("my-nodeport-service.yaml", "30036\n      protocol", f"{port}\n      protocol")
    refused = kubectl.run("apply", "-f", "-", stdin=manifest)
    assert refused.code == 1
    assert refused.err == (
        f'The Service "my-nodeport-service" is invalid: spec.ports[0].nodePort: Invalid value: {port}: '
        "provided port is not in the valid range. The range of valid ports is 30000-32767\n"
    )


def test_a_port_has_one_service(kubectl: Kubectl) -> None:
    """The lesson's first disadvantage. Once the first Service is gone, the port is free."""
    kubectl.apply(LESSON / "my-nodeport-service.yaml")
    second = with_fault("my-nodeport-service.yaml", "name: my-nodeport-service", "name: second")
    refused = kubectl.run("apply", "-f", "-", stdin=second)
    assert refused.code == 1
    assert refused.err == (
        'The Service "second" is invalid: spec.ports[0].nodePort: Invalid value: 30036: provided port is already allocated\n'
    )
    kubectl("delete", "service", "my-nodeport-service")
    assert kubectl("apply", "-f", "-", stdin=second) == "service/second created\n"


def test_no_longer_a_nodeport(app: Kubectl, cluster: Cluster) -> None:
    app.apply(LESSON / "my-nodeport-service.yaml")
    app.wait_endpoints("my-nodeport-service", 3)
    fetch(f"http://{cluster.node_address}:30036/")
    app(
        "patch",
        "service",
        "my-nodeport-service",
        "-p",
        '{"spec": {"type": "ClusterIP", "ports": [{"port": 80, "nodePort": null}]}}',
    )
    address = app.value("service/my-nodeport-service", ".spec.clusterIP")
    assert fetch(f"http://{address}/").startswith("Hello my-app-")
    gone = curl(
        f"http://{cluster.node_address}:30036/", "--retry", "3", "--retry-all-errors"
    )  # retried only if it is not refused the first time
    assert gone.code == CONNECTION_REFUSED
