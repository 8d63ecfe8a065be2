"""The host's side of a cluster's network: one bridge, a link to every node, routes to pods and Services.

Nothing else of the host changes: its firewall, resolver, ports and forwarding settings stay as they are. Traffic from
pods to beyond this machine is masqueraded by a table of our own, only where the host forwards packets already.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sampan.linux.syscalls import CLONE_NEWNET, setns
from sampan.network import links
from sampan.network.namespaces import run_forked
from sampan.network.netlink import NETLINK_ROUTE, Netlink, NetlinkError
from sampan.network.pods import LINKS
from sampan.network.vxlan import PORT as VXLAN

NODE_SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
}
"""A node routes; it sends no redirects for a pod that reaches itself through a Service."""
NODE_SYSCTLS6 = {"net.ipv6.conf.all.forwarding": "1", "net.ipv6.conf.default.accept_ra": "0"}
"""The same for a node of a dual-stack cluster."""
_OWN_SOURCE = f""" chain prerouting {{
  type filter hook prerouting priority raw;
  iifname "{LINKS}" fib saddr . iif oif missing drop
 }}
"""
"""What the kernel's rp_filter would do for pods' links, had it that for IPv6."""
_NO_TUNNEL = f""" chain tunnel-forward {{{{
  type filter hook forward priority filter;
  iifname "{LINKS}" {{match}} udp dport {VXLAN} drop
 }}}}
 chain tunnel-input {{{{
  type filter hook input priority filter;
  iifname "{LINKS}" udp dport {VXLAN} drop
 }}}}
"""
"""A node takes what comes by the tunnel for another node's: a pod must not speak it to nodes, in whatever name."""
_DEFAULT = {4: "0.0.0.0/0", 6: "::/0"}
_FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
_TABLE = {4: "ip", 6: "ip6"}


@dataclass(frozen=True, slots=True)
class NodeLink:
    """How a node hangs on the bridge. `host_link` is the name of the host's end; of addresses and
    ranges there is one a family."""

    netns: Path
    host_link: str
    addresses: tuple[str, ...]
    pod_cidrs: tuple[str, ...]


def overlapping(cidrs: Sequence[str], *, bridge: str = "") -> dict[str, str]:
    """Which of these networks a route of this host overlaps already: network -> route. Default routes (also in two halves,
    as VPNs write them) and those through `bridge` do not count."""
    netlink = Netlink(NETLINK_ROUTE)
    try:
        own = links.index_of(netlink, bridge) if bridge else None
        found4 = links.routes(netlink)
        found6 = links.routes(netlink, socket.AF_INET6)
        present = [ipaddress.ip_network(d) for d, _, link in (*found4, *found6) if link != own]
    finally:
        netlink.close()
    found = {}
    for cidr in cidrs:
        network = ipaddress.ip_network(cidr)
        for route in present:
            if route.prefixlen > 1 and route.version == network.version and network.overlaps(route):
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


def ensure_bridge(name: str, networks: Sequence[str]) -> None:
    """The bridge with its addresses (`172.29.0.1/24`), up."""
    netlink = Netlink(NETLINK_ROUTE)
    try:
        netlink.request([links.bridge(name)], ignore=(errno.EEXIST,))
        index = _index(netlink, name)
        netlink.request([*(links.address(index, cidr) for cidr in networks), links.up(index)])
    finally:
        netlink.close()


def ensure_node(
    bridge: str, gateways: Sequence[str], node: NodeLink, service_cidrs: Sequence[str] = ()
) -> None:
    """A node's link to the bridge, its addresses and default routes, and the host's routes to the node's pods; where
    `service_cidrs` are given, the host reaches Services through this node too. `gateways` are the bridge's addresses, as in
    `ensure_bridge`; of everything there is one a family, in one order."""
    netlink = Netlink(NETLINK_ROUTE)
    try:
        index = _index(netlink, bridge)
        fd = os.open(node.netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            netlink.request([links.veth(node.host_link, "eth0", fd, master=index)], ignore=(errno.EEXIST,))
            inside = Netlink.inside(fd)
            try:
                eth0 = _index(inside, "eth0")
                messages = [links.up(_index(inside, "lo")), links.up(eth0)]
                for gateway, address in zip(
                    map(ipaddress.ip_interface, gateways), node.addresses, strict=True
                ):
                    messages += [
                        links.address(eth0, f"{address}/{gateway.network.prefixlen}"),
                        links.route(_DEFAULT[gateway.version], eth0, via=str(gateway.ip), source=address),
                    ]
                inside.request(messages)
            finally:
                inside.close()
        finally:
            os.close(fd)
        routes = [links.route(c, index, via=a) for c, a in zip(node.pod_cidrs, node.addresses, strict=True)]
        routes += [links.route(c, index, via=a) for c, a in zip(service_cidrs, node.addresses, strict=False)]
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
    """Let what comes from `subnets` leave this machine under its own address, by tables of our own. Returns why not,
    where the host does not forward packets; "" where it is done."""
    problems = []
    for version, sources in _by_version(subnets).items():
        if Path("/proc/sys", _FORWARDING[version].replace(".", "/")).read_text().strip() != "1":
            problems.append(
                f"{_FORWARDING[version]} is 0 on this host: pods cannot reach beyond it by IPv{version}"
            )
            continue
        ip = _TABLE[version]
        # Nodes' tunnels leave as they are: masquerading spoils their UDP checksum, which the kernel has computed already.
        match = (
            f'udp dport {VXLAN} return\n  oifname != "{bridge}" {ip} saddr {sources} {ip} daddr != {sources}'
        )
        _nft(_masquerade(table, version, "srcnat", match))
    return "; ".join(problems)


def remove_masquerade(table: str) -> None:
    _nft("".join(f"table {ip} {table} {{}}\ndelete table {ip} {table}\n" for ip in _TABLE.values()))


def masquerade_pods(netns: Path, pod_ranges: Sequence[str], node_subnets: Sequence[str]) -> None:
    """In a node: what a pod sends beyond pods and nodes leaves under the node's address, and what bears another address than
    the pod's own does not leave it: policies, and other pods, go by addresses."""

    def inside() -> None:
        fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        setns(fd, CLONE_NEWNET)
        masquerade_pods_here("eth0", pod_ranges, node_subnets)

    run_forked(inside)


def masquerade_pods_here(uplink: str, pod_ranges: Sequence[str], beside: Sequence[str] = ()) -> None:
    """The same in the network namespace that the process is in; `beside` are networks that see pods' own addresses."""
    near = _by_version([*pod_ranges, *beside])
    script = ""
    for version, sources in _by_version(pod_ranges).items():
        ip = _TABLE[version]
        match = f'oifname "{uplink}" {ip} saddr {sources} {ip} daddr != {near[version]}'
        tunnel = _NO_TUNNEL.format(match=f"{ip} daddr != {sources}")
        script += _masquerade("sampan-pods", version, "srcnat + 10", match, _OWN_SOURCE + tunnel)
    _nft(script)


def _masquerade(table: str, version: int, priority: str, match: str, more: str = "") -> str:
    ip = _TABLE[version]
    return (
        f"table {ip} {table} {{}}\ndelete table {ip} {table}\n"
        f"table {ip} {table} {{\n chain postrouting {{\n  type nat hook postrouting priority {priority};\n"
        f"  {match} masquerade\n }}\n{more}}}\n"
    )


def _by_version(networks: Sequence[str]) -> dict[int, str]:
    """The networks of each family as an anonymous set of nftables."""
    found: dict[int, list[str]] = {}
    for network in networks:
        found.setdefault(ipaddress.ip_network(network).version, []).append(network)
    return {version: f"{{ {', '.join(of)} }}" for version, of in found.items()}


def _nft(script: str) -> None:
    done = subprocess.run(["nft", "-f", "-"], input=script, text=True, capture_output=True, check=False)
    if done.returncode:
        raise OSError(0, f"nft -f - failed: {done.stderr.strip()}\n{script}")


def _index(netlink: Netlink, name: str) -> int:
    index = links.index_of(netlink, name)
    if index is None:
        raise NetlinkError(errno.ENODEV, f"there is no link {name}")
    return index
