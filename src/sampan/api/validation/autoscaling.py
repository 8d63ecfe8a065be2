"""HorizontalPodAutoscalers, as autoscaling/v2 has them. Upstream: `pkg/apis/autoscaling/validation/validation.go`."""

from __future__ import annotations

from sampan.api import quantity
from sampan.api.errors import FieldError, Object, forbidden_field, invalid_value, not_supported, required
from sampan.api.validation import formats
from sampan.api.validation.values import Problems, formatted, non_negative

_LONGEST_PERIOD = 1800
_LONGEST_WINDOW = 3600
_SOURCES = {
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
    "External": "external",
    "ContainerResource": "containerResource",
}


def horizontal_pod_autoscaler(obj: Object) -> Problems:
    target = (obj.get("spec") or {}).get("scaleTargetRef") or {}
    # The one kind of the core group that can be scaled.
    grouped = target.get("kind") != "ReplicationController"
    return _spec(obj) + _api_version(target, "spec.scaleTargetRef.apiVersion", grouped=grouped)


def _spec(obj: Object) -> Problems:
    spec = obj.get("spec") or {}
    out: Problems = []
    least, most = spec.get("minReplicas"), spec.get("maxReplicas") or 0
    if least is not None and least < 1:
        out.append(invalid_value("spec.minReplicas", least, "must be greater than or equal to 1"))
    if not most:
        out.append(required("spec.maxReplicas", "must be set and greater than 0"))
    elif most < 0:
        out.append(invalid_value("spec.maxReplicas", most, "must be greater than 0"))
    if least is not None and most < least:
        detail = "must be greater than or equal to `minReplicas`"
        out.append(invalid_value("spec.maxReplicas", most, detail))
    out += _reference(spec.get("scaleTargetRef") or {}, "spec.scaleTargetRef")
    for i, metric in enumerate(spec.get("metrics") or ()):
        out += _metric(metric, f"spec.metrics[{i}]")
    for name, rules in (spec.get("behavior") or {}).items():
        out += _scaling_rules(rules, f"spec.behavior.{name}")
    return out


def horizontal_pod_autoscaler_update(new: Object, old: Object, subresource: str) -> Problems:
    if subresource != "status":
        target, before = ((o.get("spec") or {}).get("scaleTargetRef") or {} for o in (new, old))
        kept = all(target.get(name) == before.get(name) for name in ("apiVersion", "kind"))
        return _spec(new) if kept else horizontal_pod_autoscaler(new)
    status = new.get("status") or {}
    return [
        p for n in ("currentReplicas", "desiredReplicas") for p in non_negative(f"status.{n}", status.get(n))
    ]


def _reference(reference: Object, path: str) -> Problems:
    out: Problems = []
    for name in ("kind", "name"):
        value = reference.get(name)
        out += (
            formatted(f"{path}.{name}", value, formats.path_segment)
            if value
            else [required(f"{path}.{name}")]
        )
    return out


def _api_version(reference: Object, path: str, *, grouped: bool) -> Problems:
    given = reference.get("apiVersion") or ""
    if given.count("/") > 1:
        return [invalid_value(path, given, f"unexpected GroupVersion string: {given}")]
    if grouped and not given.rpartition("/")[0]:
        return [invalid_value(path, given, "apiVersion must specify API group")]
    return []


def _scaling_rules(rules: Object, path: str) -> Problems:
    out: Problems = []
    window, at = rules.get("stabilizationWindowSeconds"), f"{path}.stabilizationWindowSeconds"
    if window is not None and window < 0:
        out.append(invalid_value(at, window, "must be greater than or equal to zero"))
    if window is not None and window > _LONGEST_WINDOW:
        out.append(invalid_value(at, window, f"must be less than or equal to {_LONGEST_WINDOW}"))
    select, choices = rules.get("selectPolicy"), ("Disabled", "Max", "Min")
    if select is not None and select not in choices:
        out.append(not_supported(f"{path}.selectPolicy", select, choices))
    tolerance = rules.get("tolerance")
    if tolerance is not None and quantity.parse(tolerance) < 0:
        out.append(invalid_value(f"{path}.tolerance", tolerance, formats.NON_NEGATIVE))
    policies = rules.get("policies") or []
    if not policies:
        out.append(required(f"{path}.policies", "must specify at least one Policy"))
    for i, policy in enumerate(policies):
        at = f"{path}.policies[{i}]"
        if policy.get("type") not in ("Pods", "Percent"):
            out.append(not_supported(f"{at}.type", policy.get("type") or "", ("Percent", "Pods")))
        for name in ("value", "periodSeconds"):
            if (policy.get(name) or 0) <= 0:
                out.append(invalid_value(f"{at}.{name}", policy.get(name) or 0, "must be greater than zero"))
        period = policy.get("periodSeconds") or 0
        if period > _LONGEST_PERIOD:
            detail = f"must be less than or equal to {_LONGEST_PERIOD}"
            out.append(invalid_value(f"{at}.periodSeconds", period, detail))
    return out


def _metric(metric: Object, path: str) -> Problems:
    out: Problems = []
    kind = metric.get("type") or ""
    if not kind:
        out.append(required(f"{path}.type", "must specify a metric source type"))
    if kind not in _SOURCES:
        out.append(not_supported(f"{path}.type", kind, sorted(_SOURCES)))
    present = [name for name in _SOURCES.values() if metric.get(name) is not None]
    expected = _SOURCES.get(kind)
    if present:
        out += _source(present[0], metric[present[0]], f"{path}.{present[0]}")
    if expected is not None and expected not in present:
        detail = "must populate information for the given metric source"
        out.append(required(f"{path}.{expected}", detail))
    if len(present) != 1:
        detail = "must populate the given metric source only"
        out += [forbidden_field(f"{path}.{name}", detail) for name in present if name != expected]
    return out


def _source(name: str, source: Object, path: str) -> Problems:
    target, at = source.get("target") or {}, f"{path}.target"
    out: Problems = []
    if name in ("resource", "containerResource"):
        if not source.get("name"):
            out.append(required(f"{path}.name", "must specify a resource name"))
        if name == "containerResource":
            container = source.get("container")
            if not container:
                out.append(required(f"{path}.container", "must specify a container"))
            else:
                out += formatted(f"{path}.container", container, formats.dns1123_label)
        return out + _target(target, at) + _share_or_value(target, at)
    if name == "object":
        described, where = source.get("describedObject") or {}, f"{path}.describedObject"
        out += _reference(described, where) + _api_version(described, f"{where}.apiVersion", grouped=False)
    out += _identifier(source.get("metric") or {}, f"{path}.metric") + _target(target, at)
    value, average = target.get("value") is not None, target.get("averageValue") is not None
    if name == "pods":
        if not average:
            out.append(required(f"{at}.averageValue", "must specify a positive target averageValue"))
    elif not value and not average:
        detail = "must set either a target value or averageValue"
        if name == "external":
            detail = "must set either a target value for metric or a per-pod target"
        out.append(required(f"{at}.averageValue", detail))
    elif name == "external" and value and average:
        detail = "may not set both a target value for metric and a per-pod target"
        out.append(forbidden_field(f"{at}.value", detail))
    return out


def _share_or_value(target: Object, path: str) -> Problems:
    share, value = target.get("averageUtilization") is not None, target.get("averageValue") is not None
    if not share and not value:
        detail = "must set either a target raw value or a target utilization"
        return [required(f"{path}.averageUtilization", detail)]
    if share and value:
        detail = "may not set both a target raw value and a target utilization"
        return [forbidden_field(f"{path}.averageValue", detail)]
    return []


def _identifier(metric: Object, path: str) -> Problems:
    name = metric.get("name")
    if not name:
        return [required(f"{path}.name", "must specify a metric name")]
    return formatted(f"{path}.name", name, formats.path_segment)


def _target(target: Object, path: str) -> Problems:
    out: list[FieldError] = []
    kind = target.get("type") or ""
    if not kind:
        out.append(required(f"{path}.type", "must specify a metric target type"))
    if kind not in ("Utilization", "Value", "AverageValue"):
        detail = "must be either Utilization, Value, or AverageValue"
        out.append(invalid_value(f"{path}.type", kind, detail))
    for name in ("value", "averageValue"):
        if target.get(name) is not None and quantity.parse(target[name]) <= 0:
            out.append(invalid_value(f"{path}.{name}", target[name], "must be positive"))
    share = target.get("averageUtilization")
    if share is not None and share < 1:
        out.append(invalid_value(f"{path}.averageUtilization", share, "must be greater than 0"))
    return out
