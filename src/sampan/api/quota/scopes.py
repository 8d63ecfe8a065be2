"""The scopes of a quota: which objects it is about."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sampan.api.errors import Object


def of(quota: Object) -> list[Mapping[str, Any]]:
    """All scopes as rules of a scope selector: an object must be in each."""
    spec = quota.get("spec") or {}
    plain = [{"scopeName": name, "operator": "Exists"} for name in spec.get("scopes") or ()]
    return [*plain, *((spec.get("scopeSelector") or {}).get("matchExpressions") or ())]


def selects(rule: Mapping[str, Any], named: Collection[str]) -> bool:
    """Whether a rule with an operator selects an object that names these (one of them is enough)."""
    values = rule.get("values") or ()
    match rule.get("operator"):
        case "Exists":
            return bool(named)
        case "DoesNotExist":
            return not named
        case "In":
            return any(n in values for n in named)
        case "NotIn":
            return not named or any(n not in values for n in named)
    return False
