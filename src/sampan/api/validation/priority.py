"""PriorityClasses. Upstream: `pkg/apis/scheduling/validation`."""

from __future__ import annotations

from sampan.api.errors import FieldError, Object, forbidden_field
from sampan.api.priority_classes import HIGHEST_OF_USERS, SYSTEM, SYSTEM_PREFIX
from sampan.api.validation import metadata
from sampan.api.validation.values import Problems, one_of

PREEMPTION_POLICIES = ("Never", "PreemptLowerPriority")


def priority_class(obj: Object) -> Problems:
    out: list[FieldError] = []
    name, value = (obj.get("metadata") or {}).get("name") or "", obj.get("value") or 0
    if name.startswith(SYSTEM_PREFIX):
        why = _not_of_the_system(name, value, bool(obj.get("globalDefault")))
        if why:
            detail = f"priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {why}"
            out.append(forbidden_field("metadata.name", detail))
    elif value > HIGHEST_OF_USERS:
        detail = f"maximum allowed value of a user defined priority is {HIGHEST_OF_USERS}"
        out.append(forbidden_field("value", detail))
    return out + one_of("preemptionPolicy", obj.get("preemptionPolicy"), PREEMPTION_POLICIES, absent=True)


def _not_of_the_system(name: str, value: int, default: bool) -> str:
    if name not in SYSTEM:
        return f"{name} is not a known system priority class"
    if value != SYSTEM[name]:
        return f"value of {name} PriorityClass must be {SYSTEM[name]}"
    return f"globalDefault of {name} PriorityClass must be false" if default else ""


def priority_class_update(new: Object, old: Object, subresource: str) -> Problems:
    out: list[FieldError] = []
    if (new.get("value") or 0) != (old.get("value") or 0):
        out.append(forbidden_field("value", "may not be changed in an update."))
    policies = (o.get("preemptionPolicy") for o in (new, old))
    return out + metadata.immutable("preemptionPolicy", *policies)
