"""Pools of addresses for load balancers."""

from __future__ import annotations

from sampan.api.strategy.types import Strategy, spec_changed

STRATEGIES: dict[str, Strategy] = {"ipaddresspools.loadbalancer.sampan.io": Strategy(generation=spec_changed)}
