"""Ranges of addresses as pools write them: `192.0.2.0/24`, or first and last `192.0.2.10-192.0.2.20`."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class AddressRange:
    """All addresses from `first` to `last`, both included and of one family."""

    first: Address
    last: Address

    @property
    def version(self) -> int:
        return self.first.version

    @property
    def size(self) -> int:
        return int(self.last) - int(self.first) + 1

    def __contains__(self, address: Address) -> bool:
        return address.version == self.version and int(self.first) <= int(address) <= int(self.last)

    def overlaps(self, other: AddressRange) -> bool:
        return (
            self.version == other.version
            and int(self.first) <= int(other.last)
            and int(other.first) <= int(self.last)
        )

    def without(self, other: AddressRange) -> list[AddressRange]:
        """What is left if the addresses of another one are taken away: at most two ranges."""
        if not self.overlaps(other):
            return [self]
        out = []
        if int(self.first) < int(other.first):
            out.append(AddressRange(self.first, other.first - 1))
        if int(other.last) < int(self.last):
            out.append(AddressRange(other.last + 1, self.last))
        return out

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


def parse(text: str) -> AddressRange:
    """Raises ValueError that says what is expected."""
    try:
        if "%" in text:  # the zone of a link is no part of an address
            raise ValueError
        if "/" in text:
            network = ipaddress.ip_network(text)
            return AddressRange(network[0], network[-1])
        first, dash, last = (part.strip() for part in text.partition("-"))
        found = AddressRange(ipaddress.ip_address(first), ipaddress.ip_address(last if dash else ""))
    except ValueError:
        raise ValueError(
            "must be a range of addresses: a network (e.g. 192.0.2.0/24 or 2001:db8::/64, without bits beyond its "
            "prefix) or its first and last address (e.g. 192.0.2.10-192.0.2.20)"
        ) from None
    if found.first.version != found.last.version:
        raise ValueError("must begin and end with addresses of one family")
    if int(found.first) > int(found.last):
        raise ValueError("must not end before it begins")
    return found
