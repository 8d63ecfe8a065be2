"""Ways between nodes: machines in namespaces behind a router that knows nothing of pods, with the real routes and pod network."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from sampan.api.errors import Object
from sampan.network import links, routes, vxlan
from sampan.network.netlink import Message, NetlinkError, in_namespace
from sampan.network.pods import RoutedPodNetwork
from sampan.network.routes import NodeRoutes

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_MTU = 10, 2, 14
CLUSTER = ("10.222.0.0/16", "fd00:222::/32")
PREFIX = f"overlay-{os.getpid()}"


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@dataclass
class Machine:
    """A namespace with an uplink to the router, in a subnet that may be another machine's, too."""

    name: str
    netns: str
    addresses: tuple[str, str]
    pod_cidrs: tuple[str, str]
    routes: NodeRoutes
    network: RoutedPodNetwork

    def node(self) -> Object:
        return {
            "metadata": {"name": self.name},
            "spec": {"podCIDR": self.pod_cidrs[0], "podCIDRs": list(self.pod_cidrs)},
            "status": {"addresses": [{"type": "InternalIP", "address": a} for a in self.addresses]},
        }

    def shown(self) -> str:
        return ip("-n", self.netns, "route") + ip("-n", self.netns, "-6", "route")


class Site:
    """A router with a bridge a subnet; `underlay` is which family the machines know themselves by first."""

    def __init__(self, stack: ExitStack, root: Path) -> None:
        self.stack, self.root = stack, root
        self.router = self.namespace("router")
        self.machines: list[Machine] = []
        for subnet in (1, 2):
            for words in (
                f"link add s{subnet} type bridge", f"link set s{subnet} up",
                f"addr add 192.0.{subnet}.1/24 dev s{subnet}", f"addr add 2001:db8:{subnet}::1/64 dev s{subnet} nodad",
            ):  # fmt: skip
                ip("-n", self.router, *words.split())

    def namespace(self, name: str) -> str:
        made = f"{PREFIX}-{name}"
        ip("netns", "add", made)
        self.stack.callback(ip, "netns", "del", made)
        switches = (
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
            "net.ipv4.conf.all.rp_filter=0",
        )
        subprocess.run(["ip", "netns", "exec", made, "sysctl", "-qw", *switches], check=True)
        ip("-n", made, "link", "set", "lo", "up")
        return made

    def machine(self, subnet: int, *, ipv6_first: bool = False) -> Machine:
        number = len(self.machines) + 1
        name = f"m{number}"
        netns = self.namespace(name)
        ip("link", "add", "up0", "netns", netns, "type", "veth", "peer", "name", name, "netns", self.router)
        ip("-n", self.router, "link", "set", name, "master", f"s{subnet}", "up")
        ip("-n", netns, "link", "set", "up0", "up")
        addresses = (f"192.0.{subnet}.{number + 1}", f"2001:db8:{subnet}::{number + 1}")
        ip("-n", netns, "addr", "add", f"{addresses[0]}/24", "dev", "up0")
        ip("-n", netns, "addr", "add", f"{addresses[1]}/64", "dev", "up0", "nodad")
        ip("-n", netns, "route", "add", "default", "via", f"192.0.{subnet}.1")
        ip("-n", netns, "route", "add", "default", "via", f"2001:db8:{subnet}::1")
        pods = (f"10.222.{number}.0/24", f"fd00:222:{number}::/64")
        own = (addresses[1], addresses[0]) if ipv6_first else addresses
        made = Machine(name, netns, own, pods, *self.parts(name, netns, own, pods))
        self.stack.callback(made.network.close)
        self.machines.append(made)
        return made

    def parts(
        self, name: str, netns: str, addresses: tuple[str, str], pods: tuple[str, str]
    ) -> tuple[NodeRoutes, RoutedPodNetwork]:
        def make() -> tuple[NodeRoutes, RoutedPodNetwork]:
            return (
                NodeRoutes(None, name, "up0", addresses, pods, CLUSTER),  # type: ignore[arg-type]
                RoutedPodNetwork(pods, addresses, self.root / name),
            )

        return in_namespace(f"/run/netns/{netns}", make)

    def introduce(self) -> None:
        for one in self.machines:
            for other in self.machines:
                one.routes._changed(None, other.node())

    async def pod(self, machine: Machine) -> tuple[str, tuple[str, ...]]:
        """Its namespace and its addresses."""
        netns = f"/run/netns/{self.namespace(f'pod-{machine.name}')}"
        return netns, (await machine.network.attach(f"sandbox-{machine.name}", netns)).ips


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(stack, tmp_path)


def carried(client_ns: str, server_ns: str, address: str, size: int) -> str:
    """Send `size` bytes; who the server saw."""
    version = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = in_namespace(server_ns, lambda: socket.create_server((address, 8765), family=version))
    server.settimeout(5)
    with server:
        client = in_namespace(client_ns, lambda: socket.create_connection((address, 8765), 5))
        with client, server.accept()[0] as accepted:
            accepted.settimeout(5)
            sent = got = 0
            while got < size:
                if sent < size:
                    sent += client.send(bytes(min(60_000, size - sent)))
                got += len(accepted.recv(1 << 20))
            return str(accepted.getpeername()[0])


def whole_packets(client_ns: str, server_ns: str, address: str, size: int) -> tuple[int, int]:
    """Send one datagram of `size` bytes that must not be cut, and one that is a byte longer: what came of the first, and the length
    of packets that the sender was told after the second."""
    server = in_namespace(server_ns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    client = in_namespace(client_ns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with server, client:
        server.settimeout(5)
        server.bind((address, 8766))
        client.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        client.connect((address, 8766))
        client.send(bytes(size))
        received = len(server.recv(65_535))
        with pytest.raises(OSError, match="Message too long"):
            client.send(bytes(size + 1))
        return received, client.getsockopt(socket.IPPROTO_IP, IP_MTU)


@pytest.mark.parametrize("ipv6_first", [False, True])
async def test_pods_of_all_machines_reach_each_other_without_nat(site: Site, ipv6_first: bool) -> None:
    """By the network where it is shared, by the tunnel (over IPv4 or IPv6) where it is not; both families inside; also what is
    more than one packet can carry."""
    machines = [site.machine(subnet, ipv6_first=ipv6_first) for subnet in (1, 1, 2)]
    site.introduce()
    pods = [await site.pod(m) for m in machines]
    for here, own in pods:
        for there, other in pods:
            for mine, address in zip(own, other, strict=True):
                if here != there:
                    assert carried(here, there, address, 500_000) == mine
    near, far = machines[0], machines[2]
    assert "10.222.2.0/24 via 192.0.1.3 dev up0 proto 83" in near.shown()
    assert f"10.222.3.0/24 via 10.222.3.0 dev {vxlan.DEVICE} proto 83" in near.shown()
    assert f"fd00:222:3::/64 via fd00:222:3:: dev {vxlan.DEVICE}" in near.shown()
    mtu = 1500 - vxlan.OVERHEAD[6 if ipv6_first else 4]
    assert f" mtu {mtu} " in ip("-n", near.netns, "link", "show", vxlan.DEVICE)
    # A packet that must not be cut passes up to the length that the sender is told, and no further.
    received, told = whole_packets(pods[0][0], pods[2][0], pods[2][1][0], mtu - 28)
    assert (received, told) == (mtu - 28, mtu)
    assert carried(f"/run/netns/{far.netns}", pods[0][0], pods[0][1][0], 10) == "10.222.3.0", (
        "a node has its tunnel's address"
    )


async def test_a_node_is_followed_and_forgotten(site: Site) -> None:
    one, two = site.machine(1), site.machine(2)
    empty = one.shown()
    site.introduce()
    moved = two.node()
    moved["status"]["addresses"] = [
        {"type": "InternalIP", "address": a} for a in ("192.0.2.77", "2001:db8:2::77")
    ]
    one.routes._changed(two.node(), moved)
    entries = subprocess.run(["ip", "netns", "exec", one.netns, "bridge", "fdb", "show", "dev", vxlan.DEVICE], capture_output=True, text=True, check=True).stdout  # fmt: skip
    assert f"{vxlan.mac_of('m2')} dst 192.0.2.77 " in entries
    assert "192.0.2.3" not in entries
    one.routes._changed(moved, None)
    one.routes._clear_away()
    assert one.shown() == empty


async def test_what_the_kernel_refuses_is_tried_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node becomes known while the uplink is down; later the kernel refuses to take its route away."""
    monkeypatch.setattr(routes, "_FIRST_PAUSE", 0.01)
    one, two = site.machine(1), site.machine(1)
    ip("-n", one.netns, "link", "set", "up0", "down")
    one.routes._nodes._objects["m2"] = two.node()
    one.routes._changed(None, two.node())
    assert not one.routes._ways
    ip("-n", one.netns, "link", "set", "up0", "up")
    ip("-n", one.netns, "addr", "replace", f"{one.addresses[1]}/64", "dev", "up0", "nodad")
    async with asyncio.timeout(20):
        while one.routes._failed:
            await asyncio.sleep(0.01)
    assert set(one.routes._ways) == set(two.pod_cidrs)
    for pods in two.pod_cidrs:
        assert pods in one.shown()
    real = links.delete_route
    refused: list[str] = []

    def delete_route(destination: str) -> Message:
        if not refused:
            refused.append(destination)
            raise NetlinkError(errno.EBUSY, "refused")
        return real(destination)

    monkeypatch.setattr(links, "delete_route", delete_route)
    del one.routes._nodes._objects["m2"]
    one.routes._changed(two.node(), None)
    assert refused[0] in one.routes._ways
    async with asyncio.timeout(20):
        while one.routes._failed:
            await asyncio.sleep(0.01)
    assert not one.routes._ways
    for pods in two.pod_cidrs:
        assert pods not in one.shown()


async def test_a_node_claims_no_more_than_it_may(site: Site) -> None:
    """What it writes into its Node reaches every other node."""
    one, two = site.machine(1), site.machine(1)
    site.introduce()
    right = one.shown()
    rogue = two.node()
    rogue["metadata"]["name"] = "rogue"
    rogue["status"]["addresses"].insert(0, {"type": "InternalIP", "address": "none"})
    too_much = (
        "0.0.0.0/0",
        "10.96.0.0/16",
        "192.0.1.0/24",
        "10.222.0.0/16",
        "10.222.1.128/25",
        "::/0",
        "fd00::/16",
    )
    rogue["spec"]["podCIDRs"] = [*too_much, *two.pod_cidrs]
    one.routes._changed(None, rogue)
    assert one.shown() == right
    # What another had is free once that is gone.
    one.routes._nodes._objects["rogue"] = rogue
    one.routes._changed(two.node(), None)
    assert one.routes._ways["10.222.2.0/24"].node == "rogue"
    assert one.shown() == right


async def test_a_restart_keeps_what_is_right_and_clears_the_rest_away(site: Site) -> None:
    one, two = site.machine(1), site.machine(2)
    site.introduce()
    before = one.shown()
    ip("-n", one.netns, "route", "add", "10.222.9.0/24", "via", "192.0.1.1", "proto", "83")
    again, _ = site.parts(one.name, one.netns, one.addresses, one.pod_cidrs)
    again._changed(None, two.node())
    again._clear_away()
    assert one.shown() == before
