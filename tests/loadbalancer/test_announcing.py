"""Speakers on a real bridge, each a process in a namespace of its own: who answers for an address, and who when that one fails."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.loadbalancer import neighbours
from sampan.loadbalancer.election import elect
from sampan.network import links
from sampan.network.netlink import NETLINK_ROUTE, Netlink, in_namespace

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
ROOT = Path(__file__).resolve().parent.parent.parent
NODES = {"node-1": "192.0.2.2", "node-2": "192.0.2.3"}
ADDRESS, ADDRESS6 = "192.0.2.200", "2001:db8::200"
SECONDS = 15.0


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Network:
    """A hub with a bridge, and the nodes on it. `heard` is a socket that hears all that the bridge does."""

    def __init__(self) -> None:
        self.name = f"lb-{os.getpid()}"
        self.hub = f"/run/netns/{self.name}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.macs: dict[bytes, str] = {}
        ip("netns", "add", self.name)
        ip("-n", self.name, "link", "add", "br0", "type", "bridge")
        ip("-n", self.name, "address", "add", "192.0.2.1/24", "dev", "br0")
        ip("-n", self.name, "address", "add", "2001:db8::1/64", "dev", "br0", "nodad")
        ip("-n", self.name, "link", "set", "br0", "up")
        for node, address in NODES.items():
            self._node(node, address)
        self.heard = in_namespace(self.hub, self._listen)
        self.mac = bytes(self.heard.getsockname()[4])

    def _node(self, node: str, address: str) -> None:
        there = f"{self.name}-{node}"
        ip("netns", "add", there)
        ip("-n", self.name, "link", "add", node, "type", "veth", "peer", "name", "eth0", "netns", there)
        ip("-n", self.name, "link", "set", node, "master", "br0", "up")
        ip("-n", there, "address", "add", f"{address}/24", "dev", "eth0")
        ip("-n", there, "address", "add", f"2001:db8::{address[-1]}/64", "dev", "eth0", "nodad")
        ip("-n", there, "link", "set", "lo", "up")
        ip("-n", there, "link", "set", "eth0", "up")
        self.macs[in_namespace(f"/run/netns/{there}", lambda: _mac("eth0"))] = node

    def _listen(self) -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        sock.bind(("br0", 3))
        sock.settimeout(0.2)
        return sock

    def start(self, node: str, *addresses: str) -> None:
        nodes = ",".join(f"{k}={v}" for k, v in NODES.items())
        program = [
            sys.executable,
            "-m",
            "tests.loadbalancer.speaker_process",
            node,
            nodes,
            ",".join(addresses),
        ]
        self.processes[node] = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{self.name}-{node}", *program], cwd=ROOT
        )

    def end(self, node: str, number: int) -> None:
        process = self.processes.pop(node)
        process.send_signal(number)
        process.wait(10)

    def close(self) -> None:
        for node in list(self.processes):
            self.end(node, signal.SIGKILL)
        self.heard.close()
        for node in NODES:
            ip("netns", "del", f"{self.name}-{node}")
        ip("netns", "del", self.name)

    def until(self, address: str, holds: Callable[[str], bool]) -> str:
        """Ask who has an address until that is as it should be."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            found = self.ask(address)
            if holds(found):
                return found
        raise AssertionError(f"{address} is with {found!r}")

    def ask(self, address: str) -> str:
        """The node that answers a question about an address first, "" if none does for a moment."""
        self.heard.send(_question(address, self.mac))
        found = self.hear(address, 0.3, lambda frame: frame[:6] == self.mac)
        return found[0] if found else ""

    def hear(
        self, address: str, seconds: float = SECONDS, wanted: Callable[[bytes], bool] = lambda f: True
    ) -> list[str]:
        """Wait for a word that says who has an address; [] if none comes."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(TimeoutError):
                frame = self.heard.recv(2048)
                if _claims(frame, address) and wanted(frame):
                    return [self.macs[frame[6:12]]]
        return []


def _mac(interface: str) -> bytes:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((interface, 0))
        return bytes(sock.getsockname()[4])


def _question(address: str, mac: bytes) -> bytes:
    target = ipaddress.ip_address(address)
    if target.version == 4:
        head = b"\xff" * 6 + mac + bytes.fromhex("0806 0001 0800 06 04 0001")
        return head + mac + ipaddress.ip_address("192.0.2.1").packed + b"\0" * 6 + target.packed
    source, group = ipaddress.ip_address("2001:db8::1").packed, neighbours.solicited_node(target).packed
    body = struct.pack("!BBHI", 135, 0, 0, 0) + target.packed + b"\1\1" + mac
    pseudo = source + group + struct.pack("!II", len(body), 58)
    body = body[:2] + struct.pack("!H", neighbours._checksum(pseudo + body)) + body[4:]
    head = b"\x33\x33" + group[-4:] + mac + bytes.fromhex("86dd")
    return head + struct.pack("!IHBB", 0x60000000, len(body), 58, 255) + source + group + body


def _claims(frame: bytes, address: str) -> bool:
    """Whether somebody says to have an address (a probe from 0.0.0.0 does not)."""
    wanted = ipaddress.ip_address(address).packed
    if frame[12:14] == b"\x08\x06":
        return frame[28:32] == wanted
    return frame[12:14] == b"\x86\xdd" and frame[54:55] == b"\x88" and frame[62:78] == wanted


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network()
    try:
        yield made
    finally:
        made.close()


def chosen(address: str) -> tuple[str, str]:
    """The node that an address falls to, and the other one."""
    first = elect(ipaddress.ip_address(address), NODES)
    return first, next(n for n in NODES if n != first)


def test_one_node_answers_and_the_other_when_its_process_its_link_or_it_ends(network: Network) -> None:
    first, second = chosen(ADDRESS)
    for node in NODES:
        network.start(node, ADDRESS)
    assert network.hear(ADDRESS) == [first], "the word that nobody asked for"
    assert network.ask(ADDRESS) == first
    # Killed: the neighbours are told, and who asks hears the same.
    network.end(first, signal.SIGKILL)
    assert network.hear(ADDRESS, wanted=lambda f: network.macs[f[6:12]] == second) == [second]
    assert network.ask(ADDRESS) == second
    # Back again: it takes over, for every node computes the same.
    network.start(first, ADDRESS)
    network.until(ADDRESS, lambda node: node == first)
    # Stopped: it is there, and says nothing.
    network.processes[first].send_signal(signal.SIGSTOP)
    network.until(ADDRESS, lambda node: node == second)
    network.processes[first].send_signal(signal.SIGCONT)
    network.until(ADDRESS, lambda node: node == first)
    # Cut off.
    ip("-n", network.name, "link", "set", first, "down")
    network.until(ADDRESS, lambda node: node == second)
    ip("-n", network.name, "link", "set", first, "up")
    network.until(ADDRESS, lambda node: node == first)
    # Ended in good order: the other one need not wait.
    network.end(first, signal.SIGTERM)
    assert network.hear(ADDRESS, wanted=lambda f: network.macs[f[6:12]] == second) == [second]


def test_the_same_by_neighbour_discovery(network: Network) -> None:
    first, second = chosen(ADDRESS6)
    for node in NODES:
        network.start(node, ADDRESS6)
    assert network.hear(ADDRESS6) == [first]
    assert network.ask(ADDRESS6) == first
    # The hub's own kernel takes the answer for good.
    probe = ["ip", "netns", "exec", network.name, "ping", "-6", "-c1", "-W1", ADDRESS6]
    if (Path("/usr/bin/ping")).exists() or (Path("/bin/ping")).exists():
        subprocess.run(probe, check=False, capture_output=True)
        shown = subprocess.run(
            ["ip", "-n", network.name, "-6", "neigh", "show", ADDRESS6], capture_output=True, text=True, check=True
        ).stdout  # fmt: skip
        assert bytes.fromhex(shown.split("lladdr ")[1].split()[0].replace(":", "")) in network.macs
    network.end(first, signal.SIGKILL)
    network.until(ADDRESS6, lambda node: node == second)


def test_nothing_that_listens_on_the_node_is_reached_at_the_address(network: Network) -> None:
    first, _ = chosen(ADDRESS)
    there = f"/run/netns/{network.name}-{first}"
    server = in_namespace(there, lambda: socket.create_server(("0.0.0.0", 8080)))
    with server:
        network.start(first, ADDRESS)
        network.until(ADDRESS, lambda node: node == first)

        def connect(address: str) -> None:
            socket.create_connection((address, 8080), 1).close()

        in_namespace(network.hub, lambda: connect(NODES[first]))
        with pytest.raises(OSError):
            in_namespace(network.hub, lambda: connect(ADDRESS))


def test_the_networks_of_a_link(network: Network) -> None:
    def networks() -> list[str]:
        netlink = Netlink(NETLINK_ROUTE)
        try:
            return links.networks_of(netlink, "eth0")
        finally:
            netlink.close()

    assert in_namespace(f"/run/netns/{network.name}-node-1", networks) == ["192.0.2.2/24", "2001:db8::2/64"]
