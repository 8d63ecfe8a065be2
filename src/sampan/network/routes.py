"""Routes from a node to the pods of the others, kept by watching Nodes (nodes of one subnet reach each other directly)."""

from __future__ import annotations

import errno
import ipaddress
import logging

from sampan.api.errors import Object
from sampan.api.resources import NODES
from sampan.client.informer import Informer
from sampan.client.types import Client
from sampan.network import links
from sampan.network.netlink import NETLINK_ROUTE, Message, Netlink, NetlinkError

log = logging.getLogger(__name__)


class NodeRoutes:
    """For the network namespace that the process is in; `uplink` is the link that leads to the other nodes."""

    def __init__(self, client: Client, node_name: str, uplink: str = "eth0") -> None:
        self._node_name = node_name
        self._uplink = uplink
        self._nodes = Informer(client, NODES)
        self._netlink = Netlink(NETLINK_ROUTE)
        self._routes: dict[str, str] = {}

    async def run(self) -> None:
        """Until cancelled; the routes stay."""
        self._nodes.add_handler(self._changed)
        try:
            await self._nodes.run()
        finally:
            self._netlink.close()

    def _changed(self, old: Object | None, new: Object | None) -> None:
        name = (new or old or {})["metadata"]["name"]
        if name == self._node_name:
            return
        come = _routes_of(new)
        for pods in _routes_of(old).keys() - come.keys():
            if self._routes.pop(pods, None) is not None:
                self._apply(name, links.delete_route(pods))
        for pods, address in come.items():
            if self._routes.get(pods) != address:
                index = links.index_of(self._netlink, self._uplink) or 0
                if self._apply(name, links.route(pods, index, via=address)):
                    self._routes[pods] = address

    def _apply(self, name: str, message: Message) -> bool:
        try:
            self._netlink.request([message], ignore=(errno.ESRCH,))
        except NetlinkError as e:
            log.warning("route to the pods of %s: %s", name, e)
            return False
        return True


def _routes_of(node: Object | None) -> dict[str, str]:
    """Pod ranges of a node, each with the address of its family by which they are reached."""
    spec, status = ((node or {}).get(part) or {} for part in ("spec", "status"))
    ranges = spec.get("podCIDRs") or [c for c in (spec.get("podCIDR"),) if c]
    by_version: dict[int, str] = {}
    for told in status.get("addresses") or ():
        if told.get("type") == "InternalIP":
            by_version.setdefault(ipaddress.ip_address(told["address"]).version, told["address"])
    found = {pods: by_version.get(ipaddress.ip_network(pods).version) for pods in ranges}
    return {pods: address for pods, address in found.items() if address}
