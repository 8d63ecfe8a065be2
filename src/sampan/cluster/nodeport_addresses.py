"""Where nodes open NodePorts, under the name of kube-proxy's flag: `--nodeport-addresses 172.29.0.0/16,...` or `primary`."""

from __future__ import annotations

import ipaddress
import logging
from typing import TYPE_CHECKING

from sampan.cluster.admission_plugins import split

if TYPE_CHECKING:
    from sampan.cluster.wishes import Wishes

log = logging.getLogger(__name__)

PRIMARY = "primary"
"""The address of each family that a node is known by."""


def problems(wishes: Wishes) -> list[str]:
    """What is wrong with what was given."""
    given = wished(wishes).get("nodeport_addresses", ())
    out = []
    for value in given:
        if value == PRIMARY:
            if len(given) > 1:
                out.append(f"--nodeport-addresses {PRIMARY}: stands alone, without ranges")
            continue
        try:
            network = ipaddress.ip_network(value)
        except ValueError:
            expected = f"expected {PRIMARY} or ranges such as 172.29.0.0/16 or 2001:db8::/64"
            out.append(f"--nodeport-addresses {value}: {expected}")
            continue
        if network.is_loopback:
            out.append(f"--nodeport-addresses {value}: NodePorts are not open on loopback")
    return out


def wished(wishes: Wishes) -> dict[str, tuple[str, ...]]:
    """The field of the configuration, if something was said about it."""
    if wishes.nodeport_addresses is None:
        return {}
    return {"nodeport_addresses": split(wishes.nodeport_addresses) or (PRIMARY,)}


def resolve(setting: tuple[str, ...], primary: tuple[str, ...]) -> tuple[str, ...]:
    """The addresses of the node that the process is in the namespace of; `primary` are those that it is known by."""
    if PRIMARY in setting or not setting:
        return primary
    from sampan.network import links
    from sampan.network.netlink import NETLINK_ROUTE, Netlink

    netlink = Netlink(NETLINK_ROUTE)
    try:
        present = links.addresses(netlink)
    finally:
        netlink.close()
    found = chosen(setting, (*primary, *present))
    if not found:
        log.warning("no address of this node is in %s: NodePorts are not open", ", ".join(setting))
    return found


def chosen(setting: tuple[str, ...], present: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the addresses that are in one of the ranges, each once; never loopback."""
    networks = [ipaddress.ip_network(s) for s in setting]
    return tuple(
        text
        for text in dict.fromkeys(present)
        if not (address := ipaddress.ip_address(text)).is_loopback and any(address in n for n in networks)
    )
