"""The end of a joined machine's time as a node: every trace of it goes from the machine, as `kubeadm reset` has it.

What is not ours on the machine stays as it is, clusters that it has itself included; so does the Node object of the cluster,
which no node may delete: that is its administrator's.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import re
import socket
import subprocess
from collections.abc import Callable, Sequence

from sampan.cluster import config as configuration
from sampan.cluster import processes
from sampan.cluster.joined import CGROUP, DIRECTORY, RUN_DIRECTORY, JoinedNode
from sampan.cluster.teardown import CONTAINER_GRACE
from sampan.linux.mounts import remove_tree, unmount_below
from sampan.linux.syscalls import unmount
from sampan.network import links, namespaces
from sampan.network.netlink import NETLINK_ROUTE, Netlink

_POD_LINK = re.compile(r"pod[0-9a-f]{11}")
_CLUSTER_LINK = re.compile(r"sampan[0-9]+(-[0-9]+)?")


def reset(node: JoinedNode | None, say: Callable[[str], None] = lambda text: None) -> bool:
    """Remove every trace of a node from this machine: containers, network, files; whether there was any. To be called with the
    node held. Works from what is on disk and in /proc alone; `node` None (its file is damaged or gone) leaves routes."""
    cgroup = f"{CGROUP}/{node.name}" if node is not None else CGROUP
    there = DIRECTORY.exists() or bool(processes.cgroups(cgroup))
    if processes.members(cgroup):
        say("ending containers")
    processes.end_all(cgroup, grace=CONTAINER_GRACE)
    _forget_network(node)
    for namespace in (RUN_DIRECTORY / "ns").glob("*"):
        namespaces.remove(None, namespace)
    unmount(str(RUN_DIRECTORY / "ns"))
    processes.remove_cgroups(cgroup)
    for directory in (DIRECTORY, RUN_DIRECTORY):
        unmount_below(directory)
        remove_tree(directory)
    for parent in (DIRECTORY.parent, RUN_DIRECTORY.parent):
        with contextlib.suppress(OSError):
            parent.rmdir()
    return there


def _forget_network(node: JoinedNode | None) -> None:
    netlink = Netlink(NETLINK_ROUTE)
    try:
        for name in links.indexes(netlink):
            if _POD_LINK.fullmatch(name) or (name.startswith("sampan") and not _CLUSTER_LINK.fullmatch(name)):
                links.remove_link(netlink, name)
        if node is not None:
            for destination in _inside(_destinations(netlink), node.cluster_pod_cidrs):
                netlink.request([links.delete_route(destination)], ignore=(errno.ESRCH,))
            loopback = links.index_of(netlink, "lo") or 0
            for cidr in node.service_cidrs:
                address = f"{ipaddress.ip_network(cidr)[10]}"  # of the cluster's DNS
                netlink.request(
                    [links.delete_address(loopback, f"{address}/{128 if ':' in address else 32}")],
                    ignore=(errno.EADDRNOTAVAIL,),
                )
    finally:
        netlink.close()
    _forget_tables()


def _destinations(netlink: Netlink) -> list[str]:
    families = (socket.AF_INET, socket.AF_INET6)
    return [d for family in families for d, _, _ in links.routes(netlink, family)]


def _inside(destinations: Sequence[str], ranges: Sequence[str]) -> list[str]:
    networks = [ipaddress.ip_network(r) for r in ranges]
    return [
        d
        for d in destinations
        if any(
            (n := ipaddress.ip_network(d)).version == w.version and n.subnet_of(w)  # type: ignore[arg-type]
            for w in networks
        )
    ]


def _forget_tables() -> None:
    """Those that a node has in the machine's own network; tables of the clusters that this machine has itself stay."""
    done = subprocess.run(["nft", "-j", "list", "tables"], capture_output=True, text=True, check=False)
    if done.returncode:
        return
    clusters = {f"sampan-{name}" for name in configuration.names()}
    found = [entry["table"] for entry in json.loads(done.stdout)["nftables"] if "table" in entry]
    ours = [t for t in found if t["name"].split("-")[0] == "sampan" and t["name"] not in clusters]
    script = "".join(f"delete table {t['family']} {t['name']}\n" for t in ours)
    subprocess.run(["nft", "-f", "-"], input=script, text=True, capture_output=True, check=False)
