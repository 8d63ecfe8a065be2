"""Which node has an address: the same answer on every node that knows the same nodes, without a word between them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from sampan.api.address_ranges import Address


def elect(address: Address, nodes: Iterable[str]) -> str:
    """The node that is to announce an address, "" where there are none. A node that comes or goes moves only the addresses
    that it gets or had."""
    return min(nodes, key=lambda node: (_weight(address, node), node), default="")


def _weight(address: Address, node: str) -> bytes:
    return hashlib.sha256(f"{node}#{address}".encode()).digest()
