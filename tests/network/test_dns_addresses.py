"""The addresses of the cluster's DNS in throw-away network namespaces: there, gone, and shut to the outside."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from sampan.network import dns_addresses
from sampan.network.netlink import in_namespace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
ADDRESSES = ("10.96.0.10", "fd00:10:96::a")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def namespaces() -> Iterator[tuple[str, str]]:
    """A node and a neighbour on one link, 192.0.2.1 and .2; the neighbour sends what is for the DNS to the node."""
    node, other = (f"dns-{os.getpid()}-{n}" for n in ("node", "other"))
    try:
        for name in (node, other):
            run("ip", "netns", "add", name)
        run("ip", "link", "add", "eth0", "netns", node, "type", "veth", "peer", "eth0", "netns", other)
        for name, address in ((node, "192.0.2.1/24"), (other, "192.0.2.2/24")):
            run("ip", "-n", name, "address", "add", address, "dev", "eth0")
            for link in ("lo", "eth0"):
                run("ip", "-n", name, "link", "set", link, "up")
        run("ip", "-n", other, "route", "add", "10.96.0.0/16", "via", "192.0.2.1")
        yield node, other
    finally:
        for name in (node, other):
            run("ip", "netns", "delete", name)


def shown(namespace: str) -> str:
    return run("ip", "-n", namespace, "address", "show", "dev", "lo").stdout


def reaches(namespace: str) -> bool:
    """Whether a packet gets there: nobody listens, which the kernel says at once."""

    def probe() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.5)
            sock.connect((ADDRESSES[0], 53))
            sock.send(b"x")
            try:
                sock.recv(1)
            except ConnectionRefusedError:
                return True
            except TimeoutError:
                return False
        raise AssertionError("somebody answered")

    return in_namespace(f"/run/netns/{namespace}", probe)


def test_shut_to_every_link_but_those_of_pods(namespaces: tuple[str, str]) -> None:
    """A machine may have more links than the one to the other nodes."""
    node, other = namespaces
    path = f"/run/netns/{node}"
    dns_addresses.add(ADDRESSES, path)
    in_namespace(path, lambda: dns_addresses.shield(ADDRESSES))
    for name, allowed in (("eth1", False), ("pod0123456789a", True)):
        run("ip", "-n", node, "link", "set", "eth0", "down")
        run("ip", "-n", node, "link", "set", "eth0", "name", name)
        run("ip", "-n", node, "link", "set", name, "up")
        assert reaches(other) is allowed
        run("ip", "-n", node, "link", "set", name, "down")
        run("ip", "-n", node, "link", "set", name, "name", "eth0")


def test_there_shut_and_gone(namespaces: tuple[str, str]) -> None:
    node, other = namespaces
    path = f"/run/netns/{node}"
    for _ in range(2):  # again changes nothing
        dns_addresses.add(ADDRESSES, path)
    assert all(a in shown(node) for a in ADDRESSES)
    assert reaches(other)
    in_namespace(path, lambda: dns_addresses.shield(ADDRESSES))
    assert not reaches(other)
    assert reaches(node)
    in_namespace(path, dns_addresses.unshield)
    assert reaches(other)
    for _ in range(2):
        in_namespace(path, lambda: dns_addresses.remove(ADDRESSES))
    assert not any(a in shown(node) for a in ADDRESSES)
