"""The host's way to further ranges of Service addresses (ServiceCIDRs), through the first node.

Pods and nodes need no route: their packets are translated where they begin. The range that the cluster was made with has
its route from `prepare_node`. A range that something else on this host is reached by already gets none, and an Event
that says so.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging

from sampan.api.errors import Object
from sampan.api.resources import SERVICECIDRS
from sampan.client.events import Recorder
from sampan.client.informer import Informer
from sampan.client.types import Client
from sampan.network import links
from sampan.network.netlink import NETLINK_ROUTE, Netlink, NetlinkError

log = logging.getLogger(__name__)


class ServiceRoutes:
    """Routes of the namespace that the process is in: through `bridge`, to the node at `node_address`."""

    def __init__(self, client: Client, bridge: str, node_address: str, service_cidr: str) -> None:
        self._cidrs = Informer(client, SERVICECIDRS)
        self._recorder = Recorder(client, "sampan-service-routes")
        self._bridge = bridge
        self._node_address = node_address
        self._own = ipaddress.ip_network(service_cidr)
        self._made: set[str] = set()

    async def run(self) -> None:
        """Until cancelled; the routes go with the bridge."""
        netlink = Netlink(NETLINK_ROUTE)
        try:
            self._cidrs.add_handler(lambda old, new: self._changed(netlink, old, new))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._cidrs.run(), name="servicecidrs")
                group.create_task(self._recorder.run(), name="events of service routes")
        finally:
            netlink.close()

    def _wanted(self, cidr: Object | None) -> set[str]:
        if cidr is None:
            return set()
        networks = map(ipaddress.ip_network, cidr["spec"].get("cidrs") or ())
        return {str(n) for n in networks if n.version == 4 and not self._covered(n)}

    def _covered(self, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
        own = self._own
        return isinstance(network, ipaddress.IPv4Network) and isinstance(own, ipaddress.IPv4Network) and network.subnet_of(own)  # fmt: skip

    def _changed(self, netlink: Netlink, old: Object | None, new: Object | None) -> None:
        still = {c for obj in self._cidrs.list() for c in self._wanted(obj)}
        for cidr in (self._wanted(old) - still) & self._made:
            self._made.discard(cidr)
            try:
                netlink.request([links.delete_route(cidr)], ignore=(errno.ESRCH,))
            except NetlinkError as e:
                log.warning("route to %s: %s", cidr, e)
        for cidr in self._wanted(new) - self._made:
            why = self._add(netlink, cidr)
            if why and new is not None:
                message = f"This machine gets no route to {cidr}: {why}. Pods and nodes reach its Services all the same."
                log.warning("ServiceCIDR %s: %s", new["metadata"]["name"], message)
                self._recorder.event(new, "Warning", "NotRouted", message)

    def _add(self, netlink: Netlink, cidr: str) -> str:
        """Why not, or "" where it is done."""
        try:
            index = links.index_of(netlink, self._bridge)
            if index is None:
                return f"there is no link {self._bridge}"
            network = ipaddress.ip_network(cidr)
            for destination, gateway, link in links.routes(netlink):
                there = ipaddress.ip_network(destination)
                ours = (destination, gateway, link) == (cidr, self._node_address, index)
                if there.prefixlen and not ours and there.overlaps(network):
                    return f"its addresses overlap with {destination}, which is reached another way"
            netlink.request([links.route(cidr, index, via=self._node_address)])
        except NetlinkError as e:
            return str(e)
        self._made.add(cidr)
        return ""
