"""ResourceQuotas."""

from __future__ import annotations

from sampan.api.strategy.types import Strategy, empty_status

STRATEGIES: dict[str, Strategy] = {"resourcequotas": Strategy(first_status=empty_status)}
