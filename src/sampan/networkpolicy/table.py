"""The seam to whoever holds the tables: the kernel (`nftables.py`), or a fake of it (`fake.py`)."""

from __future__ import annotations

from typing import Protocol

from sampan.networkpolicy.content import Content


class Table(Protocol):
    def read(self) -> Content:
        """All that is there. Raises OSError."""

    def apply(self, before: Content, after: Content) -> None:
        """Turn the items of `before` into those of `after`, in one transaction or not at all; items that are neither are not
        touched. Raises OSError, also where the tables do not hold `before`."""

    def rebuild(self, content: Content) -> None:
        """Make all anew in one transaction, whatever is there. Raises OSError."""
