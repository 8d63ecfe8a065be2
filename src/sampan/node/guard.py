"""The seam to whoever must know of a pod's addresses before anything runs in it: what enforces NetworkPolicies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from sampan.api.errors import Object


class PodGuard(Protocol):
    def taken_up(self, addresses: Mapping[str, tuple[str, ...]]) -> None:
        """Told once, at the agent's start: the addresses of the pods that run already, by uid."""

    async def admit(self, pod: Object, addresses: tuple[str, ...]) -> None:
        """The pod's containers may start once this returns. Raises OSError: its sandbox is made anew later."""

    def released(self, uid: str) -> None:
        """The pod has no addresses any more."""
