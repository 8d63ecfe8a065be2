"""Deployments and ReplicaSets."""

from __future__ import annotations

from sampan.api import selectors
from sampan.api.errors import FieldError, Object, forbidden_field, invalid_value, not_supported, required
from sampan.api.validation import metadata, pods
from sampan.api.validation.values import Problems, non_negative, one_of, positive_int_or_percent


def deployment(obj: Object) -> Problems:
    spec = obj.get("spec") or {}
    out = _workload(spec)
    out += _strategy(spec.get("strategy") or {}, "spec.strategy")
    out += non_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    out += non_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None:
        out += non_negative("spec.progressDeadlineSeconds", deadline)
        if deadline <= (spec.get("minReadySeconds") or 0):
            detail = "must be greater than minReadySeconds"
            out.append(invalid_value("spec.progressDeadlineSeconds", deadline, detail))
    return out


def replica_set(obj: Object) -> Problems:
    spec = obj.get("spec") or {}
    return _workload(spec) + non_negative("spec.minReadySeconds", spec.get("minReadySeconds"))


def _workload(spec: Object) -> Problems:
    """Replicas, selector and template, and that they belong together."""
    out = non_negative("spec.replicas", spec.get("replicas"))
    selector = spec.get("selector")
    usable = False
    if selector is None:
        out.append(required("spec.selector"))
    else:
        wrong = metadata.label_selector(selector, "spec.selector")
        out += wrong
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            out.append(invalid_value("spec.selector", selector, "empty selector is invalid for deployment"))
        else:
            usable = not wrong
    item = spec.get("template")
    if item is None:
        return [*out, required("spec.template")]
    labels = (item.get("metadata") or {}).get("labels") or {}
    if usable and not selectors.from_object(selector).matches(labels):
        detail = "`selector` does not match template `labels`"
        out.append(invalid_value("spec.template.metadata.labels", labels, detail))
    out += pods.template(item, "spec.template")
    pod = item.get("spec") or {}
    policy = pod.get("restartPolicy")
    if policy in ("OnFailure", "Never"):
        out.append(not_supported("spec.template.spec.restartPolicy", policy, ("Always",)))
    if pod.get("activeDeadlineSeconds") is not None:
        detail = "activeDeadlineSeconds in ReplicaSet is not Supported"
        out.append(forbidden_field("spec.template.spec.activeDeadlineSeconds", detail))
    return out


def _strategy(strategy: Object, path: str) -> Problems:
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if kind == "Recreate":
        if rolling is None:
            return []
        detail = "may not be specified when strategy `type` is 'Recreate'"
        return [forbidden_field(f"{path}.rollingUpdate", detail)]
    if kind != "RollingUpdate":
        return one_of(f"{path}.type", kind, ("Recreate", "RollingUpdate"))
    if rolling is None:
        return [required(f"{path}.rollingUpdate", "this should be defaulted and never be nil")]
    out: list[FieldError] = []
    unavailable, surge = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
    at = f"{path}.rollingUpdate"
    out += positive_int_or_percent(f"{at}.maxUnavailable", unavailable)
    out += positive_int_or_percent(f"{at}.maxSurge", surge)
    if not out:
        if _amount(unavailable) == 0 and _amount(surge) == 0:
            out.append(
                invalid_value(f"{at}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0")
            )
        if isinstance(unavailable, str) and _amount(unavailable) > 100:
            out.append(invalid_value(f"{at}.maxUnavailable", unavailable, "must not be greater than 100%"))
    return out


def _amount(value: int | str) -> int:
    return int(value.removesuffix("%")) if isinstance(value, str) else value


def deployment_update(new: Object, old: Object, subresource: str) -> Problems:
    return _update(new, old, subresource) + (deployment(new) if subresource != "status" else [])


def replica_set_update(new: Object, old: Object, subresource: str) -> Problems:
    return _update(new, old, subresource) + (replica_set(new) if subresource != "status" else [])


_COUNTS = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas",
           "fullyLabeledReplicas", "terminatingReplicas", "observedGeneration", "collisionCount")  # fmt: skip


def _update(new: Object, old: Object, subresource: str) -> Problems:
    if subresource == "status":
        return _status(new.get("status") or {}, old.get("status") or {})
    selector = (new.get("spec") or {}).get("selector")
    return metadata.immutable("spec.selector", selector, (old.get("spec") or {}).get("selector"))


def _status(status: Object, before: Object) -> Problems:
    out = [p for name in _COUNTS for p in non_negative(f"status.{name}", status.get(name))]
    total = status.get("replicas") or 0
    for name in ("updatedReplicas", "readyReplicas", "availableReplicas", "fullyLabeledReplicas"):
        count = status.get(name) or 0
        if count > total:
            out.append(invalid_value(f"status.{name}", count, "cannot be greater than status.replicas"))
    available = status.get("availableReplicas") or 0
    if available > (status.get("readyReplicas") or 0):
        detail = "cannot be greater than readyReplicas"
        out.append(invalid_value("status.availableReplicas", available, detail))
    collisions = before.get("collisionCount")
    if collisions is not None and (status.get("collisionCount") or 0) < collisions:
        out.append(
            invalid_value("status.collisionCount", status.get("collisionCount"), "cannot be decremented")
        )
    return out
