"""What a namespace may use: LimitRanges and ResourceQuotas. Upstream: `pkg/apis/core/validation`."""

from __future__ import annotations

from sampan.api import quantity
from sampan.api.errors import FieldError, Object, duplicate, forbidden_field, invalid_value, required
from sampan.api.validation import formats, resources
from sampan.api.validation.values import Problems, formatted

_LIMIT_TYPES = ("Container", "PersistentVolumeClaim", "Pod")
_COUNTED = {
    "configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services",
    "services.loadbalancers", "services.nodeports",
}  # fmt: skip
_COMPUTE = {
    "cpu", "memory", "ephemeral-storage", "limits.cpu", "limits.memory", "limits.ephemeral-storage", "requests.cpu",
    "requests.memory", "requests.ephemeral-storage",
}  # fmt: skip
_STANDARD = _COUNTED | _COMPUTE | {"storage", "requests.storage"}
_IN_QUOTAS = _STANDARD - {"storage"}
_HUGE = ("hugepages-", "requests.hugepages-")

_OF_PODS = {"pods", "cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"}
_OF_CLAIMS = {"persistentvolumeclaims", "requests.storage"}
_SCOPES: dict[str, set[str]] = {
    "BestEffort": {"pods"},
    "CrossNamespacePodAffinity": _OF_PODS,
    "NotBestEffort": _OF_PODS,
    "NotTerminating": _OF_PODS,
    "PriorityClass": _OF_PODS,
    "Terminating": _OF_PODS,
    "VolumeAttributesClass": _OF_CLAIMS,
}
"""Each scope of a quota, and the resources that it can be applied to."""
_WITHOUT_VALUES = (
    "BestEffort",
    "NotBestEffort",
    "Terminating",
    "NotTerminating",
    "CrossNamespacePodAffinity",
)
_OPPOSITES = (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating"))


def resource_name(path: str, name: str) -> Problems:
    """The name of any resource, in a limit or in a quota."""
    out = formatted(path, name, formats.qualified_name)
    if not out and "/" not in name and name not in _STANDARD and not name.startswith(_HUGE):
        out.append(invalid_value(path, name, "must be a standard resource type or fully qualified"))
    return out


# ---- LimitRange


def limit_range(obj: Object) -> Problems:
    out: list[FieldError] = []
    seen: set[str] = set()
    for i, limit in enumerate((obj.get("spec") or {}).get("limits") or ()):
        at = f"spec.limits[{i}]"
        kind = limit.get("type") or ""
        wrong = formatted(f"{at}.type", kind, formats.qualified_name)
        if not wrong and "/" not in kind and kind not in _LIMIT_TYPES:
            detail = "must be a standard limit type or fully qualified"
            wrong.append(invalid_value(f"{at}.type", kind, detail))
        out += wrong
        if kind in seen:
            out.append(duplicate(f"{at}.type", kind))
        seen.add(kind)
        out += _limit_names(limit, kind, at)
        if kind == "PersistentVolumeClaim" and not any(
            "storage" in (limit.get(bound) or {}) for bound in ("min", "max")
        ):
            detail = "either minimum or maximum storage value is required, but neither was provided"
            out.append(required(f"{at}.limits", detail))
        out += _limit_order(limit, at)
    return out


def _limit_names(limit: Object, kind: str, path: str) -> Problems:
    out: list[FieldError] = []
    check = resources.container_name if kind in ("Pod", "Container") else resource_name
    for part in ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio"):
        amounts = limit.get(part) or {}
        if kind == "Pod" and part.startswith("default"):
            if amounts:
                out.append(forbidden_field(f"{path}.{part}", "may not be specified when `type` is 'Pod'"))
            continue
        for name in amounts:
            out += check(f"{path}.{part}[{name}]", name)
    return out


_ORDER = (
    ("min", "max", "min", "min value {} is greater than max value {}"),
    ("min", "defaultRequest", "defaultRequest", "min value {} is greater than default request value {}"),
    ("defaultRequest", "max", "defaultRequest", "default request value {} is greater than max value {}"),
    (
        "defaultRequest",
        "default",
        "defaultRequest",
        "default request value {} is greater than default limit value {}",
    ),
    ("min", "default", "default", "min value {} is greater than default value {}"),
    ("default", "max", "default", "default value {} is greater than max value {}"),
)
"""Which amount must not be above which, the field to blame, and how it is told."""


def _limit_order(limit: Object, path: str) -> Problems:
    """How the amounts of one resource must stand to each other."""
    out: list[FieldError] = []
    parts = {name: limit.get(name) or {} for name in ("min", "max", "default", "defaultRequest")}
    ratios = limit.get("maxLimitRequestRatio") or {}
    if limit.get("type") == "Pod":
        parts["default"] = parts["defaultRequest"] = {}
    for name in dict.fromkeys([*(n for part in parts.values() for n in part), *ratios]):
        for low, high, blamed, text in _ORDER:
            a, b = parts[low].get(name), parts[high].get(name)
            if a is not None and b is not None and quantity.compare(a, b) > 0:
                detail = text.format(quantity.format(a), quantity.format(b))
                # Upstream shows the bound that is broken where it blames a default for it.
                shown = parts[blamed][name] if blamed != "default" else (a if low == "min" else b)
                out.append(invalid_value(f"{path}.{blamed}[{name}]", shown, detail))
        if name in ratios:
            at = f"{path}.maxLimitRequestRatio[{name}]"
            out += _ratio(ratios[name], parts["min"].get(name), parts["max"].get(name), at)
        default, request = parts["default"].get(name), parts["defaultRequest"].get(name)
        if (
            default is not None
            and request is not None
            and not resources.overcommit(name)
            and quantity.compare(default, request)
        ):
            detail = (
                f"default value {quantity.format(default)} must equal to defaultRequest value "
                f"{quantity.format(request)} in {name}"
            )
            out.append(invalid_value(f"{path}.defaultRequest[{name}]", request, detail))
    return out


def _ratio(ratio: str, low: str | None, high: str | None, path: str) -> Problems:
    out: list[FieldError] = []
    if quantity.compare(ratio, 1) < 0:
        out.append(invalid_value(path, ratio, f"ratio {quantity.format(ratio)} is less than 1"))
    if low is not None and high is not None and quantity.parse(low):
        most = quantity.parse(high) / quantity.parse(low)
        if quantity.parse(ratio) > most:
            detail = f"ratio {quantity.format(ratio)} is greater than max/min = {most:.6f}"
            out.append(invalid_value(path, ratio, detail))
    return out


# ---- ResourceQuota


def resource_quota(obj: Object) -> Problems:
    spec = obj.get("spec") or {}
    return _amounts(spec, "hard", "spec") + _scopes(spec) + _scope_selector(spec)


def resource_quota_update(new: Object, old: Object, subresource: str) -> Problems:
    if subresource == "status":
        status = new.get("status") or {}
        return _amounts(status, "hard", "status") + _amounts(status, "used", "status")
    out = resource_quota(new)
    scopes, before = ((o.get("spec") or {}).get("scopes") or [] for o in (new, old))
    if set(scopes) != set(before):
        out.append(invalid_value("spec.scopes", scopes, formats.IMMUTABLE))
    return out


def _amounts(part: Object, field: str, path: str) -> Problems:
    out: list[FieldError] = []
    for name, value in (part.get(field) or {}).items():
        at = f"{path}.{field}[{name}]"
        out += resource_name(at, name)
        if "/" not in name and name not in _IN_QUOTAS and not name.startswith(_HUGE):
            out.append(invalid_value(at, name, "must be a standard resource for quota"))
        out += resources.amount(at, name, value)
    return out


def _fits(scope: str, spec: Object) -> bool:
    """Whether every resource of a quota is one that the scope can be applied to."""
    named = (n for n in spec.get("hard") or () if n in _IN_QUOTAS or n.startswith(_HUGE))
    return scope not in _SCOPES or all(n in _SCOPES[scope] for n in named)


def _opposites(scopes: set[str], spec: Object, path: str) -> Problems:
    return [
        invalid_value(path, spec.get("scopes"), "conflicting scopes")
        for pair in _OPPOSITES
        if scopes.issuperset(pair)
    ]


def _scopes(spec: Object) -> Problems:
    out: list[FieldError] = []
    path, scopes = "spec.scopes", spec.get("scopes") or []
    for scope in scopes:
        if scope not in _SCOPES:
            out.append(invalid_value(path, scopes, "unsupported scope"))
        if not _fits(scope, spec):
            out.append(invalid_value(path, scopes, "unsupported scope applied to resource"))
    return out + _opposites(set(scopes), spec, path)


def _scope_selector(spec: Object) -> Problems:
    selector = spec.get("scopeSelector")
    if selector is None:
        return []
    out: list[FieldError] = []
    path = "spec.scopeSelector.matchExpressions"
    named: set[str] = set()
    for rule in selector.get("matchExpressions") or ():
        scope, operator, values = rule.get("scopeName") or "", rule.get("operator") or "", rule.get("values")
        named.add(scope)
        if scope not in _SCOPES:
            out.append(invalid_value(f"{path}.scopeName", scope, "unsupported scope"))
        if not _fits(scope, spec):
            out.append(invalid_value(path, selector, "unsupported scope applied to resource"))
        if scope in _WITHOUT_VALUES and operator != "Exists":
            detail = (
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
                "ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or "
                "ResourceQuotaScopeCrossNamespacePodAffinity"
            )
            out.append(invalid_value(f"{path}.operator", operator, detail))
        if operator in ("In", "NotIn"):
            if not values:
                detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
                out.append(required(f"{path}.values", detail))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
                out.append(invalid_value(f"{path}.values", values, detail))
        else:
            out.append(invalid_value(f"{path}.operator", operator, "not a valid selector operator"))
    return out + _opposites(named, spec, path)
