"""Compute resources: requests and limits of containers and pods, capacities of nodes."""

from __future__ import annotations

from decimal import Decimal

from sampan.api import quantity
from sampan.api.errors import FieldError, Object, forbidden_field, invalid_value, required
from sampan.api.validation import formats
from sampan.api.validation.values import Problems, formatted

_STANDARD = {"cpu", "memory", "ephemeral-storage"}
_INTEGER = {
    "configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services",
    "services.loadbalancers", "services.nodeports",
}  # fmt: skip


def native(name: str) -> bool:
    return "/" not in name or name.partition("/")[0].endswith("kubernetes.io")


def _extended(name: str) -> bool:
    """A resource that a device plugin advertises: counted in whole units, never overcommitted."""
    return not native(name) and not name.startswith("requests.")


def _huge(name: str) -> bool:
    return name.startswith("hugepages-")


def overcommit(name: str) -> bool:
    """Whether more of a resource may be allowed than is asked for."""
    return native(name) and not _huge(name)


def container_name(path: str, name: str) -> Problems:
    out = formatted(path, name, formats.qualified_name)
    if out:
        return out
    if "/" not in name:
        if name not in _STANDARD and not _huge(name):
            return [
                invalid_value(path, name, "must be a standard resource type or fully qualified"),
                invalid_value(path, name, "must be a standard resource for containers"),
            ]
    elif not native(name) and not _extended(name):
        return [invalid_value(path, name, "doesn't follow extended resource name standard")]
    return []


def amount(path: str, name: str, value: str) -> Problems:
    given = quantity.parse(value)
    out: list[FieldError] = []
    if given < 0:
        out.append(invalid_value(path, value, formats.NON_NEGATIVE))
    if (name in _INTEGER or _extended(name)) and given != given.to_integral_value():
        out.append(invalid_value(path, value, "must be an integer"))
    return out


def requirements(resources: Object | None, path: str, claims: set[str] | None = None) -> Problems:
    """Requests and limits: names, amounts, and no request above its limit."""
    if not resources:
        return []
    out: list[FieldError] = []
    limits = resources.get("limits") or {}
    requests = resources.get("requests") or {}
    for name, value in limits.items():
        at = f"{path}.limits[{name}]"
        out += container_name(at, name) + amount(at, name, value)
    for name, value in requests.items():
        at = f"{path}.requests[{name}]"
        out += container_name(at, name) + amount(at, name, value)
        if name not in limits:
            if not overcommit(name):
                out.append(required(f"{path}.limits", "Limit must be set for non overcommitable resources"))
            continue
        order = quantity.compare(value, limits[name])
        limit = quantity.format(limits[name])
        if order != 0 and not overcommit(name):
            out.append(invalid_value(f"{path}.requests", value, f"must be equal to {name} limit of {limit}"))
        elif order > 0:
            detail = f"must be less than or equal to {name} limit of {limit}"
            out.append(invalid_value(f"{path}.requests", value, detail))
    named = limits.keys() | requests.keys()
    if any(map(_huge, named)) and not named & {"cpu", "memory"}:
        out.append(forbidden_field(path, "HugePages require cpu or memory"))
    for i, claim in enumerate(resources.get("claims") or ()):
        if not claim.get("name"):
            out.append(required(f"{path}.claims[{i}]"))
        elif claims is not None and claim["name"] not in claims:
            detail = "must be one of the names in pod.spec.resourceClaims"
            out.append(invalid_value(f"{path}.claims[{i}]", claim["name"], detail))
    return out


def total(containers: list[Object], name: str) -> Decimal:
    """The sum of the requests of some containers for one resource."""
    found = [((c.get("resources") or {}).get("requests") or {}).get(name) for c in containers]
    return sum((quantity.parse(f) for f in found if f is not None), Decimal(0))
