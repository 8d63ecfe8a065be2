"""FlowSchemas and PriorityLevelConfigurations."""

from __future__ import annotations

from sampan.api.strategy.types import Strategy, empty_status, spec_changed

_COUNTED = Strategy(generation=spec_changed, first_status=empty_status)
STRATEGIES: dict[str, Strategy] = {
    "flowschemas.flowcontrol.apiserver.k8s.io": _COUNTED,
    "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io": _COUNTED,
}
