"""PodDisruptionBudgets. Upstream: `pkg/registry/policy/poddisruptionbudget/strategy.go`."""

from __future__ import annotations

from sampan.api.strategy.types import Strategy, spec_changed

_COUNTS = ("currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods")

STRATEGIES: dict[str, Strategy] = {
    "poddisruptionbudgets.policy": Strategy(
        generation=spec_changed, first_status=lambda _: dict.fromkeys(_COUNTS, 0)
    ),
}
