"""Why a pod found no node, node by node, and how that is told: in upstream's words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

NO_NODES = "no nodes available to schedule pods"
NOT_HELPFUL = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"


@dataclass(frozen=True, slots=True)
class Rejection:
    """One node's refusal. `final` where no pod's leaving that node would change it."""

    plugin: str
    reasons: tuple[str, ...]
    final: bool = False


@dataclass(slots=True)
class Diagnosis:
    """The refusals by node, and the plugins that a change must concern to make another try worth while (none: any)."""

    rejections: dict[str, Rejection] = field(default_factory=dict)

    @property
    def plugins(self) -> frozenset[str]:
        return frozenset(r.plugin for r in self.rejections.values())

    def message(self, preemption: str = "") -> str:
        """The whole message; `preemption` says why making room did not work either ("" if it is on its way)."""
        if not self.rejections:
            return NO_NODES
        told = histogram(
            len(self.rejections), (reason for r in self.rejections.values() for reason in r.reasons)
        )
        return f"{told} no new claims to deallocate, preemption: {preemption}" if preemption else told


def histogram(nodes: int, reasons: Iterable[str]) -> str:
    """`0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`"""
    counted = sorted(f"{count} {reason}" for reason, count in Counter(reasons).items())
    return f"0/{nodes} nodes are available: {', '.join(counted)}."
