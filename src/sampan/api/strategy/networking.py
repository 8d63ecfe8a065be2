"""Ingresses, IngressClasses and NetworkPolicies."""

from __future__ import annotations

from sampan.api.strategy.types import Strategy, spec_changed

STRATEGIES: dict[str, Strategy] = {
    "ingresses.networking.k8s.io": Strategy(
        generation=spec_changed, first_status=lambda _: {"loadBalancer": {}}
    ),
    "ingressclasses.networking.k8s.io": Strategy(generation=spec_changed),
    "networkpolicies.networking.k8s.io": Strategy(generation=spec_changed),
}
