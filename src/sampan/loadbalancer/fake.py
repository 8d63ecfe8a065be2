"""An announcer in memory, for tests: what it was told is text to compare with."""

from __future__ import annotations

from sampan.api.address_ranges import Address


class FakeAnnouncer:
    """`announced` are the addresses answered for; `told` is each call as one line."""

    def __init__(self) -> None:
        self.announced: set[Address] = set()
        self.told: list[str] = []

    def announce(self, address: Address) -> None:
        self.announced.add(address)
        self.told.append(f"announce {address}")

    def withdraw(self, address: Address) -> None:
        self.announced.discard(address)
        self.told.append(f"withdraw {address}")

    def close(self) -> None:
        self.announced.clear()
