"""Two nodes and their pods, made for real in namespaces of the test's own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.linux.mounts import is_mount_point
from sampan.linux.syscalls import CLONE_NEWNS, MS_REC, MS_SLAVE, mount, unmount, unshare
from sampan.network import host, namespaces
from sampan.network.netlink import in_namespace
from sampan.network.pods import RoutedPodNetwork, link_name

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
BRIDGE, SUBNET, PODS = "t-net0", "172.28.250", "10.222"


class Nodes:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.mounts = root / "ns"
        self.links: list[host.NodeLink] = []
        self.pods: list[Path] = []

    def add(self, number: int) -> host.NodeLink:
        netns = namespaces.NETNS_DIRECTORY / f"t-net-{os.getpid()}-{number}"
        namespaces.create(netns, self.mounts / f"{number}", sysctls=host.NODE_SYSCTLS)
        link = host.NodeLink(
            netns, f"t-net0-{number}", (f"{SUBNET}.{number + 1}",), (f"{PODS}.{number}.0/24",)
        )
        host.ensure_node(BRIDGE, (f"{SUBNET}.1/24",), link)
        self.links.append(link)
        return link

    def pod(self, name: str) -> str:
        path = namespaces.NETNS_DIRECTORY / f"t-net-{os.getpid()}-{name}"
        subprocess.run(["ip", "netns", "add", path.name], check=True)
        self.pods.append(path)
        return str(path)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    made = Nodes(tmp_path)
    namespaces.prepare_directories(made.mounts)
    host.ensure_bridge(BRIDGE, (f"{SUBNET}.1/24",))
    try:
        yield made
    finally:
        for path in made.pods:
            subprocess.run(["ip", "netns", "del", path.name], check=True)
        host.remove(BRIDGE, [link.host_link for link in made.links])
        for number, link in enumerate(made.links, 1):
            namespaces.remove(link.netns, made.mounts / f"{number}")
        unmount(str(made.mounts))


async def _attach(node: host.NodeLink, leases: Path, sandbox: str, netns: str) -> str:
    network = in_namespace(str(node.netns), lambda: RoutedPodNetwork(node.pod_cidrs, node.addresses, leases))
    try:
        return (await network.attach(sandbox, netns)).ips[0]
    finally:
        network.close()


def _talk(client_ns: str | None, server_ns: str, address: str) -> str:
    """The client's address as the server sees it."""

    def listener() -> socket.socket:
        s = socket.create_server((address, 8765))
        s.settimeout(5)
        return s

    server = in_namespace(server_ns, listener)

    def connect() -> socket.socket:
        return socket.create_connection((address, 8765), 5)

    with server:
        client = in_namespace(client_ns, connect) if client_ns else connect()
        with client, server.accept()[0] as accepted:
            return str(accepted.getpeername()[0])


async def test_pods_nodes_and_the_host_reach_each_other_without_nat(nodes: Nodes, tmp_path: Path) -> None:
    node = nodes.add(1)
    first, second = nodes.pod("a"), nodes.pod("b")
    a = await _attach(node, tmp_path / "leases", "sandbox-a", first)
    b = await _attach(node, tmp_path / "leases", "sandbox-b", second)
    assert a != b
    assert _talk(first, second, b) == a
    assert _talk(second, first, a) == b
    assert _talk(str(node.netns), first, a) == node.addresses[0]
    assert _talk(None, first, a) == f"{SUBNET}.1"


async def test_no_pod_sends_under_the_address_of_another(nodes: Nodes, tmp_path: Path) -> None:
    """Nor of a node, a Service or anybody: what NetworkPolicies let pass, and who seems to answer, goes by addresses."""
    node = nodes.add(1)
    in_netns = ("ip", "netns", "exec", node.netns.name)
    subprocess.run(
        [*in_netns, "sysctl", "-qw", *(f"{k}={v}" for k, v in host.NODE_SYSCTLS6.items())], check=True
    )
    subprocess.run([*in_netns, "ip", "addr", "add", "fd00:250::2/64", "dev", "eth0", "nodad"], check=True)
    cidrs, addresses = (*node.pod_cidrs, "fd00:222::/64"), (*node.addresses, "fd00:250::2")
    host.masquerade_pods(node.netns, cidrs, (f"{SUBNET}.0/24", "fd00:250::/64"))
    network = in_namespace(str(node.netns), lambda: RoutedPodNetwork(cidrs, addresses, tmp_path / "leases"))
    netns = [nodes.pod(name) for name in ("a", "b", "c")]
    a, b, c = [(await network.attach(f"sandbox-{i}", path)).ips for i, path in enumerate(netns)]
    network.close()
    forged = (*b, *addresses, "10.96.0.10", "fd00:10:96::a", "192.0.2.1")
    for address in forged:
        command = ("addr", "add", address, "dev", "lo", *(("nodad",) if ":" in address else ()))
        subprocess.run(["ip", "-n", Path(netns[0]).name, *command], check=True)
    for family, own, there in zip((socket.AF_INET, socket.AF_INET6), a, c, strict=True):
        server = in_namespace(netns[2], lambda: socket.socket(family, socket.SOCK_DGRAM))  # noqa: B023
        with server:
            server.settimeout(5)
            server.bind((there, 8767))
            for source in (*(f for f in forged if (":" in f) is (":" in own)), own):
                with in_namespace(netns[0], lambda: socket.socket(family, socket.SOCK_DGRAM)) as client:  # noqa: B023
                    client.bind((source, 0))
                    client.sendto(source.encode(), (there, 8767))
            assert server.recv(100).decode() == own, "the last that was sent, and the first that got there"


async def test_no_pod_speaks_the_tunnel_of_the_nodes(nodes: Nodes, tmp_path: Path) -> None:
    """What a node gets by the tunnel it takes for another node's, with any address inside. Among pods the port is free."""

    def make() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    node = nodes.add(1)
    host.masquerade_pods(node.netns, node.pod_cidrs, (f"{SUBNET}.0/24",))
    a, b = nodes.pod("a"), nodes.pod("b")
    await _attach(node, tmp_path / "leases", "sandbox-a", a)
    other = await _attach(node, tmp_path / "leases", "sandbox-b", b)
    for where, address, free in (
        (str(node.netns), node.addresses[0], False),
        ("", f"{SUBNET}.1", False),
        (b, other, True),
    ):
        found = []
        with contextlib.ExitStack() as stack:
            for port in (4789, 4790):
                server = stack.enter_context(in_namespace(where, make) if where else make())
                server.bind((address, port))
                server.settimeout(5)
                with in_namespace(a, make) as client:
                    client.sendto(b"x", (address, port))
                found.append(server)
            assert found[1].recv(10) == b"x"
            found[0].setblocking(False)
            if free:
                assert found[0].recv(10) == b"x"
            else:
                with pytest.raises(BlockingIOError):
                    found[0].recv(10)


async def test_an_address_outlives_a_restart_and_is_free_after_detach(nodes: Nodes, tmp_path: Path) -> None:
    node = nodes.add(1)
    netns = nodes.pod("a")
    leases = tmp_path / "leases"
    ip = await _attach(node, leases, "sandbox-a", netns)
    assert await _attach(node, leases, "sandbox-a", netns) == ip, "attaching again changes nothing"
    network = in_namespace(str(node.netns), lambda: RoutedPodNetwork(node.pod_cidrs, node.addresses, leases))
    found = await network.addresses("sandbox-a")
    assert found is not None
    assert found.ips == (ip,)
    assert network.known() == {"sandbox-a"}
    for _ in range(2):
        await network.detach("sandbox-a", netns)
        assert await network.addresses("sandbox-a") is None
        assert not list(leases.iterdir())
    shown = subprocess.run(
        ["ip", "-n", node.netns.name, "-o", "link"], capture_output=True, text=True, check=True
    )
    assert link_name("sandbox-a") not in shown.stdout
    network.close()


async def test_a_namespace_that_is_not_there_is_one_clear_error(nodes: Nodes, tmp_path: Path) -> None:
    from sampan.network.types import NetworkError

    node = nodes.add(1)
    with pytest.raises(NetworkError, match="No such file or directory"):
        await _attach(node, tmp_path / "leases", "sandbox-x", "/run/netns/t-net-not-there")


def test_namespaces_are_kept_and_made_only_once(nodes: Nodes) -> None:
    node = nodes.add(1)
    before = os.stat(node.netns).st_ino
    namespaces.create(node.netns, nodes.mounts / "1", sysctls={})
    assert os.stat(node.netns).st_ino == before
    forwarding = in_namespace(str(node.netns), lambda: Path("/proc/sys/net/ipv4/ip_forward").read_text())
    assert forwarding.strip() == "1"


def test_a_route_of_the_host_that_overlaps_is_named(nodes: Nodes) -> None:
    assert host.overlapping([f"{SUBNET}.0/25", "198.51.100.0/24"]) == {f"{SUBNET}.0/25": f"{SUBNET}.0/24"}


def test_namespaces_are_kept_from_within_a_mount_namespace_too(tmp_path: Path) -> None:
    """As a service with PrivateTmp has one; made many times, for the ids that the kernel gives out are not in order."""

    def work() -> None:
        unshare(CLONE_NEWNS)
        mount("none", "/", flags=MS_REC | MS_SLAVE)
        namespaces.prepare_directories(tmp_path / "ns")
        for number in range(12):
            netns = namespaces.NETNS_DIRECTORY / f"t-net-{os.getpid()}-{number}"
            try:
                namespaces.create(netns, tmp_path / "ns" / f"{number}", sysctls={})
                assert is_mount_point(tmp_path / "ns" / f"{number}")
            finally:
                namespaces.remove(netns, tmp_path / "ns" / f"{number}")

    namespaces.run_forked(work)
