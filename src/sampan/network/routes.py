"""Routes from a node to the pods of the others, kept by watching Nodes (nodes of one subnet reach each other directly)."""

from __future__ import annotations

import errno
import logging

from sampan.api.errors import Object
from sampan.api.resources import NODES
from sampan.client.informer import Informer
from sampan.client.types import Client
from sampan.network import links
from sampan.network.netlink import NETLINK_ROUTE, Netlink, NetlinkError

log = logging.getLogger(__name__)
_UPLINK = "eth0"


class NodeRoutes:
    """For the network namespace that the process is in."""

    def __init__(self, client: Client, node_name: str) -> None:
        self._node_name = node_name
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
        gone, come = _route_of(old), _route_of(new)
        try:
            if gone is not None and gone[0] in self._routes and (come is None or come[0] != gone[0]):
                del self._routes[gone[0]]
                self._netlink.request([links.delete_route(gone[0])], ignore=(errno.ESRCH,))
            if come is not None and self._routes.get(come[0]) != come[1]:
                index = links.index_of(self._netlink, _UPLINK) or 0
                self._netlink.request([links.route(come[0], index, via=come[1])])
                self._routes[come[0]] = come[1]
        except NetlinkError as e:
            log.warning("route to the pods of %s: %s", name, e)


def _route_of(node: Object | None) -> tuple[str, str] | None:
    """(pod range, address) of a node that has both."""
    if node is None:
        return None
    pods = (node.get("spec") or {}).get("podCIDR")
    addresses = (node.get("status") or {}).get("addresses") or ()
    address = next((a["address"] for a in addresses if a.get("type") == "InternalIP"), None)
    return (pods, address) if pods and address else None
