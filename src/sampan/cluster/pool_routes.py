"""The host's way to load balancer addresses beyond the subnet of the nodes: neighbours on the bridge, where a node answers for them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from sampan.api import address_ranges
from sampan.api.errors import Object
from sampan.api.resources import IPADDRESSPOOLS
from sampan.client.types import Client
from sampan.cluster.host_routes import HostRoutes, Network


class PoolRoutes(HostRoutes):
    """Through `bridge`, which `node_subnets` are on already."""

    component = "sampan-pool-routes"
    otherwise = "Its Services are reached from wherever there is a way to these addresses."

    def __init__(self, client: Client, bridge: str, node_subnets: Sequence[str]) -> None:
        gateways: dict[int, str] = {ipaddress.ip_network(subnet).version: "" for subnet in node_subnets}
        super().__init__(client, IPADDRESSPOOLS, bridge, gateways, node_subnets)

    def networks(self, obj: Object) -> Iterable[Network]:
        for text in obj["spec"].get("addresses") or ():
            one = address_ranges.parse(text)
            yield from ipaddress.summarize_address_range(one.first, one.last)
