"""What steers a pod to nodes: selectors, affinity, tolerations, spreading; and the taints of nodes."""

from __future__ import annotations

from sampan.api.errors import (
    ErrorType,
    FieldError,
    Object,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from sampan.api.validation import formats, metadata
from sampan.api.validation.values import Problems, formatted, one_of, present

_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_HARD = "requiredDuringSchedulingIgnoredDuringExecution"
_SOFT = "preferredDuringSchedulingIgnoredDuringExecution"


def affinity(given: Object | None, path: str) -> Problems:
    if not given:
        return []
    out: list[FieldError] = []
    node = given.get("nodeAffinity") or {}
    if node.get(_HARD) is not None:
        out += node_selector(node[_HARD], f"{path}.nodeAffinity.{_HARD}")
    for i, term in enumerate(node.get(_SOFT) or ()):
        at = f"{path}.nodeAffinity.{_SOFT}[{i}]"
        out += _weight(term, at) + _node_term(term.get("preference") or {}, f"{at}.preference", strict=False)
    for name in ("podAffinity", "podAntiAffinity"):
        pods = given.get(name) or {}
        for i, term in enumerate(pods.get(_HARD) or ()):
            out += _pod_term(term, f"{path}.{name}.{_HARD}[{i}]")
        for i, term in enumerate(pods.get(_SOFT) or ()):
            at = f"{path}.{name}.{_SOFT}[{i}]"
            out += _weight(term, at) + _pod_term(term.get("podAffinityTerm") or {}, f"{at}.podAffinityTerm")
    return out


def _weight(term: Object, path: str) -> Problems:
    weight = term.get("weight") or 0
    return (
        [] if 1 <= weight <= 100 else [invalid_value(f"{path}.weight", weight, "must be in the range 1-100")]
    )


def node_selector(selector: Object, path: str) -> Problems:
    terms = selector.get("nodeSelectorTerms")
    if not terms:
        return [required(f"{path}.nodeSelectorTerms", "must have at least one node selector term")]
    return [p for i, t in enumerate(terms) for p in _node_term(t, f"{path}.nodeSelectorTerms[{i}]")]


def _node_term(term: Object, path: str, strict: bool = True) -> Problems:
    out: list[FieldError] = []
    for i, rule in enumerate(term.get("matchExpressions") or ()):
        at = f"{path}.matchExpressions[{i}]"
        operator, values = rule.get("operator", ""), rule.get("values") or []
        if operator in ("In", "NotIn"):
            out += present(f"{at}.values", values, "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                out.append(forbidden_field(f"{at}.values", detail))
        elif operator in ("Gt", "Lt"):
            if len(values) != 1:
                detail = "must be specified single value when `operator` is 'Lt' or 'Gt'"
                out.append(required(f"{at}.values", detail))
        else:
            out.append(invalid_value(f"{at}.operator", operator, "not a valid selector operator"))
        out += formatted(f"{at}.key", rule.get("key", ""), formats.qualified_name)
        if strict:
            for j, value in enumerate(values):
                out += formatted(f"{at}.values[{j}]", value, formats.label_value)
    for i, rule in enumerate(term.get("matchFields") or ()):
        at = f"{path}.matchFields[{i}]"
        values = rule.get("values") or []
        if rule.get("operator") not in ("In", "NotIn"):
            out.append(
                invalid_value(f"{at}.operator", rule.get("operator", ""), "not a valid selector operator")
            )
        elif len(values) != 1:
            detail = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
            out.append(required(f"{at}.values", detail))
        if rule.get("key") != "metadata.name":
            out.append(invalid_value(f"{at}.key", rule.get("key", ""), "not a valid field selector key"))
        else:
            for j, value in enumerate(values):
                out += formatted(f"{at}.values[{j}]", value, formats.dns1123_subdomain)
    return out


def _pod_term(term: Object, path: str) -> Problems:
    out = metadata.label_selector(term.get("labelSelector"), f"{path}.labelSelector")
    out += metadata.label_selector(term.get("namespaceSelector"), f"{path}.namespaceSelector")
    for name in term.get("namespaces") or ():
        out += formatted(f"{path}.namespace", name, formats.dns1123_label)
    key = term.get("topologyKey") or ""
    if not key:
        out.append(required(f"{path}.topologyKey", "can not be empty"))
    return out + formatted(f"{path}.topologyKey", key, formats.qualified_name)


def tolerations(given: list[Object], path: str) -> Problems:
    out: list[FieldError] = []
    for i, toleration in enumerate(given):
        at = f"{path}[{i}]"
        key, operator = toleration.get("key") or "", toleration.get("operator") or ""
        value, effect = toleration.get("value") or "", toleration.get("effect") or ""
        if key:
            out += formatted(f"{at}.key", key, formats.qualified_name)
        elif operator != "Exists":
            detail = (
                'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            )
            out.append(invalid_value(f"{at}.operator", operator, detail))
        if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
            detail = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            out.append(invalid_value(f"{at}.effect", effect, detail))
        if operator in ("Equal", ""):
            wrong = formats.label_value(value)
            if wrong:
                out.append(invalid_value(f"{at}.operator", value, ";".join(wrong)))
        elif operator == "Exists":
            if value:
                detail = "value must be empty when `operator` is 'Exists'"
                out.append(invalid_value(f"{at}.operator", value, detail))
        else:
            out.append(not_supported(f"{at}.operator", operator, ("Equal", "Exists")))
        if effect:
            out += one_of(f"{at}.effect", effect, _EFFECTS)
    return out


def taints(given: list[Object], path: str) -> Problems:
    out: list[FieldError] = []
    seen: set[tuple[str, str]] = set()
    for i, taint in enumerate(given):
        at = f"{path}[{i}]"
        key, effect = taint.get("key") or "", taint.get("effect") or ""
        out += formatted(f"{at}.key", key, formats.qualified_name)
        wrong = formats.label_value(taint.get("value") or "")
        if wrong:
            out.append(invalid_value(f"{at}.value", taint["value"], ";".join(wrong)))
        out += one_of(f"{at}.effect", effect, _EFFECTS)
        if (key, effect) in seen:
            out.append(
                FieldError(ErrorType.DUPLICATE, at, taint, "taints must be unique by key and effect pair")
            )
        seen.add((key, effect))
    return out


def topology_spread(given: list[Object], path: str) -> Problems:
    out: list[FieldError] = []
    seen: set[tuple[str, str]] = set()
    for i, rule in enumerate(given):
        at = f"{path}[{i}]"
        key, action = rule.get("topologyKey") or "", rule.get("whenUnsatisfiable") or ""
        if (rule.get("maxSkew") or 0) <= 0:
            out.append(invalid_value(f"{at}.maxSkew", rule.get("maxSkew") or 0, "must be greater than zero"))
        out += present(f"{at}.topologyKey", key, "can not be empty")
        if action not in ("DoNotSchedule", "ScheduleAnyway"):
            allowed = ("DoNotSchedule", "ScheduleAnyway")
            out.append(not_supported(f"{at}.whenUnsatisfiable", action, allowed))
        if (key, action) in seen:
            out.append(duplicate(f"{at}.{{topologyKey, whenUnsatisfiable}}", f"{{{key}, {action}}}"))
        seen.add((key, action))
        domains = rule.get("minDomains")
        if domains is not None:
            if domains <= 0:
                out.append(invalid_value(f"{at}.minDomains", domains, "must be greater than zero"))
            if action != "DoNotSchedule":
                detail = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                out.append(invalid_value(f"{at}.minDomains", domains, detail))
        for name in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            out += one_of(f"{at}.{name}", rule.get(name), ("Honor", "Ignore"), absent=True)
        out += metadata.label_selector(rule.get("labelSelector"), f"{at}.labelSelector")
        if rule.get("matchLabelKeys") and rule.get("labelSelector") is None:
            detail = "must not be specified when labelSelector is not set"
            out.append(forbidden_field(f"{at}.matchLabelKeys", detail))
    return out
