"""PodDisruptionBudgets. Upstream: `pkg/apis/policy/validation/validation.go`."""

from __future__ import annotations

from sampan.api.errors import Object, invalid_value, not_supported
from sampan.api.validation import metadata
from sampan.api.validation.values import Problems, at_most_100_percent, non_negative, positive_int_or_percent


def pod_disruption_budget(obj: Object) -> Problems:
    spec = obj.get("spec") or {}
    out: Problems = []
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        detail = "minAvailable and maxUnavailable cannot be both set"
        out.append(invalid_value("spec", spec, detail))
    for name in ("minAvailable", "maxUnavailable"):
        if spec.get(name) is not None:
            out += positive_int_or_percent(f"spec.{name}", spec[name])
            out += at_most_100_percent(f"spec.{name}", spec[name])
    out += metadata.label_selector(spec.get("selector"), "spec.selector")
    policy, allowed = spec.get("unhealthyPodEvictionPolicy"), ("AlwaysAllow", "IfHealthyBudget")
    if policy is not None and policy not in allowed:
        out.append(not_supported("spec.unhealthyPodEvictionPolicy", policy, allowed))
    return out


_COUNTS = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")


def pod_disruption_budget_update(new: Object, old: Object, subresource: str) -> Problems:
    if subresource != "status":
        return pod_disruption_budget(new)
    status = new.get("status") or {}
    return [p for name in _COUNTS for p in non_negative(f"status.{name}", status.get(name))]
