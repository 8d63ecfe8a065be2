"""The host's side of a cluster's network: one bridge, a link to every node, routes to pods and Services.

Nothing else of the host changes: its firewall, resolver, ports and forwarding settings stay as they are. Traffic from
pods to beyond this machine is masqueraded by a table of our own, only where the host forwards packets already.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sampan.linux.syscalls import CLONE_NEWNET, setns
from sampan.network import links
from sampan.network.namespaces import run_forked
from sampan.network.netlink import NETLINK_ROUTE, Netlink, NetlinkError

NODE_SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
}
"""A node routes; it sends no redirects for a pod that reaches itself through a Service."""


@dataclass(frozen=True, slots=True)
class NodeLink:
    """How a node hangs on the bridge. `host_link` is the name of the host's end."""

    netns: Path
    host_link: str
    address: str
    pod_cidr: str


def overlapping(cidrs: Sequence[str]) -> dict[str, str]:
    """Which of these networks a route of this host overlaps already: network -> route."""
    netlink = Netlink(NETLINK_ROUTE)
    try:
        present = [ipaddress.ip_network(d) for d, _, _ in links.routes(netlink)]
    finally:
        netlink.close()
    found = {}
    for cidr in cidrs:
        network = ipaddress.ip_network(cidr)
        for route in present:
            if route.prefixlen and network.overlaps(route):
                found[cidr] = str(route)
    return found


def link_exists(name: str) -> bool:
    netlink = Netlink(NETLINK_ROUTE)
    try:
        return links.index_of(netlink, name) is not None
    finally:
        netlink.close()


def host_link_of(netns: Path) -> str:
    """The name of the host's end of a node's link, by the node's namespace; "" if there is no such link (any more)."""
    try:
        fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        inside = Netlink.inside(fd)
    except OSError:  # an ordinary file: what was bound to it is gone
        return ""
    finally:
        os.close(fd)
    try:
        peer = links.peer_of(inside, "eth0")
    finally:
        inside.close()
    netlink = Netlink(NETLINK_ROUTE)
    try:
        return next((name for name, index in links.indexes(netlink).items() if index == peer), "")
    finally:
        netlink.close()


def ensure_bridge(name: str, cidr: str) -> None:
    """The bridge with its address (`172.29.0.1/24`), up."""
    netlink = Netlink(NETLINK_ROUTE)
    try:
        netlink.request([links.bridge(name)], ignore=(errno.EEXIST,))
        index = _index(netlink, name)
        netlink.request([links.address(index, cidr), links.up(index)])
    finally:
        netlink.close()


def ensure_node(bridge: str, gateway: str, prefix: int, node: NodeLink, service_cidr: str = "") -> None:
    """A node's link to the bridge, its address and default route, and the host's route to the node's pods; where
    `service_cidr` is given, the host reaches Services through this node too."""
    netlink = Netlink(NETLINK_ROUTE)
    try:
        index = _index(netlink, bridge)
        fd = os.open(node.netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            netlink.request([links.veth(node.host_link, "eth0", fd, master=index)], ignore=(errno.EEXIST,))
            inside = Netlink.inside(fd)
            try:
                eth0 = _index(inside, "eth0")
                inside.request(
                    [
                        links.up(_index(inside, "lo")),
                        links.address(eth0, f"{node.address}/{prefix}"),
                        links.up(eth0),
                        links.route("0.0.0.0/0", eth0, via=gateway, source=node.address),
                    ]
                )
            finally:
                inside.close()
        finally:
            os.close(fd)
        routes = [links.route(node.pod_cidr, index, via=node.address)]
        if service_cidr:
            routes.append(links.route(service_cidr, index, via=node.address))
        netlink.request(routes)
    finally:
        netlink.close()


def remove(bridge: str, host_links: Sequence[str]) -> None:
    """Take bridge and links away; their routes go with them."""
    netlink = Netlink(NETLINK_ROUTE)
    try:
        for name in (*host_links, bridge):
            links.remove_link(netlink, name)
    finally:
        netlink.close()


def remove_node(host_link: str, pod_cidrs: Sequence[str]) -> None:
    """Take one node's link away, and the host's routes to its pods."""
    netlink = Netlink(NETLINK_ROUTE)
    try:
        links.remove_link(netlink, host_link)
        for cidr in pod_cidrs:
            netlink.request([links.delete_route(cidr)], ignore=(errno.ESRCH,))
    finally:
        netlink.close()


def ensure_masquerade(table: str, bridge: str, subnets: Sequence[str]) -> str:
    """Let what comes from `subnets` leave this machine under its own address, by a table of our own. Returns why not,
    where the host does not forward packets; "" where it is done."""
    if Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() != "1":
        return "net.ipv4.ip_forward is 0 on this host: pods cannot reach beyond it"
    sources = ", ".join(subnets)
    _nft(
        f"table ip {table} {{}}\ndelete table ip {table}\n"
        f"table ip {table} {{\n chain postrouting {{\n  type nat hook postrouting priority srcnat;\n"
        f'  oifname != "{bridge}" ip saddr {{ {sources} }} ip daddr != {{ {sources} }} masquerade\n }}\n}}\n'
    )
    return ""


def remove_masquerade(table: str) -> None:
    _nft(f"table ip {table} {{}}\ndelete table ip {table}\n")


def masquerade_pods(netns: Path, pod_range: str, node_subnet: str) -> None:
    """In a node: what a pod sends beyond pods and nodes leaves under the node's address."""

    def inside() -> None:
        fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        setns(fd, CLONE_NEWNET)
        masquerade_pods_here("eth0", pod_range, node_subnet)

    run_forked(inside)


def masquerade_pods_here(uplink: str, pod_range: str, *beside: str) -> None:
    """The same in the network namespace that the process is in; `beside` are networks that see pods' own addresses."""
    near = ", ".join((pod_range, *beside))
    _nft(
        "table ip sampan-pods {}\ndelete table ip sampan-pods\n"
        "table ip sampan-pods {\n chain postrouting {\n  type nat hook postrouting priority srcnat + 10;\n"
        f'  oifname "{uplink}" ip saddr {pod_range} ip daddr != {{ {near} }} masquerade\n }}\n}}\n'
    )



def _nft(script: str) -> None:
    done = subprocess.run(["nft", "-f", "-"], input=script, text=True, capture_output=True, check=False)
    if done.returncode:
        raise OSError(0, f"nft -f - failed: {done.stderr.strip()}\n{script}")


def _index(netlink: Netlink, name: str) -> int:
    index = links.index_of(netlink, name)
    if index is None:
        raise NetlinkError(errno.ENODEV, f"there is no link {name}")
    return index
