"""1.5.3 LoadBalancer: on top of a node port, an address of its own for each Service, without a cloud and without MetalLB."""

from __future__ import annotations

import ipaddress

from tests.lesson.manifests import LESSON
from tests.real_cluster import Cluster, Kubectl, fetch


def test_each_service_has_an_address_of_its_own(kubectl: Kubectl, cluster: Cluster) -> None:
    kubectl.apply(LESSON / "my-app.yaml")
    addresses = []
    for name in ("first", "second"):
        kubectl("expose", "deployment", "my-app", "--type=LoadBalancer", f"--name={name}")
        kubectl.wait_endpoints(name, 3)
        kubectl(
            "wait", "--for=jsonpath={.status.loadBalancer.ingress[0].ip}", f"service/{name}", "--timeout=30s"
        )
        address = kubectl.value(f"service/{name}", ".status.loadBalancer.ingress[0].ip")
        port = kubectl.value(f"service/{name}", ".spec.ports[0].port")
        assert fetch(f"http://{address}:{port}/").startswith("Hello my-app-")
        row = kubectl("get", "service", name, "--no-headers").split()
        assert (row[1], row[3]) == ("LoadBalancer", address)
        # "On top of NodePort": that leads there as well.
        node_port = kubectl.value(f"service/{name}", ".spec.ports[0].nodePort")
        assert fetch(f"http://{cluster.node_address}:{node_port}/").startswith("Hello my-app-")
        addresses.append(ipaddress.ip_address(address))
    assert addresses[0] != addresses[1]
    assert all(a in ipaddress.ip_network(cluster.config.node_subnet) for a in addresses)
