"""The process of a node's DNS: it answers while the node's agent is busy or starts anew.

It stays in the host's network, where the host's resolvers are, be they on its loopback; the sockets for questions are made in
the node's, so that nobody beyond pods, node and bridge can reach them. On a machine that joined, `here` is the same server in
the process of the node, on the machine's own network.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from sampan.cluster import logs, processes
from sampan.cluster.config import ClusterConfig
from sampan.cluster.link import PartLink
from sampan.cluster.owner import run_until_told, stop_event
from sampan.linux.syscalls import CLONE_NEWNET, setns
from sampan.network import dns_addresses

if TYPE_CHECKING:
    from sampan.client.types import Client

_SUFFIX = "-dns"


def part(node: str) -> str:
    """The name of a node's DNS among the parts of the supervisor."""
    return node + _SUFFIX


def node_of(part_name: str) -> str:
    """The node whose DNS a part is, "" for any other part."""
    return part_name.removesuffix(_SUFFIX) if part_name.endswith(_SUFFIX) else ""


class NodeSockets:
    """Makes sockets in a node's network. The calling thread is in it for that moment alone."""

    def __init__(self, netns: Path) -> None:
        self._own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._node = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)

    def bind(self, family: int, kind: int, address: str, port: int) -> socket.socket:
        from sampan.dns.listeners import bound_socket

        setns(self._node, CLONE_NEWNET)
        try:
            return bound_socket(family, kind, address, port)
        finally:
            setns(self._own, CLONE_NEWNET)


def run(config: ClusterConfig, node: str) -> None:
    """Answer for a node until SIGTERM. Blocks; makes its own loop. The node's namespaces must be there."""
    logs.configure(config.logging_format)
    processes.join(f"{config.node_cgroup(node)}/dns")
    netns = config.node_netns(node)
    dns_addresses.add(config.dns_addresses, str(netns))
    import uvloop

    uvloop.run(_serve(config, node, NodeSockets(netns)))


async def _serve(config: ClusterConfig, node: str, sockets: NodeSockets) -> None:
    from sampan.client.access import Access
    from sampan.client.https import HttpsClient
    from sampan.dns.server import DnsServer

    stop = stop_event()
    pki = config.directory / "pki"
    own = pki / "nodes" / node
    client = HttpsClient(
        Access(
            f"https://{config.bridge_address}:{config.api_port}",
            ca=pki / "ca.crt",
            certificate=own / "client.crt",
            key=own / "client.key",
        ),
        user_agent=f"sampan-dns/{node}",
    )
    link = PartLink(config.run_directory, part(node))

    def ready() -> None:
        gc.freeze()  # What is there now stays; looking through it again and again would hold answers up.
        link.ready(True)

    server = DnsServer(client, node_name=node, addresses=config.dns_addresses, bind=sockets.bind, ready=ready)
    try:
        await run_until_told({"link": link.run(), "dns": server.run()}, stop)
    finally:
        await client.close()


async def here(client: Client, node: str, addresses: tuple[str, ...]) -> None:
    """Answer for a machine that joined until cancelled; what is beyond it gets no answer. Raises OSError."""
    from sampan.dns.server import DnsServer
    from sampan.network.nftables import Family
    from sampan.network.nftables_monitor import NftablesMonitor
    from sampan.network.static_tables import StaticTable

    dns_addresses.add(addresses)
    try:
        await asyncio.to_thread(dns_addresses.shield, addresses)
        monitor = NftablesMonitor()
        async with asyncio.TaskGroup() as group:
            group.create_task(monitor.run(), name="changes of nf_tables")
            group.create_task(StaticTable(monitor, Family.INET, dns_addresses.TABLE).run(), name="shield")
            await DnsServer(client, node_name=node, addresses=addresses).run()
    finally:
        dns_addresses.remove(addresses)
        dns_addresses.unshield()
