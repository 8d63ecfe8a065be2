"""FlowSchemas and PriorityLevelConfigurations. Upstream: `pkg/apis/flowcontrol/validation`."""

from __future__ import annotations

import math

from sampan.api.errors import (
    FieldError,
    Object,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from sampan.api.flow_control import MANDATORY_LEVELS, MANDATORY_SCHEMAS
from sampan.api.strategy import same
from sampan.api.validation import formats
from sampan.api.validation.values import Problems, formatted, present

_MOST_PRECEDENCE = 10000
_MOST_QUEUES = 10_000_000
_HASH_BITS = 60
_DISTINGUISHERS = ("ByNamespace", "ByUser")
_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch")
_NOT_NEGATIVE = "must be a non-negative integer"

# ---- FlowSchema


def flow_schema(obj: Object) -> Problems:
    name, spec = (obj.get("metadata") or {}).get("name") or "", obj.get("spec") or {}
    out = _precedence(spec.get("matchingPrecedence") or 0, name)
    method = spec.get("distinguisherMethod")
    if method is not None and method.get("type") not in _DISTINGUISHERS:
        out.append(not_supported("spec.distinguisherMethod.type", method, _DISTINGUISHERS))
    level = (spec.get("priorityLevelConfiguration") or {}).get("name")
    at = "spec.priorityLevelConfiguration.name"
    if level:
        out += formatted(at, level, formats.dns1123_subdomain)
    else:
        out.append(required(at, "must reference a priority level"))
    for i, rule in enumerate(spec.get("rules") or ()):
        out += _rule(rule, f"spec.rules[{i}]")
    if name in MANDATORY_SCHEMAS and not same(spec, MANDATORY_SCHEMAS[name]["spec"]):
        out.append(invalid_value("spec", spec, f"spec of '{name}' must equal the fixed value"))
    return out + _conditions(obj)


def _precedence(value: int, name: str) -> Problems:
    path = "spec.matchingPrecedence"
    out: list[FieldError] = []
    if value <= 0:
        out.append(invalid_value(path, value, "must be a positive value"))
    if value > _MOST_PRECEDENCE:
        out.append(invalid_value(path, value, f"must not be greater than {_MOST_PRECEDENCE}"))
    if value == 1 and name != "exempt":
        detail = "only the schema named 'exempt' may have matchingPrecedence 1"
        out.append(invalid_value(path, value, detail))
    return out


def _rule(rule: Object, path: str) -> Problems:
    subjects = rule.get("subjects") or []
    out = present(f"{path}.subjects", subjects, "subjects must contain at least one value")
    for i, subject in enumerate(subjects):
        out += _subject(subject, f"{path}.subjects[{i}]")
    resources, paths = rule.get("resourceRules") or [], rule.get("nonResourceRules") or []
    if not resources and not paths:
        out.append(required(path, "at least one of resourceRules and nonResourceRules has to be non-empty"))
    for i, item in enumerate(resources):
        out += _resource_rule(item, f"{path}.resourceRules[{i}]")
    for i, item in enumerate(paths):
        out += _path_rule(item, f"{path}.nonResourceRules[{i}]")
    return out


_SUBJECTS = {"Group": "group", "ServiceAccount": "serviceAccount", "User": "user"}


def _subject(subject: Object, path: str) -> Problems:
    kind = subject.get("kind") or ""
    if kind not in _SUBJECTS:
        return [not_supported(f"{path}.kind", kind, _SUBJECTS)]
    field = _SUBJECTS[kind]
    at, given = f"{path}.{field}", subject.get(field)
    out: list[FieldError] = []
    if given is None:
        out.append(required(at, f"{field} is required when subject kind is '{kind}'"))
    else:
        name = given.get("name") or ""
        out += present(f"{at}.name", name)
        if kind == "ServiceAccount":
            if name not in ("", "*"):
                out += formatted(f"{at}.name", name, formats.dns1123_subdomain)
            if given.get("namespace"):
                out += formatted(f"{at}.namespace", given["namespace"], formats.dns1123_label)
            else:
                out.append(required(f"{at}.namespace", "must specify namespace for service account"))
    for other, name in _SUBJECTS.items():
        if name != field and subject.get(name) is not None:
            detail = f"{name} is forbidden when subject kind is not '{other}'"
            out.append(forbidden_field(f"{path}.{name}", detail))
    return out


def _verbs(rule: Object, path: str) -> Problems:
    verbs = rule.get("verbs") or []
    if not verbs:
        return [required(f"{path}.verbs", "verbs must contain at least one value")]
    if "*" in verbs:
        return _alone(f"{path}.verbs", verbs, "verbs")
    return [not_supported(f"{path}.verbs", verbs, _VERBS)] if set(verbs) - set(_VERBS) else []


def _alone(path: str, values: list[str], what: str) -> Problems:
    """A wildcard stands by itself."""
    if len(values) > 1 and "*" in values:
        return [invalid_value(path, values, f"if '*' is present, must not specify other {what}")]
    return []


def _resource_rule(rule: Object, path: str) -> Problems:
    out = _verbs(rule, path)
    for field, one, many in (
        ("apiGroups", "api group", "api groups"),
        ("resources", "resource", "resources"),
    ):
        values = rule.get(field) or []
        out += present(f"{path}.{field}", values, f"resource rules must supply at least one {one}")
        out += _alone(f"{path}.{field}", values, many)
    spaces = rule.get("namespaces") or []
    if not spaces and not rule.get("clusterScope"):
        detail = "resource rules that are not cluster scoped must supply at least one namespace"
        out.append(required(f"{path}.namespaces", detail))
    elif "*" in spaces:
        out += _alone(f"{path}.namespaces", spaces, "namespaces")
    else:
        begins = "each member of this list must be '*' or a DNS-1123 label; "
        for i, name in enumerate(spaces):
            out += [
                invalid_value(f"{path}.namespaces[{i}]", name, begins + m)
                for m in formats.dns1123_label(name)
            ]
    return out


def _path_rule(rule: Object, path: str) -> Problems:
    out = _verbs(rule, path)
    at, urls = f"{path}.nonResourceURLs", rule.get("nonResourceURLs") or []
    if not urls:
        out.append(required(at, "nonResourceURLs must contain at least one value"))
    elif "*" in urls:
        out += _alone(at, urls, "non-resource URLs")
    else:
        for i, url in enumerate(urls):
            why = _url(url)
            if why:
                out.append(invalid_value(f"{at}[{i}]", url, why))
    return out


def _url(url: str) -> str:
    """What is wrong with a path, or ""."""
    if not url:
        return "must not be empty"
    if url == "/":
        return ""
    if not url.startswith("/"):
        return "must start with slash"
    if " " in url:
        return "must not contain white-space"
    if "//" in url:
        return "must not contain double slash"
    stars = url.count("*")
    return "wildcard can only do suffix matching" if stars > 1 or (stars and not url.endswith("/*")) else ""


def flow_schema_update(new: Object, old: Object, subresource: str) -> Problems:
    return _conditions(new) if subresource == "status" else flow_schema(new)


# ---- PriorityLevelConfiguration


def priority_level_configuration(obj: Object) -> Problems:
    name, spec = (obj.get("metadata") or {}).get("name") or "", obj.get("spec") or {}
    kind, limited, exempt = spec.get("type") or "", spec.get("limited"), spec.get("exempt")
    out: list[FieldError] = []
    if (name == "exempt") != (kind == "Exempt"):
        out.append(invalid_value("spec.type", kind, "type must be 'Exempt' if and only if name is 'exempt'"))
    if kind == "Exempt":
        if limited is not None:
            out.append(forbidden_field("spec.limited", "must be nil if the type is not Limited"))
        out += _shares(exempt or {}, "spec.exempt")
    elif kind == "Limited":
        if exempt is not None:
            out.append(forbidden_field("spec.exempt", "must be nil if the type is Limited"))
        if limited is None:
            out.append(required("spec.limited", "must not be empty when type is Limited"))
        else:
            out += _limited(limited, "spec.limited")
    else:
        out.append(not_supported("spec.type", kind, ("Exempt", "Limited")))
    if name in MANDATORY_LEVELS:
        fixed = MANDATORY_LEVELS[name]["spec"]
        # How much of the exempt level others may borrow is free to be changed.
        if name == "exempt":
            fixed = {**fixed, "exempt": exempt}
        if not same(spec, fixed):
            but = " except the 'spec.exempt' field" if name == "exempt" else ""
            out.append(invalid_value("spec", spec, f"spec of '{name}'{but} must equal the fixed value"))
    return out + _conditions(obj)


def _shares(part: Object, path: str) -> Problems:
    out: list[FieldError] = []
    shares, lendable = part.get("nominalConcurrencyShares"), part.get("lendablePercent")
    if shares is not None and shares < 0:
        out.append(invalid_value(f"{path}.nominalConcurrencyShares", shares, _NOT_NEGATIVE))
    if lendable is not None and not 0 <= lendable <= 100:
        detail = "must be between 0 and 100, inclusive"
        out.append(invalid_value(f"{path}.lendablePercent", lendable, detail))
    return out


def _limited(limited: Object, path: str) -> Problems:
    out = _shares(limited, path)
    borrowing = limited.get("borrowingLimitPercent")
    if borrowing is not None and borrowing < 0:
        detail = f"if specified, {_NOT_NEGATIVE}"
        out.append(invalid_value(f"{path}.borrowingLimitPercent", borrowing, detail))
    response = limited.get("limitResponse") or {}
    at, kind, queuing = f"{path}.limitResponse", response.get("type") or "", response.get("queuing")
    if kind == "Reject":
        if queuing is not None:
            detail = "must be nil if limited.limitResponse.type is not Limited"
            out.append(forbidden_field(f"{at}.queuing", detail))
    elif kind == "Queue":
        if queuing is None:
            detail = "must not be empty if limited.limitResponse.type is Limited"
            out.append(required(f"{at}.queuing", detail))
        else:
            out += _queuing(queuing, f"{at}.queuing")
    else:
        out.append(not_supported(f"{at}.type", kind, ("Queue", "Reject")))
    return out


def _queuing(queuing: Object, path: str) -> Problems:
    out: list[FieldError] = []
    length, queues, hand = (queuing.get(n) or 0 for n in ("queueLengthLimit", "queues", "handSize"))
    if length <= 0:
        out.append(invalid_value(f"{path}.queueLengthLimit", length, "must be positive"))
    if queues <= 0:
        out.append(invalid_value(f"{path}.queues", queues, "must be positive"))
    elif queues > _MOST_QUEUES:
        out.append(invalid_value(f"{path}.queues", queues, f"must not be greater than {_MOST_QUEUES}"))
    at = f"{path}.handSize"
    if hand <= 0:
        out.append(invalid_value(at, hand, "must be positive"))
    elif hand > queues:
        out.append(invalid_value(at, hand, f"should not be greater than queues ({queues})"))
    elif math.ceil(math.log2(queues) * hand) > _HASH_BITS:
        detail = f"required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {_HASH_BITS}"
        out.append(invalid_value(at, hand, detail))
    return out


def priority_level_configuration_update(new: Object, old: Object, subresource: str) -> Problems:
    return _conditions(new) if subresource == "status" else priority_level_configuration(new)


def _conditions(obj: Object) -> Problems:
    out: list[FieldError] = []
    seen: set[str] = set()
    for i, condition in enumerate((obj.get("status") or {}).get("conditions") or ()):
        at, kind = f"status.conditions[{i}].type", condition.get("type") or ""
        if kind in seen:
            out.append(duplicate(at, kind))
        seen.add(kind)
        out += present(at, kind, "must not be empty")
    return out
