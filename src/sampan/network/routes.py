"""Routes from a node to the pods of the others, kept by watching Nodes.

Nodes that share a network with this one are reached directly, the others through the tunnel (`vxlan`). Each route bears a protocol
number of ours, by which those that a process before this one left are found: what is right stays, the rest goes.

A node writes its Node itself, so no more is believed than it may claim: a range within those of the cluster's pods that no other
node has, and addresses that are addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from sampan.api.errors import Object
from sampan.api.resources import NODES
from sampan.client.informer import Informer
from sampan.client.types import Client
from sampan.network import links, vxlan
from sampan.network.netlink import NETLINK_ROUTE, Netlink, NetlinkError
from sampan.network.vxlan import Tunnel

log = logging.getLogger(__name__)
PROTOCOL = 83
"""Of our routes, as `ip route show proto 83` shows them."""
_FIRST_PAUSE, _MOST_PAUSE = 1.0, 60.0
"""Seconds until what the kernel refused for a node is tried again; each time twice as long."""


@dataclass(frozen=True, slots=True)
class Way:
    """How the pods of a node are reached: at `address`, the node's of that family or of the tunnel's."""

    node: str
    address: str
    tunnelled: bool


class NodeRoutes:
    """For the network namespace that the process is in; `uplink` is the link that leads to the other nodes, `addresses` and
    `pod_cidrs` are the node's own, one a family; `cluster_pod_cidrs` are those that all nodes' are of."""

    def __init__(
        self,
        client: Client,
        node_name: str,
        uplink: str,
        addresses: Sequence[str],
        pod_cidrs: Sequence[str],
        cluster_pod_cidrs: Sequence[str],
    ) -> None:
        self._node_name = node_name
        self._uplink = uplink
        self._version = ipaddress.ip_address(addresses[0]).version
        self._pod_cidrs = list(pod_cidrs)
        self._within = [ipaddress.ip_network(c) for c in cluster_pod_cidrs]
        self._nodes = Informer(client, NODES)
        self._netlink = Netlink(NETLINK_ROUTE)
        self._networks = [ipaddress.ip_interface(n).network for n in links.networks_of(self._netlink, uplink)]
        self._tunnel = Tunnel(self._netlink, node_name, addresses[0], uplink)
        self._device = 0
        self._ways: dict[str, Way] = {}
        self._failed: dict[str, tuple[float, asyncio.TimerHandle]] = {}
        """By node: how long it waits, and for what."""

    async def run(self) -> None:
        """Until cancelled; the routes stay."""
        self._nodes.add_handler(self._changed)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._nodes.run(), name="nodes")
                await self._nodes.synced.wait()
                self._clear_away()
        finally:
            for _, timer in self._failed.values():
                timer.cancel()
            self._netlink.close()

    def _changed(self, old: Object | None, new: Object | None) -> None:
        name = (new or old or {})["metadata"]["name"]
        if name == self._node_name:
            return
        if name in self._failed:
            self._try_again(name, new)
        else:
            before = {p for p in self._ways_of(old) if p in self._ways and self._ways[p].node == name}
            self._follow(name, before, new)

    def _try_again(self, name: str, node: Object | None) -> None:
        """After a failure what there is of a node may be of any state that it ever had."""
        self._failed[name][1].cancel()
        self._follow(name, {pods for pods, way in self._ways.items() if way.node == name}, node)

    def _follow(self, name: str, before: set[str], node: Object | None) -> None:
        """Have the ways to a node as it is now, where `before` are the ranges that lead to it."""
        come = self._ways_of(node)
        gone = before - come.keys()
        try:
            for pods in gone:
                self._forget(pods)
            for pods, way in come.items():
                present = self._ways.get(pods)
                if present is not None and present.node != name:
                    log.warning("%s are the pods of %s: %s does not get them", pods, present.node, name)
                elif present != way:
                    self._make(pods, way)
        except NetlinkError as e:
            pause = min(self._failed[name][0] * 2, _MOST_PAUSE) if name in self._failed else _FIRST_PAUSE
            log.warning("route to the pods of %s, tried again in %.0f s: %s", name, pause, e)
            again = asyncio.get_running_loop().call_later(
                pause, lambda: self._try_again(name, self._nodes.get("", name))
            )
            self._failed[name] = (pause, again)
        else:
            self._failed.pop(name, None)
        if freed := gone - self._ways.keys():
            self._inherit(freed)

    def _inherit(self, freed: set[str]) -> None:
        """Give ranges that a node gave up to one that has claimed them meanwhile."""
        for node in self._nodes.list():
            if freed & self._ways_of(node).keys():
                self._changed(None, node)

    def _ways_of(self, node: Object | None) -> dict[str, Way]:
        """The ways to the pod ranges of a node."""
        spec, status = ((node or {}).get(part) or {} for part in ("spec", "status"))
        ranges = spec.get("podCIDRs") or [c for c in (spec.get("podCIDR"),) if c]
        told: dict[int, str] = {}
        for address in status.get("addresses") or ():
            with contextlib.suppress(ValueError):
                if address.get("type") == "InternalIP":
                    told.setdefault(ipaddress.ip_address(address["address"]).version, address["address"])
        found = {}
        for pods in filter(self._may_be, ranges):
            own = told.get(ipaddress.ip_network(pods).version)
            tunnelled = own is None or not self._near(own)
            address = told.get(self._version) if tunnelled else own
            if node is not None and address:
                found[pods] = Way(node["metadata"]["name"], address, tunnelled)
        return found

    def _may_be(self, pods: str) -> bool:
        """Whether a range is one of pods that are not this node's."""
        network = ipaddress.ip_network(pods)
        own = map(ipaddress.ip_network, self._pod_cidrs)
        return not any(o.version == network.version and o.overlaps(network) for o in own) and any(
            w.version == network.version and network.subnet_of(w)  # type: ignore[arg-type]
            for w in self._within
        )

    def _near(self, address: str) -> bool:
        where = ipaddress.ip_address(address)
        return any(where in n for n in self._networks)

    def _make(self, pods: str, way: Way) -> None:
        before = self._ways.get(pods)
        if not way.tunnelled:
            uplink = links.index_of(self._netlink, self._uplink) or 0
            self._netlink.request([links.route(pods, uplink, via=way.address, protocol=PROTOCOL)])
            self._ways[pods] = way
        else:
            self._device = self._device or self._tunnel.ensure(self._pod_cidrs)
            there = vxlan.inner(pods)
            version = ipaddress.ip_network(pods).version
            source = next(
                (vxlan.inner(c) for c in self._pod_cidrs if ipaddress.ip_network(c).version == version), ""
            )
            self._netlink.request(
                [
                    vxlan.forwarding(self._device, way.node, way.address),
                    links.neighbour(self._device, there, vxlan.mac_of(way.node)),
                    links.route(pods, self._device, via=there, source=source, onlink=True, protocol=PROTOCOL),
                ]
            )
            self._ways[pods] = way
        if before is not None and before.tunnelled:
            self._forget_end(pods, before)

    def _forget(self, pods: str) -> None:
        self._netlink.request([links.delete_route(pods)], ignore=(errno.ESRCH,))
        way = self._ways.pop(pods)
        if way.tunnelled:
            self._forget_end(pods, way)

    def _forget_end(self, pods: str, way: Way) -> None:
        """What the tunnel knew of a node, as far as no other way needs it."""
        tunnelled = [w for w in self._ways.values() if w.tunnelled]
        if not any((w.node, w.address) == (way.node, way.address) for w in tunnelled):
            vxlan.forget_forwarding(self._netlink, self._device, way.node, way.address)
        now = self._ways.get(pods)
        if now is None or not now.tunnelled:
            vxlan.forget_neighbour(self._netlink, self._device, vxlan.inner(pods))

    def _clear_away(self) -> None:
        """Once all Nodes are known: take away what is left of those that went while nobody looked."""
        try:
            for family in (socket.AF_INET, socket.AF_INET6):
                for destination, _, _ in links.routes(self._netlink, family, protocol=PROTOCOL):
                    if destination not in self._ways:
                        self._netlink.request([links.delete_route(destination)], ignore=(errno.ESRCH,))
            if not any(way.tunnelled for way in self._ways.values()):
                self._tunnel.remove()
                self._device = 0
        except NetlinkError as e:
            log.warning("routes that nobody needs: %s", e)
