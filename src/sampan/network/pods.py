"""The pod network of one node: every pod on a routed point-to-point link of its own.

A pod's `eth0` has a /32 (and a /128) of the node's pod ranges and a default route to a link-local gateway that is the other end of
its link. Nothing is bridged inside the node, so every packet between pods passes the node's routing and hence its
Service rules (a bridge would let replies of a translated connection slip past them). Neighbours are fixed on both
sides: no ARP.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from sampan.network import links
from sampan.network.netlink import NETLINK_ROUTE, Message, Netlink, NetlinkError
from sampan.network.types import NetworkError, PodAddresses

GATEWAY, GATEWAY6 = "169.254.1.1", "fe80::1"
LINKS = "pod*"
"""The names of the node's ends, as nftables writes them."""
_GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"


class RoutedPodNetwork:
    """A `PodNetwork` for the network namespace that the calling process is in.

    Of `pod_cidrs` (the node's own) and `node_addresses` there is one a family, the primary one first. `leases` is a directory
    with one file a primary address in use (its content is the sandbox's id), so that addresses outlive our restarts; the
    address of the other family has the same place in its range: 10.244.0.5 and fd00:10:244::5.
    """

    def __init__(self, pod_cidrs: Sequence[str], node_addresses: Sequence[str], leases: Path) -> None:
        self._network, *self._further = map(ipaddress.ip_network, pod_cidrs)
        self._sources = {ipaddress.ip_address(a).version: a for a in node_addresses}
        self._leases = leases
        leases.mkdir(parents=True, exist_ok=True)
        self._taken = {p.name: p.read_text() for p in leases.iterdir()}
        self._by_sandbox = {sandbox: ip for ip, sandbox in self._taken.items()}
        self._next = 0
        self._netlink = Netlink(NETLINK_ROUTE)

    def close(self) -> None:
        self._netlink.close()

    def restore(self) -> None:
        """Make the routes to the pods again, from the node's present address: the kernel takes a route away with the address
        that it names."""
        for sandbox_id, ip in self._by_sandbox.items():
            index = links.index_of(self._netlink, link_name(sandbox_id))
            if index is not None:
                self._netlink.request([self._route(one, index) for one in self._ips(ip)])

    async def attach(self, sandbox_id: str, netns: str) -> PodAddresses:
        ip = self._by_sandbox.get(sandbox_id) or self._take(sandbox_id)
        try:
            self._join(sandbox_id, netns, self._ips(ip))
        except OSError as e:
            raise NetworkError(
                f"cannot join pod sandbox {sandbox_id} to the pod network: {e.strerror or e}"
            ) from e
        return PodAddresses(self._ips(ip))

    async def detach(self, sandbox_id: str, netns: str) -> None:
        name = link_name(sandbox_id)
        try:
            await asyncio.to_thread(links.remove_link, self._netlink, name)
        except OSError as e:
            raise NetworkError(f"cannot remove the link {name}: {e.strerror or e}") from e
        ip = self._by_sandbox.pop(sandbox_id, None)
        if ip is not None:
            self._taken.pop(ip, None)
            with contextlib.suppress(FileNotFoundError):
                (self._leases / ip).unlink()

    async def addresses(self, sandbox_id: str) -> PodAddresses | None:
        ip = self._by_sandbox.get(sandbox_id)
        return PodAddresses(self._ips(ip)) if ip else None

    def known(self) -> frozenset[str]:
        """The sandboxes that hold an address: those that no longer run are to be detached after a restart."""
        return frozenset(self._by_sandbox)

    def _ips(self, primary: str) -> tuple[str, ...]:
        """All addresses of a pod."""
        place = int(ipaddress.ip_address(primary)) - int(self._network.network_address)
        return (primary, *(str(further[place]) for further in self._further))

    def _route(self, ip: str, index: int) -> Message:
        source = self._sources.get(ipaddress.ip_address(ip).version, "")
        return links.route(_alone(ip), index, source=source)

    def _take(self, sandbox_id: str) -> str:
        """The next free address, going round the range so that one given back rests a while."""
        size = self._network.num_addresses
        for step in range(size - 3):
            ip = str(self._network[2 + (self._next + step) % (size - 3)])
            if ip not in self._taken:
                self._next = (self._next + step + 1) % (size - 3)
                path = self._leases / ip
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with os.fdopen(fd, "w") as f:
                    f.write(sandbox_id)
                self._taken[ip] = sandbox_id
                self._by_sandbox[sandbox_id] = ip
                return ip
        raise NetworkError(f"no address is free in the node's pod range {self._network}")

    def _join(self, sandbox_id: str, netns: str, ips: Sequence[str]) -> None:
        name = link_name(sandbox_id)
        mac = _mac_of(ips[0])
        fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                self._netlink.request(
                    [links.veth(name, "eth0", fd, mac=_GATEWAY_MAC, peer_mac=mac)], ignore=(errno.EEXIST,)
                )
            except NetlinkError as e:
                # EEXIST means a try before this one got so far; anything else is a failure.
                raise NetworkError(f"cannot make a link into {netns}: {e.strerror}") from e
            inside = Netlink.inside(fd)
            try:
                eth0 = _index(inside, "eth0")
                messages = [links.up(_index(inside, "lo")), links.up(eth0)]
                for ip in ips:
                    messages += _way_out(eth0, ip)
                inside.request(messages)
            finally:
                inside.close()
        finally:
            os.close(fd)
        here = _index(self._netlink, name)
        ours = [message for ip in ips for message in (links.neighbour(here, ip, mac), self._route(ip, here))]
        self._netlink.request(ours)


def _way_out(eth0: int, ip: str) -> list[Message]:
    """A pod's address of one family, and its default route."""
    if ipaddress.ip_address(ip).version == 6:
        return [
            links.address(eth0, f"{ip}/128"),
            links.neighbour(eth0, GATEWAY6, _GATEWAY_MAC),
            links.route("::/0", eth0, via=GATEWAY6, source=ip, onlink=True),
        ]
    return [
        links.address(eth0, f"{ip}/32"),
        links.neighbour(eth0, GATEWAY, _GATEWAY_MAC),
        links.route(f"{GATEWAY}/32", eth0),
        links.route("0.0.0.0/0", eth0, via=GATEWAY, source=ip, onlink=True),
    ]


def _alone(ip: str) -> str:
    return str(ipaddress.ip_network(ip))


def _index(netlink: Netlink, name: str) -> int:
    index = links.index_of(netlink, name)
    if index is None:
        raise NetworkError(f"there is no link {name}")
    return index


def link_name(sandbox_id: str) -> str:
    """The node's end of a sandbox's link."""
    return LINKS.removesuffix("*") + hashlib.sha256(sandbox_id.encode()).hexdigest()[:11]


def _mac_of(ip: str) -> str:
    return "02:53:" + ":".join(f"{b:02x}" for b in ipaddress.ip_address(ip).packed[-4:])
