"""The seam between the speaker of a node and the network that it speaks to."""

from __future__ import annotations

from typing import Protocol

from sampan.api.address_ranges import Address


class Announcer(Protocol):
    """Makes this node the one that has some addresses, as far as its neighbours can tell. Nothing else of the node changes:
    the addresses are on none of its links, so that nothing that listens on the node is reached at them."""

    def announce(self, address: Address) -> None:
        """Answer for an address from now on, and tell everybody at once; also where it is announced already, for who may
        have heard something else meanwhile. Raises OSError."""

    def withdraw(self, address: Address) -> None:
        """Answer no more."""

    def close(self) -> None:
        """Answer for nothing any more."""
