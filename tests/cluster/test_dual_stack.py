"""A dual-stack cluster of two nodes: addresses of both families wherever Kubernetes shows them, and the way between pods."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from sampan.cluster import config as configuration
from tests.cluster.test_service_fields import pytestmark  # noqa: F401
from tests.real_cluster import ROOT, Cluster, sampan

SERVER = """
import socket
listener = socket.create_server(("::", 8080), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    c, peer = listener.accept()
    with c:
        c.recv(1000)
        seen = peer[0].removeprefix("::ffff:").encode()
        c.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(seen) + seen)
"""
"""Tells whoever asks by which address it sees them."""


def pod(name: str, node: str, *, host_network: bool = False) -> str:
    fields = {"IPS": "status.podIPs", "HOST_IPS": "status.hostIPs"}
    env = [{"name": k, "valueFrom": {"fieldRef": {"fieldPath": v}}} for k, v in fields.items()]
    containers = [
        {"name": "server", "image": "training/webapp", "command": ["python3", "-c", SERVER], "env": env},
        {"name": "shell", "image": "busybox", "command": ["sleep", "100000"]},
    ]
    spec = {
        "nodeName": node, "terminationGracePeriodSeconds": 0, "hostNetwork": host_network,
        "containers": containers[1:] if host_network else containers,
    }  # fmt: skip
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home: Path = tmp_path_factory.mktemp("dual") / "kubeconfig"
    name = f"t{os.getpid()}both"
    try:
        sampan("up", "--name", name, "--nodes", "2", "--ip-families", "IPv4,IPv6", kubeconfig=home)
        images = (str(ROOT / "images" / recipe) for recipe in ("busybox", "webapp"))
        sampan("image", "build", *images, "--name", name, kubeconfig=home)
        made = Cluster(configuration.existing(name))
        kubectl = made.kubectl("default")
        pods = [pod(f"on-{n}", f"node-{n}") for n in (1, 2)] + [pod("host", "node-1", host_network=True)]
        kubectl("apply", "-f", "-", stdin="\n".join(pods))
        kubectl.wait_ready("on-1", "on-2", "host")
        yield made
    finally:
        if configuration.load(name) is not None:
            config = configuration.existing(name)
            prefixes = [
                r.split("/")[0].removesuffix(":").removesuffix("0")
                for r in (*config.pod_cidrs, *config.node_subnets)
            ]
            sampan("delete", "--name", name, kubeconfig=home)
            words = [
                *prefixes,
                f"{config.bridge}-",
                f"{config.bridge} ",
                f" {config.bridge}:",
                config.masquerade_table,
            ]
            assert not [line for line in of_this_machine() if any(word in line for word in words)]


def of_this_machine() -> list[str]:
    """Its links, routes, neighbours and tables of nftables."""
    commands = (
        "ip -o link",
        "ip route show table all",
        "ip -6 route show table all",
        "ip neigh",
        "nft list tables",
    )
    return [line for c in commands for line in subprocess.check_output(c.split(), text=True).splitlines()]


def ips(cluster: Cluster, name: str, field: str = "podIPs") -> list[str]:
    return [
        one["ip"] for one in json.loads(cluster.kubectl("default").value(f"pod/{name}", f".status.{field}"))
    ]


def test_nodes_show_both_families(cluster: Cluster) -> None:
    for node in cluster.config.nodes:
        told = json.loads(cluster.kubectl("default")("get", "node", node, "-o", "json"))
        addresses = [a["address"] for a in told["status"]["addresses"] if a["type"] == "InternalIP"]
        assert tuple(addresses) == cluster.config.node_addresses(node)
        assert tuple(told["spec"]["podCIDRs"]) == cluster.config.node_pod_cidrs(node)
        assert told["spec"]["podCIDR"] == told["spec"]["podCIDRs"][0]
    cidrs = json.loads(cluster.kubectl("default").value("servicecidr/kubernetes", ".spec.cidrs"))
    assert tuple(cidrs) == cluster.config.service_cidrs


def test_pods_have_both_and_are_told(cluster: Cluster) -> None:
    kubectl = cluster.kubectl("default")
    for name, node in (("on-1", "node-1"), ("on-2", "node-2")):
        own = ips(cluster, name)
        ranges = cluster.config.node_pod_cidrs(node)
        assert [ip_address(a) in ip_network(r) for a, r in zip(own, ranges, strict=True)] == [True, True]
        assert tuple(ips(cluster, name, "hostIPs")) == cluster.config.node_addresses(node)
        environment = kubectl("exec", name, "-c", "server", "--", "env")
        assert f"IPS={','.join(own)}\n" in environment
        assert f"HOST_IPS={','.join(cluster.config.node_addresses(node))}\n" in environment
        hosts = kubectl("exec", name, "-c", "server", "--", "cat", "/etc/hosts")
        assert all(f"{address}\t{name}\n" in hosts for address in own)
    assert tuple(ips(cluster, "host")) == cluster.config.node_addresses("node-1")


def test_every_pod_reaches_every_pod_and_is_seen_by_its_own_address(cluster: Cluster) -> None:
    kubectl = cluster.kubectl("default")
    for here, there in itertools.permutations(("on-1", "on-2")):
        for own, other in zip(ips(cluster, here), ips(cluster, there), strict=True):
            url = f"http://[{other}]:8080/" if ":" in other else f"http://{other}:8080/"
            assert kubectl("exec", here, "-c", "shell", "--", "wget", "-q", "-O", "-", url) == own
