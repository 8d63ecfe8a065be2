"""By which of its addresses a machine reaches another one, and word of a change of them."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import sys
from collections.abc import Callable

from sampan.network import links
from sampan.network.netlink import NETLINK_ROUTE, Message, Netlink, attributes

_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE."""
_GETADDR = 22


def towards(host: str) -> str:
    """The address that a connection to `host` would come from. Raises OSError where there is no way to it."""
    found = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)
    failure: OSError | None = None
    for family, kind, protocol, _, where in found:
        with socket.socket(family, kind, protocol) as sock:
            try:
                sock.connect(where)  # of UDP: nothing is sent
                return str(sock.getsockname()[0])
            except OSError as e:
                failure = e
    raise failure or OSError(0, f"{host} has no address")


def link_of(address: str) -> str:
    """The name of the link that has an address, "" where none has."""
    wanted = ipaddress.ip_address(address).packed
    netlink = Netlink(NETLINK_ROUTE)
    try:
        names = {index: name for name, index in links.indexes(netlink).items()}
        for _, body in netlink.dump(Message(_GETADDR, 0, bytes(8))):
            got = dict(attributes(body[8:]))
            if wanted in (got.get(2), got.get(1)):
                return names.get(int.from_bytes(body[4:8], sys.byteorder), "")
    finally:
        netlink.close()
    return ""


async def follow(changed: Callable[[], None]) -> None:
    """Call `changed` after every change of links, addresses or routes of the namespace that this was begun in, until
    cancelled."""
    loop = asyncio.get_running_loop()
    sock = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_ROUTE
    )

    def readable() -> None:
        while True:
            try:
                sock.recv(65536)
            except BlockingIOError:
                break
            except OSError:  # ENOBUFS: more happened than was kept; what it was does not matter here
                continue
        changed()

    try:
        sock.bind((0, _GROUPS))
        loop.add_reader(sock.fileno(), readable)
        await asyncio.Event().wait()
    finally:
        loop.remove_reader(sock.fileno())
        sock.close()
