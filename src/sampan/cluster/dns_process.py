"""The process of a node's DNS: it answers while the node's agent is busy or starts anew.

It stays in the host's network, where the host's resolvers are, be they on its loopback; the sockets for questions are made in
the node's, so that nobody beyond pods, node and bridge can reach them. They are the supervisor's: questions that come while it
starts anew wait for it, and nobody is refused. On a machine that joined, `here` is the same server in
the process of the node, on the machine's own network.
"""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import socket
from collections import deque
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from sampan.cluster import logs, processes
from sampan.cluster.config import ClusterConfig
from sampan.cluster.link import PartLink
from sampan.cluster.node_client import node_client
from sampan.cluster.owner import run_until_told, stop_event
from sampan.linux.syscalls import CLONE_NEWNET, setns
from sampan.network import dns_addresses

if TYPE_CHECKING:
    from sampan.client.types import Client

_SUFFIX = "-dns"
_SIOCGSKNS = 0x894C
"""Of linux/sockios.h: a descriptor of the socket's network namespace."""


def part(node: str) -> str:
    """The name of a node's DNS among the parts of the supervisor."""
    return node + _SUFFIX


def node_of(part_name: str) -> str:
    """The node whose DNS a part is, "" for any other part."""
    return part_name.removesuffix(_SUFFIX) if part_name.endswith(_SUFFIX) else ""


class NodeSockets:
    """Makes sockets in a node's network. The calling thread is in it for that moment alone. Those of `opened` are used first."""

    def __init__(self, netns: Path, opened: Iterable[socket.socket] = ()) -> None:
        self._own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._node = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        self._opened: dict[tuple[int, IPv4Address | IPv6Address, int], deque[socket.socket]] = {}
        for sock in opened:
            address, port = sock.getsockname()[:2]
            self._opened.setdefault((sock.type, ip_address(address), port), deque()).append(sock)

    def bind(self, family: int, kind: int, address: str, port: int) -> socket.socket:
        from sampan.dns.listeners import bound_socket

        if opened := self._opened.get((kind, ip_address(address), port)):
            return opened.popleft()
        setns(self._node, CLONE_NEWNET)
        try:
            return bound_socket(family, kind, address, port)
        finally:
            setns(self._own, CLONE_NEWNET)

    def close(self) -> None:
        """The sockets that were made stay."""
        os.close(self._own)
        os.close(self._node)


def open_sockets(config: ClusterConfig, node: str, sockets: list[socket.socket]) -> None:
    """Have in `sockets` those for questions to a node, if they are not there yet. Raises OSError."""
    from sampan.dns.listeners import open_all

    netns = config.node_netns(node)
    if sockets and _network_of(sockets[0]) == netns.stat().st_ino:
        return
    for sock in sockets:  # of a network that has gone
        sock.close()
    sockets.clear()
    maker = NodeSockets(netns)
    try:
        sockets += open_all(config.dns_addresses, maker.bind)
    finally:
        maker.close()


def _network_of(sock: socket.socket) -> int:
    """The inode of the network namespace that a socket is in."""
    fd = fcntl.ioctl(sock, _SIOCGSKNS)
    try:
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)


def run(config: ClusterConfig, node: str, sockets: Iterable[socket.socket]) -> None:
    """Answer for a node until SIGTERM. Blocks; makes its own loop. The node's namespaces must be there."""
    logs.configure(config.logging_format)
    processes.join(f"{config.node_cgroup(node)}/dns")
    netns = config.node_netns(node)
    dns_addresses.add(config.dns_addresses, str(netns))
    import uvloop

    uvloop.run(_serve(config, node, NodeSockets(netns, sockets)))


async def _serve(config: ClusterConfig, node: str, sockets: NodeSockets) -> None:
    from sampan.dns.server import DnsServer

    stop = stop_event()
    client = node_client(config, node, "sampan-dns")
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
