"""The kernel's tables of a network namespace that the test made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sampan.network.netlink import in_namespace


class Inside:
    """An object whose making runs in a namespace. Its netlink socket belongs there, whoever uses it later."""

    def __init__(self, netns: str, make: Callable[[], Any]) -> None:
        self._made = in_namespace(netns, make)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)
