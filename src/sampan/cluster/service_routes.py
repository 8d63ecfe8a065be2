"""The host's way to further ranges of Service addresses (ServiceCIDRs), through the first node.

Pods and nodes need no route: their packets are translated where they begin. The range that the cluster was made with has
its route from `prepare_node`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from sampan.api.errors import Object
from sampan.api.resources import SERVICECIDRS
from sampan.client.types import Client
from sampan.cluster.host_routes import HostRoutes, Network


class ServiceRoutes(HostRoutes):
    """Through `bridge`, to the node at `node_addresses`; these and `service_cidrs` are one a family."""

    component = "sampan-service-routes"
    otherwise = "Pods and nodes reach its Services all the same."

    def __init__(
        self, client: Client, bridge: str, node_addresses: Sequence[str], service_cidrs: Sequence[str]
    ) -> None:
        gateways: dict[int, str] = {ipaddress.ip_address(a).version: a for a in node_addresses}
        super().__init__(client, SERVICECIDRS, bridge, gateways, service_cidrs)

    def networks(self, obj: Object) -> Iterable[Network]:
        return map(ipaddress.ip_network, obj["spec"].get("cidrs") or ())
