"""What a node consists of while it runs, whichever machine it is on: agent, server, proxy, routes.

The list `parts` in `run` is the whole of it; `node_process` runs it for the nodes of `sampan up`, `join_process` for a machine that
joined.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sampan.cluster import node_front_door, nodeport_addresses
from sampan.cluster.owner import run_until_told

if TYPE_CHECKING:
    from sampan.api.errors import Object
    from sampan.client.types import Client
    from sampan.node.agent import NodeAgent

HIDDEN_FROM_NODES = ("/sys/fs/cgroup/unified",)
"""Debian's crun refuses a host with v1 controllers and an almost empty v2 mount unless it does not see the latter."""

Tasks = dict[str, Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlace:
    """Where a node is and what belongs to it: its addresses and ranges, and its files on this machine. The process that
    runs it is inside its namespaces already. Of each plural there is one a family, the primary one first."""

    name: str
    addresses: tuple[str, ...]
    pod_cidrs: tuple[str, ...]
    """The node's own."""
    ranges_given: bool = False
    """The control plane gave them, and may give others: they are not ours to tell."""
    cluster_pod_cidrs: tuple[str, ...]
    service_cidrs: tuple[str, ...]
    dns_addresses: tuple[str, ...]
    """Where Pods find the cluster's DNS."""
    nodeport_addresses: tuple[str, ...] = ()
    """Where NodePorts are open: ranges, or what `nodeport_addresses` says."""
    uplink: str = "eth0"
    """The link that its address is on."""
    root: Path
    """What is kept."""
    run: Path
    """Sockets and what else goes with a boot."""
    cgroup: str
    images: Path
    registries: Path
    certificate: Path
    """What its server shows; `key` belongs to it. May be there only later, see `certified`."""
    key: Path
    client_ca: Path
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Object, ...] = ()
    ingress_log: Path | None = None
    """The access log of its front door; None: it has none."""
    ingress_as_told: bool = False
    """Whether the cluster itself tells whether it has one, and how: the configuration is not on this machine."""
    ingress_proxy_protocol: bool = False
    lease_seconds: int = 40
    """What its Lease promises."""

    @property
    def address(self) -> str:
        return self.addresses[0]


async def run(
    place: NodePlace,
    client: Client,
    stop: asyncio.Event,
    more: Tasks | None = None,
    certified: asyncio.Event | None = None,
) -> None:
    """Run a node until `stop` is set; its containers go on. `more` runs beside it; `certified` is set once the server has its
    certificate (None: it has it)."""
    from sampan.loadbalancer.speaker import Speaker
    from sampan.network import host_port_table
    from sampan.network.host_ports import HostPorts
    from sampan.network.nftables import Family
    from sampan.network.nftables_monitor import NftablesMonitor
    from sampan.network.pods import RoutedPodNetwork
    from sampan.network.routes import NodeRoutes
    from sampan.network.static_tables import StaticTable
    from sampan.networkpolicy.enforcement import NetworkPolicies
    from sampan.node.agent import NodeAgent
    from sampan.node.config import NodeConfig
    from sampan.node.images.service import LocalImages
    from sampan.node.images.store import ImageStore
    from sampan.node.runtime.oci import OciRuntime
    from sampan.proxy.proxy import Proxy

    network = RoutedPodNetwork(place.pod_cidrs, place.addresses, place.root / "leases")
    network.restore()
    images = LocalImages(ImageStore(place.images), place.registries)
    monitor = NftablesMonitor()
    host_ports = HostPorts(host_port_table.KernelTable(monitor.own))
    for family in (Family.IP, Family.IP6):
        monitor.watch(family, host_port_table.TABLE, host_ports.meddled)
    runtime = OciRuntime(
        state=str(place.root / "runtime"),
        run=str(place.run),
        images=images.image_status,
        network=network,
        host_ports=host_ports,
        cgroup_parent=place.cgroup,
    )
    policies = NetworkPolicies(client, node_name=place.name, monitor=monitor)
    agent = NodeAgent(
        client,
        runtime,
        images,
        NodeConfig(
            name=place.name,
            ip=place.address,
            further_ips=place.addresses[1:],
            root=place.root,
            pod_cidrs=() if place.ranges_given else place.pod_cidrs,
            cgroup_root=place.cgroup,
            labels=place.labels,
            taints=place.taints,
            lease_seconds=place.lease_seconds,
            cluster_dns=place.dns_addresses,
        ),
        guard=policies,
    )
    proxy = Proxy(
        client,
        node_name=place.name,
        node_addresses=place.addresses,
        pod_cidrs=place.cluster_pod_cidrs,
        service_cidrs=place.service_cidrs,
        node_port_addresses=nodeport_addresses.resolve(place.nodeport_addresses, place.addresses),
        own_pod_cidrs=place.pod_cidrs,
        monitor=monitor,
    )
    parts: Tasks = {
        "server": _serve(agent, place, certified),
        "agent": agent.run(),
        "changes of nf_tables": monitor.run(),
        **{
            f"masquerading of pods, {family.name}": StaticTable(monitor, family, "sampan-pods").run()
            for family in dict.fromkeys(
                Family.IP6 if ":" in r else Family.IP for r in place.cluster_pod_cidrs
            )
        },
        "host ports": host_ports.keep(),
        "proxy": proxy.run(),
        "load balancer": Speaker(
            client,
            node_name=place.name,
            address=place.address,
            uplink=place.uplink,
            networks=_networks(place.uplink),
        ).run(),
        "network policies": policies.run(),
        "routes": NodeRoutes(
            client, place.name, place.uplink, place.addresses, place.pod_cidrs, place.cluster_pod_cidrs
        ).run(),
    }
    parts["ingress"] = node_front_door.run(client, place, agent.registration)
    try:
        await run_until_told({**parts, **(more or {})}, stop)
    finally:
        network.close()


def _networks(uplink: str) -> list[str]:
    """The networks that a link of the process' namespace is in."""
    from sampan.network import links
    from sampan.network.netlink import NETLINK_ROUTE, Netlink

    netlink = Netlink(NETLINK_ROUTE)
    try:
        return links.networks_of(netlink, uplink)
    finally:
        netlink.close()


async def _serve(agent: NodeAgent, place: NodePlace, certified: asyncio.Event | None) -> None:
    """The node's own server, until cancelled."""
    from sampan.node.server import NodeServer

    if certified is not None:
        await certified.wait()
    server = NodeServer(
        agent.streams, certificate=place.certificate, key=place.key, client_ca=place.client_ca
    )
    try:
        await server.start(place.address)
        await asyncio.Event().wait()
    finally:
        await server.close()
