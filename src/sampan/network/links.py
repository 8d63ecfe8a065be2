"""Links, addresses, routes and neighbours as rtnetlink messages, each a value until it is sent.

IPv4 and IPv6 alike; addresses are text (`10.244.0.5`, `10.244.0.0/24`).
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct

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

_NEWLINK, _DELLINK, _GETLINK, _NEWADDR, _GETADDR, _NEWROUTE, _DELROUTE, _GETROUTE, _NEWNEIGH = (
    16,
    17,
    18,
    20,
    22,
    24,
    25,
    26,
    28,
)
_DELADDR = 21
_ADDRESS, _IFNAME, _MTU, _LINK, _MASTER, _LINKINFO, _NET_NS_FD = 1, 3, 4, 5, 10, 18, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_UP = 1
_MAIN, _PROTO_STATIC = 254, 4
_SCOPE_LINK, _SCOPE_HOST, _SCOPE_NOWHERE, _SCOPE_UNIVERSE = 253, 254, 255, 0
_CACHEINFO, _FOR_EVER = 6, 0xFFFFFFFF
_ONLINK = 4
_NODAD = 2
_PERMANENT = 0x80


def _link(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, index, flags, change)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def bridge(name: str) -> Message:
    return Message(
        _NEWLINK,
        F_CREATE | F_EXCL,
        _link() + attr(_IFNAME, name) + nest(_LINKINFO, attr(_INFO_KIND, "bridge")),
    )


def veth(
    name: str, peer: str, peer_netns: int, *, mac: str = "", peer_mac: str = "", master: int = 0
) -> Message:
    """A pair of ends, ours up at once; `peer_netns` is an open descriptor of the namespace the peer is put in."""
    there = _link() + attr(_IFNAME, peer) + attr(_NET_NS_FD, peer_netns)
    if peer_mac:
        there += attr(_ADDRESS, _mac(peer_mac))
    here = _link(flags=_UP, change=_UP) + attr(_IFNAME, name)
    if mac:
        here += attr(_ADDRESS, _mac(mac))
    if master:
        here += attr(_MASTER, master)
    info = attr(_INFO_KIND, "veth") + nest(_INFO_DATA, attr(_VETH_PEER, there))
    return Message(_NEWLINK, F_CREATE | F_EXCL, here + nest(_LINKINFO, info))


def up(index: int, *, mtu: int = 0) -> Message:
    return Message(_NEWLINK, 0, _link(index, _UP, _UP) + (attr(_MTU, mtu) if mtu else b""))


def delete(index: int) -> Message:
    return Message(_DELLINK, 0, _link(index))


def address(index: int, cidr: str, *, only_answers: bool = False) -> Message:
    """An address of a link. From one that `only_answers` nothing is sent that has not been sent to it: neither connections
    nor what is masqueraded."""
    interface = ipaddress.ip_interface(cidr)
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    scope = _SCOPE_HOST if only_answers and interface.version == 4 else _SCOPE_UNIVERSE
    body = struct.pack("=BBBBI", family, interface.network.prefixlen, 0, scope, index)
    raw = interface.ip.packed
    if interface.version == 6:
        # Usable at once: whoever gives an address knows that nobody else has it.
        body = body[:2] + bytes([_NODAD]) + body[3:]
    if only_answers and interface.version == 6:
        # There is no such scope; one that is no longer preferred is the last to be chosen.
        body += attr(_CACHEINFO, struct.pack("=IIII", 0, _FOR_EVER, 0, 0))
    return Message(_NEWADDR, F_CREATE | F_REPLACE, body + attr(2, raw) + attr(1, raw))


def delete_address(index: int, cidr: str) -> Message:
    interface = ipaddress.ip_interface(cidr)
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    body = struct.pack("=BBBBI", family, interface.network.prefixlen, 0, _SCOPE_UNIVERSE, index)
    return Message(_DELADDR, 0, body + attr(2, interface.ip.packed))


def _route_body(destination: str, index: int, via: str, source: str, onlink: bool, protocol: int) -> bytes:
    network = ipaddress.ip_network(destination)
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    scope = _SCOPE_UNIVERSE if via or network.version == 6 else _SCOPE_LINK
    body = struct.pack(
        "=BBBBBBBBI",
        family,
        network.prefixlen,
        0,
        0,
        _MAIN,
        protocol,
        scope,
        1,
        _ONLINK if onlink else 0,
    )
    if network.prefixlen:
        body += attr(1, network.network_address.packed)
    if via:
        body += attr(5, ipaddress.ip_address(via).packed)
    if source:
        body += attr(7, ipaddress.ip_address(source).packed)
    return body + (attr(4, index) if index else b"")


def route(
    destination: str,
    index: int,
    *,
    via: str = "",
    source: str = "",
    onlink: bool = False,
    protocol: int = _PROTO_STATIC,
) -> Message:
    """A route to a network (`0.0.0.0/0` is the default one), replacing one that is there. `protocol` says whose it is."""
    body = _route_body(destination, index, via, source, onlink, protocol)
    return Message(_NEWROUTE, F_CREATE | F_REPLACE, body)


def delete_route(destination: str) -> Message:
    """Of whatever scope (a route through a gateway has another one than a direct route), and whoever made it."""
    network = ipaddress.ip_network(destination)
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    head = (family, network.prefixlen, 0, 0, _MAIN, 0, _SCOPE_NOWHERE, 0, 0)
    return Message(_DELROUTE, 0, struct.pack("=BBBBBBBBI", *head) + _destination(destination))


def _destination(cidr: str) -> bytes:
    network = ipaddress.ip_network(cidr)
    return attr(1, network.network_address.packed) if network.prefixlen else b""


def neighbour(index: int, ip: str, mac: str) -> Message:
    """A neighbour that need not be asked for, ever."""
    where = ipaddress.ip_address(ip)
    family = socket.AF_INET if where.version == 4 else socket.AF_INET6
    body = struct.pack("=BxxxiHBB", family, index, _PERMANENT, 0, 1)
    return Message(_NEWNEIGH, F_CREATE | F_REPLACE, body + attr(1, where.packed) + attr(2, _mac(mac)))


def indexes(netlink: Netlink) -> dict[str, int]:
    """Every link of the socket's namespace by name."""
    found = {}
    for _, body in netlink.dump(Message(_GETLINK, 0, _link())):
        (index,) = struct.unpack_from("=i", body, 4)
        for kind, value in attributes(body[16:]):
            if kind == _IFNAME:
                found[value.rstrip(b"\0").decode()] = index
    return found


def index_of(netlink: Netlink, name: str) -> int | None:
    """The index of one link of the socket's namespace, or None; costs the same however many links there are."""
    try:
        body = netlink.get(Message(_GETLINK, 0, _link() + attr(_IFNAME, name)))
    except NetlinkError as e:
        if e.errno == errno.ENODEV:
            return None
        raise
    return int(struct.unpack_from("=i", body, 4)[0])


def mtu_of(netlink: Netlink, name: str) -> int:
    """Raises NetlinkError where there is no such link."""
    body = netlink.get(Message(_GETLINK, 0, _link() + attr(_IFNAME, name)))
    return int(struct.unpack("=I", dict(attributes(body[16:]))[_MTU])[0])


def peer_of(netlink: Netlink, name: str) -> int | None:
    """The index of a veth's other end, in whatever namespace that is; None if there is no such link."""
    try:
        body = netlink.get(Message(_GETLINK, 0, _link() + attr(_IFNAME, name)))
    except NetlinkError as e:
        if e.errno == errno.ENODEV:
            return None
        raise
    value = dict(attributes(body[16:])).get(_LINK)
    return None if value is None else int(struct.unpack("=i", value)[0])


def networks_of(netlink: Netlink, name: str) -> list[str]:
    """The addresses of a link with the length of their networks (`172.29.0.2/24`), those of IPv6 that are link-local left
    out; [] if there is no such link."""
    index = index_of(netlink, name)
    found = []
    for _, body in netlink.dump(Message(_GETADDR, 0, struct.pack("=BBBBI", *[0] * 5))):
        family, bits, _, scope, link = struct.unpack_from("=BBBBI", body)
        if link == index and scope == _SCOPE_UNIVERSE:
            got = dict(attributes(body[8:]))
            found.append(f"{socket.inet_ntop(family, got.get(2) or got[1])}/{bits}")
    return found


def addresses(netlink: Netlink) -> list[str]:
    """The addresses of all links of the socket's namespace that others can reach."""
    found = []
    for _, body in netlink.dump(Message(_GETADDR, 0, struct.pack("=BBBBI", *[0] * 5))):
        if body[3] == _SCOPE_UNIVERSE:
            got = dict(attributes(body[8:]))
            found.append(socket.inet_ntop(body[0], got.get(2) or got[1]))
    return found


def routes(
    netlink: Netlink, family: int = socket.AF_INET, *, protocol: int = 0
) -> list[tuple[str, str, int]]:
    """The routes of a family in the main table as (destination, gateway or "", link index); those of one protocol, if given."""
    found = []
    for _, body in netlink.dump(Message(_GETROUTE, 0, struct.pack("=BBBBBBBBI", family, *[0] * 8))):
        bits, table = body[1], body[4]
        got = dict(attributes(body[12:]))
        if table != _MAIN or (protocol and body[5] != protocol):
            continue
        network = (
            socket.inet_ntop(family, got.get(1, bytes(4 if family == socket.AF_INET else 16))) + f"/{bits}"
        )
        gateway = socket.inet_ntop(family, got[5]) if 5 in got else ""
        index = struct.unpack("=I", got[4])[0] if 4 in got else 0
        found.append((network, gateway, index))
    return found


def remove_link(netlink: Netlink, name: str) -> None:
    """Take a link away if it is there. Takes the kernel milliseconds: not for an event loop's thread."""
    index = index_of(netlink, name)
    if index is None:
        return
    try:
        netlink.request([delete(index)])
    except NetlinkError as e:
        if e.errno != errno.ENODEV:
            raise
