"""PriorityClasses: what counts in them cannot change, so there is one generation."""

from __future__ import annotations

from sampan.api.strategy.types import Strategy

STRATEGIES: dict[str, Strategy] = {
    "priorityclasses.scheduling.k8s.io": Strategy(generation=lambda new, old: False)
}
