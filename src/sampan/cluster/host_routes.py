"""This machine's way to addresses that objects of the API speak of: a route for each network, as long as an object wants it.

A network that something else on this machine is reached by already gets none, and an Event that says so.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
from collections.abc import Iterable, Mapping

from sampan.api.errors import Object
from sampan.api.resources import Resource
from sampan.client.events import Recorder
from sampan.client.informer import Informer
from sampan.client.types import Client
from sampan.network import links
from sampan.network.netlink import NETLINK_ROUTE, Netlink, NetlinkError

log = logging.getLogger(__name__)
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class HostRoutes:
    """Routes of the namespace that the process is in through `bridge`: to the gateway of a network's IP version, or to neighbours
    where that is "". Whoever derives from it says which networks an object wants; those of a version without a gateway get no
    route, and none that `own` covers."""

    component = ""
    """Whose events they are."""
    otherwise = ""
    """What a Service loses all the same where there is no route."""

    def __init__(
        self, client: Client, resource: Resource, bridge: str, gateways: Mapping[int, str], own: Iterable[str]
    ) -> None:
        self._objects = Informer(client, resource)
        self._recorder = Recorder(client, self.component)
        self._bridge = bridge
        self._gateways = gateways
        self._own = [ipaddress.ip_network(n) for n in own]
        self._made: set[str] = set()

    def networks(self, obj: Object) -> Iterable[Network]:
        raise NotImplementedError

    async def run(self) -> None:
        """Until cancelled; the routes go with the bridge."""
        netlink = Netlink(NETLINK_ROUTE)
        try:
            self._objects.add_handler(lambda old, new: self._changed(netlink, old, new))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._objects.run(), name=self._objects.resource.plural)
                group.create_task(self._recorder.run(), name=f"events of {self.component}")
        finally:
            netlink.close()

    def _wanted(self, obj: Object | None) -> set[str]:
        if obj is None:
            return set()
        return {str(n) for n in self.networks(obj) if n.version in self._gateways and not self._covered(n)}

    def _covered(self, network: Network) -> bool:
        return any(
            own.version == network.version and network.subnet_of(own)  # type: ignore[arg-type]
            for own in self._own
        )

    def _changed(self, netlink: Netlink, old: Object | None, new: Object | None) -> None:
        still = {n for obj in self._objects.list() for n in self._wanted(obj)}
        for network in (self._wanted(old) - still) & self._made:
            self._made.discard(network)
            try:
                netlink.request([links.delete_route(network)], ignore=(errno.ESRCH,))
            except NetlinkError as e:
                log.warning("route to %s: %s", network, e)
        for network in self._wanted(new) - self._made:
            why = self._add(netlink, network)
            if why and new is not None:
                message = f"This machine gets no route to {network}: {why}. {self.otherwise}"
                log.warning("%s %s: %s", new.get("kind"), new["metadata"]["name"], message)
                self._recorder.event(new, "Warning", "NotRouted", message)

    def _add(self, netlink: Netlink, network: str) -> str:
        """Why not, or "" where it is done."""
        try:
            index = links.index_of(netlink, self._bridge)
            if index is None:
                return f"there is no link {self._bridge}"
            wanted = ipaddress.ip_network(network)
            via = self._gateways[wanted.version]
            family = socket.AF_INET if wanted.version == 4 else socket.AF_INET6
            for destination, gateway, link in links.routes(netlink, family):
                there = ipaddress.ip_network(destination)
                ours = (destination, gateway, link) == (network, via, index)
                if there.prefixlen and not ours and there.overlaps(wanted):
                    return f"its addresses overlap with {destination}, which is reached another way"
            netlink.request([links.route(network, index, via=via)])
        except NetlinkError as e:
            return str(e)
        self._made.add(network)
        return ""
