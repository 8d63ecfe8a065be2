"""Services of both address families on a cluster of two: pods have two addresses, Services as many as they ask for."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import partial

import pytest

from sampan.cluster import config as configuration
from tests.cluster.test_service_fields import REFUSED, Network, pod, pytestmark, until  # noqa: F401
from tests.real_cluster import ROOT, Cluster, sampan


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    home = tmp_path_factory.mktemp("dual") / "kubeconfig"
    name = f"t{os.getpid()}dual"
    try:
        sampan("up", "--name", name, "--nodes", "2", "--ip-families", "IPv4,IPv6", kubeconfig=home)
        sampan("image", "build", *(str(ROOT / "images" / r) for r in ("busybox", "webapp")), "--name", name, kubeconfig=home)  # fmt: skip
        made = Network(Cluster(configuration.existing(name)))
        made.kubectl("apply", "-f", "-", stdin=pod("one", "node-1") + "\n" + pod("two", "node-2"))
        made.kubectl.wait_ready("one", "two")
        yield made
    finally:
        if configuration.load(name) is not None:
            sampan("delete", "--name", name, kubeconfig=home)


def addresses(network: Network, name: str) -> list[str]:
    """As they stand in a URL."""
    found = json.loads(network.kubectl.value(f"service/{name}", ".spec.clusterIPs"))
    return [f"[{a}]" if ":" in a else a for a in found]


def test_both_families_lead_to_the_pod(network: Network) -> None:
    network.service("both", "pod: one", ipFamilyPolicy="RequireDualStack", type="NodePort")
    four, six = addresses(network, "both")
    port = network.node_port("both")
    node = [f"[{a}]" if ":" in a else a for a in network.cluster.config.node_addresses("node-2")]
    for target in (f"{four}:80", f"{six}:80", f"{node[0]}:{port}", f"{node[1]}:{port}"):
        until(partial(network.from_pod, "two", target), "one")
        until(partial(network.from_node, "node-2", target), "one")
    until(lambda: network.from_host(f"{node[1]}:{port}"), "one")
    said = network.kubectl("describe", "service", "both")
    lines = [re.sub(r"\s+", " ", row).strip() for row in said.splitlines()]
    assert "IP Family Policy: RequireDualStack" in lines
    assert "IP Families: IPv4,IPv6" in lines
    shown = network.kubectl("get", "endpointslices", "-l", "kubernetes.io/service-name=both", "--no-headers")
    assert sorted(row.split()[1] for row in shown.splitlines()) == ["IPv4", "IPv6"]
    # Back to one family: the second address leads nowhere.
    network.kubectl("patch", "service", "both", "-p", '{"spec":{"ipFamilyPolicy":"SingleStack"}}')
    until(lambda: network.from_pod("two", f"{six}:80"), REFUSED)
    until(lambda: network.from_pod("two", f"{four}:80"), "one")
    network.kubectl("delete", "service", "both")


def test_a_service_of_ipv6_alone_with_policy_local(network: Network) -> None:
    network.service("six", "pod: one", ipFamilies=["IPv6"], type="NodePort", externalTrafficPolicy="Local")
    [six] = addresses(network, "six")
    port = network.node_port("six")
    first, second = (network.cluster.config.node_addresses(n)[1] for n in ("node-1", "node-2"))
    two = json.loads(network.kubectl.value("pod/two", ".status.podIPs"))[1]["ip"]
    assert until(lambda: network.from_pod("two", f"{six}:80"), "one") == f"one {two}"
    until(lambda: network.from_host(f"[{first}]:{port}"), "one")
    until(lambda: network.from_host(f"[{second}]:{port}"), 28)
    assert until(lambda: network.from_pod("two", f"[{second}]:{port}"), "one") == f"one {two}"
    network.kubectl("delete", "service", "six")
