"""A server between two networks: questions come in a node's, and the host's resolver, which is on the host's loopback, is asked in the host's."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import dns.message
import pytest

from sampan.api.resources import CONFIGMAPS
from sampan.apiserver.app import App
from sampan.cluster.dns_process import NodeSockets
from sampan.dns.server import DnsServer
from sampan.network import dns_addresses
from sampan.network.netlink import in_namespace
from sampan.store.memory import MemoryStore
from tests.apiserver.conftest import config
from tests.controllers.conftest import running
from tests.dns.resolver import Upstream, lines

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
ADDRESSES = ("10.96.0.10", "fd00:10:96::a")
HOST = f"127.53.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"


@pytest.fixture
def node() -> Iterator[Path]:
    """A namespace with nothing but its loopback."""
    name = f"dns-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        dns_addresses.add(ADDRESSES, f"/run/netns/{name}")
        yield Path("/run/netns", name)
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def ask_inside(node: Path, address: str, name: str) -> list[str]:
    def ask() -> list[str]:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.connect((address, 53))
            sock.send(dns.message.make_query(name, "A").to_wire())
            return lines(dns.message.from_wire(sock.recv(4096)))

    return in_namespace(str(node), ask)


async def test_the_hosts_resolver_on_its_loopback_is_asked(node: Path, tmp_path: Path) -> None:
    resolv_conf = tmp_path / "resolv.conf"
    # The cluster's own address is in it as well, for the sake of those who look for its names on the host.
    resolv_conf.write_text(f"nameserver {ADDRESSES[0]}\nnameserver {HOST}\nsearch lan\n")
    app = App(MemoryStore(), config())
    await app.start()
    client = app.client()
    corefile = f". {{\n kubernetes cluster.local\n forward . {resolv_conf}\n}}\n"
    await client.create(CONFIGMAPS, {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "coredns", "namespace": "kube-system"},
        "data": {"Corefile": corefile},
    })  # fmt: skip
    ready = asyncio.Event()
    server = DnsServer(
        client, node_name="n", addresses=ADDRESSES, bind=NodeSockets(node).bind, ready=ready.set
    )
    async with Upstream(HOST, "www.example. 60 IN A 192.0.2.1").running() as upstream, running(server.run()):
        await asyncio.wait_for(ready.wait(), 20)
        for address in ADDRESSES:
            found = await asyncio.to_thread(ask_inside, node, address, "www.example.")
            assert found == ["NOERROR", "www.example. 60 IN A 192.0.2.1"]
            assert await asyncio.to_thread(ask_inside, node, address, "x.default.svc.cluster.local.") == [
                "NXDOMAIN"
            ]
        assert upstream.asked == ["www.example. A"] * 2
        # Outside the node nobody listens.
        assert not any(
            a in subprocess.run(["ss", "-Hlnu"], capture_output=True, text=True, check=True).stdout
            for a in ADDRESSES
        )
    await app.close()
