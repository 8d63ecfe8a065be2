"""HorizontalPodAutoscalers. Upstream: `pkg/registry/autoscaling/horizontalpodautoscaler/strategy.go`."""

from __future__ import annotations

from sampan.api.strategy.types import Strategy

STRATEGIES: dict[str, Strategy] = {
    "horizontalpodautoscalers.autoscaling": Strategy(first_status=lambda _: {"desiredReplicas": 0}),
}
