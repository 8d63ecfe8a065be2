"""The host's way to further ranges of Service addresses (ServiceCIDRs), through the first node.

Pods and nodes need no route: their packets are translated where they begin. The range that the cluster was made with has
its route from `prepare_node`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from sampan.api.errors import Object
from sampan.api.resources import SERVICECIDRS
from sampan.client.types import Client
from sampan.cluster.host_routes import HostRoutes, Network


class ServiceRoutes(HostRoutes):
    """Through `bridge`, to the node at `node_address`."""

    component = "sampan-service-routes"
    otherwise = "Pods and nodes reach its Services all the same."

    def __init__(self, client: Client, bridge: str, node_address: str, service_cidr: str) -> None:
        super().__init__(client, SERVICECIDRS, bridge, node_address, [service_cidr])

    def networks(self, obj: Object) -> Iterable[Network]:
        return map(ipaddress.ip_network, obj["spec"].get("cidrs") or ())
