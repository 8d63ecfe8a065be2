"""The tunnel to nodes that are in no network of ours: one VXLAN device, and for each such node what it must know.

Nothing is learnt and nothing flooded: where a node's end of the tunnel is follows from its Node alone. Its MAC is derived from its
name, its address inside the tunnel is the first of each of its pod ranges (which no pod gets). So each node needs three fixed
entries of every other: a forwarding entry (MAC -> address of the node), and for each pod range a neighbour and a route.

VXLAN: RFC 7348.
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import socket
import struct

from sampan.network import links
from sampan.network.netlink import (
    F_CREATE,
    F_EXCL,
    F_REPLACE,
    Message,
    Netlink,
    NetlinkError,
    attr,
    attributes,
    nest,
)

DEVICE = "sampan.vxlan"
PORT = 4789
"""As assigned to VXLAN, which firewalls and packet analysers know."""
NETWORK = 83
"""The identifier that tells our packets from those of other VXLANs at the same port."""
OVERHEAD = {4: 50, 6: 70}
"""Bytes that a packet grows by, by IP version of what carries it."""
_NEWLINK, _GETLINK, _NEWNEIGH, _DELNEIGH = 16, 18, 28, 29
_IFNAME, _MTU, _ADDRESS, _LINKINFO, _INFO_KIND, _INFO_DATA = 3, 4, 1, 18, 1, 2
_ID, _LINK, _LOCAL, _LEARNING, _PORT, _LOCAL6 = 1, 3, 4, 7, 15, 17
_BRIDGE_FAMILY, _PERMANENT, _NOARP, _SELF = 7, 0x80, 0x40, 2


def mac_of(node: str) -> str:
    """Of a node's end of the tunnel, by the node's name: locally administered, of one station."""
    digest = hashlib.sha256(node.encode()).digest()[:5]
    return "0a:" + ":".join(f"{b:02x}" for b in digest)


def inner(pod_cidr: str) -> str:
    """A node's address inside the tunnel, by one of its pod ranges."""
    return str(ipaddress.ip_network(pod_cidr).network_address)


class Tunnel:
    """This node's end. `address` is the node's own on `uplink`; `pod_cidrs` are its own, one a family."""

    def __init__(self, netlink: Netlink, node: str, address: str, uplink: str) -> None:
        self._netlink = netlink
        self._node = node
        self._address = ipaddress.ip_address(address)
        self._uplink = uplink

    def ensure(self, pod_cidrs: list[str]) -> int:
        """The device with its addresses, up; its index. One that has another address than ours is made anew. Raises
        NetlinkError."""
        index = links.index_of(self._netlink, DEVICE)
        if index is not None and self._local() != self._address.packed:
            links.remove_link(self._netlink, DEVICE)
            index = None
        if index is None:
            self._netlink.request([self._device()])
            index = links.index_of(self._netlink, DEVICE) or 0
        self._netlink.request(
            [links.up(index), *(links.address(index, str(ipaddress.ip_network(inner(c)))) for c in pod_cidrs)]
        )
        return index

    def remove(self) -> None:
        links.remove_link(self._netlink, DEVICE)

    def _device(self) -> Message:
        underlay = links.index_of(self._netlink, self._uplink) or 0
        mtu = links.mtu_of(self._netlink, self._uplink) - OVERHEAD[self._address.version]
        data = [
            attr(_ID, NETWORK),
            attr(_LINK, underlay),
            attr(_LOCAL if self._address.version == 4 else _LOCAL6, self._address.packed),
            attr(_LEARNING, b"\0"),
            attr(_PORT, struct.pack("!H", PORT)),
        ]
        link = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)
        link += attr(_IFNAME, DEVICE) + attr(_ADDRESS, _raw(mac_of(self._node))) + attr(_MTU, mtu)
        info = nest(_LINKINFO, attr(_INFO_KIND, "vxlan"), nest(_INFO_DATA, *data))
        return Message(_NEWLINK, F_CREATE | F_EXCL, link + info)

    def _local(self) -> bytes:
        link = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)
        body = self._netlink.get(Message(_GETLINK, 0, link + attr(_IFNAME, DEVICE)))
        info = dict(attributes(dict(attributes(body[16:])).get(_LINKINFO, b"")))
        data = dict(attributes(info.get(_INFO_DATA, b"")))
        return data.get(_LOCAL if self._address.version == 4 else _LOCAL6, b"")


def forwarding(index: int, node: str, address: str) -> Message:
    """Frames for the end of a node go to the node's address."""
    return Message(_NEWNEIGH, F_CREATE | F_REPLACE, _entry(index, node, address))


def forget_forwarding(netlink: Netlink, index: int, node: str, address: str) -> None:
    try:
        netlink.request([Message(_DELNEIGH, 0, _entry(index, node, address))])
    except NetlinkError as e:
        if e.errno not in (errno.ENOENT, errno.ENODEV):
            raise


def forget_neighbour(netlink: Netlink, index: int, ip: str) -> None:
    where = ipaddress.ip_address(ip)
    family = socket.AF_INET if where.version == 4 else socket.AF_INET6
    body = struct.pack("=BxxxiHBB", family, index, 0, 0, 0) + attr(1, where.packed)
    try:
        netlink.request([Message(_DELNEIGH, 0, body)])
    except NetlinkError as e:
        if e.errno not in (errno.ENOENT, errno.ENODEV):
            raise


def _entry(index: int, node: str, address: str) -> bytes:
    body = struct.pack("=BxxxiHBB", _BRIDGE_FAMILY, index, _PERMANENT | _NOARP, _SELF, 0)
    return body + attr(2, _raw(mac_of(node))) + attr(1, ipaddress.ip_address(address).packed)


def _raw(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
