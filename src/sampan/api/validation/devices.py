"""Claims for devices: DeviceClasses, ResourceClaims and their templates (resource.k8s.io).

Upstream compiles the CEL expressions of selectors; here only their size is held against the rules.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import msgspec

from sampan.api.errors import (
    FieldError,
    Object,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    too_long,
    too_many,
)
from sampan.api.strategy.types import same
from sampan.api.validation import formats, metadata
from sampan.api.validation.persistent_volumes import driver_name
from sampan.api.validation.scheduling import node_selector
from sampan.api.validation.values import Problems, formatted, named

MOST_REQUESTS = MOST_CONSTRAINTS = MOST_CONFIGS = MOST_SELECTORS = 32
MOST_ALTERNATIVES = 8
MOST_TOLERATIONS = 16
MOST_CONSUMERS = 256
MOST_BINDING_CONDITIONS = 4
MOST_DEVICE_CONDITIONS = 8
EXPRESSION_BYTES = PARAMETERS_BYTES = 10 * 1024
_DOMAIN_BYTES, _ID_BYTES = 63, 32
_TAINT_EFFECTS = ("NoExecute", "NoSchedule", "None")
_OPERATORS = ("Equal", "Exists")
_MODES = ("All", "ExactCount")
_NAME_REFERENCE = (
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
)
_REASON = "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?"
_uid = re.compile("[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}").fullmatch

Check = Callable[[Any, str], Problems]
Requests = Mapping[str, set[str] | None]
"""The names of a claim's requests, each with those of its alternatives."""


def each(items: Sequence[Any] | None, path: str, most: int, check: Check) -> Problems:
    """Every item of a list that is not too long; of one that is, nothing but that."""
    items = items or ()
    if 0 <= most < len(items):
        return [too_many(path, len(items), most)]
    return [p for i, item in enumerate(items) for p in check(item, f"{path}[{i}]")]


def each_once(
    items: Sequence[Any] | None, path: str, most: int, check: Check, key: Callable[[Any], Hashable] = str
) -> Problems:
    """The same for a list without duplicates; `key` tells them."""
    items = items or ()
    out = each(items, path, most, check)
    if 0 <= most < len(items):
        return out
    seen: set[Hashable] = set()
    for i, item in enumerate(items):
        found = key(item)
        if found in seen:
            out.append(duplicate(f"{path}[{i}]", found))
        seen.add(found)
    return out


def _name(item: Any) -> str:
    return str(item.get("name") or "")


# ---- names


def pool_name(path: str, name: str) -> Problems:
    if not name:
        return [required(path)]
    out = [too_long(path, 253)] if len(name) > 253 else []
    return out + [p for part in name.split("/") for p in formatted(path, part, formats.dns1123_subdomain)]


def qualified_name(path: str, name: str) -> Problems:
    """The name of an attribute or capacity: an identifier, with the domain it is of before a slash or without."""
    parts = name.split("/")
    if len(parts) > 2:
        return [invalid_value(path, name, "must not contain more than one slash")]
    out: list[FieldError] = []
    if len(parts) == 2:
        domain = parts[0]
        out += (
            driver_name(path, domain) if domain else [invalid_value(path, "", "the domain must not be empty")]
        )
        if not parts[1]:
            return [*out, invalid_value(path, "", "the name must not be empty")]
    if len(parts[-1]) > _ID_BYTES:
        out.append(too_long(path, _ID_BYTES))
    return out + formatted(path, parts[-1], formats.c_identifier)


def fully_qualified_name(path: str, name: str) -> Problems:
    out = qualified_name(path, name)
    if "/" not in name:
        detail = "a fully qualified name must be a domain and a name separated by a slash"
        out.append(invalid_value(path, name, detail))
    return out


def _share_id(path: str, value: str) -> Problems:
    if not _uid(value):
        return [invalid_value(path, value, "error validating uid: invalid UUID format")]
    if value != value.lower():
        detail = (
            "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase "
            "hexadecimal characters"
        )
        return [invalid_value(path, value, detail)]
    return []


# ---- what a class and a request are made of


def _selectors(selectors: Sequence[Object] | None, path: str) -> Problems:
    def check(selector: Object, at: str) -> Problems:
        cel = selector.get("cel")
        if cel is None:
            return [required(f"{at}.cel")]
        expression = cel.get("expression") or ""
        if len(expression.encode()) > EXPRESSION_BYTES:
            return [too_long(f"{at}.cel.expression", EXPRESSION_BYTES)]
        return [] if expression else [required(f"{at}.cel.expression")]

    return each(selectors, path, MOST_SELECTORS, check)


def _configuration(config: Object, path: str) -> Problems:
    opaque = config.get("opaque")
    if opaque is None:
        return [required(f"{path}.opaque")]
    out = driver_name(f"{path}.opaque.driver", opaque.get("driver") or "")
    return out + _raw(opaque.get("parameters"), f"{path}.opaque.parameters")


def _raw(value: Any, path: str) -> Problems:
    """A JSON object of whatever content."""
    if value is None:
        return [required(path)]
    if len(msgspec.json.encode(value)) > PARAMETERS_BYTES:
        return [too_long(path, PARAMETERS_BYTES)]
    return (
        []
        if isinstance(value, dict)
        else [invalid_value(path, "<value omitted>", "must be a valid JSON object")]
    )


def toleration(given: Object, path: str) -> Problems:
    out: list[FieldError] = []
    if given.get("key"):
        out += formatted(f"{path}.key", given["key"], formats.qualified_name)
    operator, value, effect = given.get("operator"), given.get("value") or "", given.get("effect")
    if operator == "Exists":
        if value:
            out.append(invalid_value(f"{path}.value", value, "must be empty for operator `Exists`"))
    elif operator == "Equal":
        out += formatted(f"{path}.value", value, formats.label_value)
    elif not operator:
        out.append(required(f"{path}.operator"))
    else:
        out.append(not_supported(f"{path}.operator", operator, _OPERATORS))
    if effect and effect not in _TAINT_EFFECTS:
        out.append(not_supported(f"{path}.effect", effect, _TAINT_EFFECTS))
    return out


def taint(given: Object, path: str) -> Problems:
    out = formatted(f"{path}.key", given.get("key") or "", formats.qualified_name)
    if given.get("value"):
        out += formatted(f"{path}.value", given["value"], formats.label_value)
    effect = given.get("effect")
    if not effect:
        out.append(required(f"{path}.effect"))
    elif effect not in _TAINT_EFFECTS:
        out.append(not_supported(f"{path}.effect", effect, _TAINT_EFFECTS))
    return out


def binding_conditions(given: Object, path: str) -> Problems:
    """What must, and what must not, become true of a device before a pod is bound."""
    good, bad = given.get("bindingConditions") or [], given.get("bindingFailureConditions") or []

    def check(name: str, at: str) -> Problems:
        return formatted(at, name, formats.qualified_name)

    at_good, at_bad = f"{path}.bindingConditions", f"{path}.bindingFailureConditions"
    out = each_once(good, at_good, MOST_BINDING_CONDITIONS, check)
    out += each_once(bad, at_bad, MOST_BINDING_CONDITIONS, check)
    overlap = "bindingFailureConditions must not overlap with bindingConditions"
    out += [invalid_value(f"{at_bad}[{i}]", name, overlap) for i, name in enumerate(bad) if name in good]
    if bad and not good:
        detail = "bindingConditions are required to use bindingFailureConditions"
        out.append(invalid_value(at_good, good, detail))
    if good and not bad:
        detail = "bindingFailureConditions are required to use bindingConditions"
        out.append(invalid_value(at_bad, bad, detail))
    return out


# ---- DeviceClass


def device_class(obj: Object) -> Problems:
    spec = obj.get("spec") or {}
    out = _selectors(spec.get("selectors"), "spec.selectors")
    out += each(spec.get("config"), "spec.config", MOST_CONFIGS, _configuration)
    extended = spec.get("extendedResourceName")
    if extended is not None and not _is_extended_resource(extended):
        detail = "must be a valid extended resource name"
        out.append(invalid_value("spec.extendedResourceName", extended, detail))
    return out


def _is_extended_resource(name: str) -> bool:
    domain, slash, _ = name.partition("/")
    if not slash or domain.endswith("kubernetes.io") or name.startswith("requests."):
        return False
    # It must still be a name when a quota counts it.
    return not formats.qualified_name(f"requests.{name}")


# ---- ResourceClaim


def resource_claim(obj: Object) -> Problems:
    return _claim_spec(obj.get("spec") or {}, "spec")


def _claim_spec(spec: Object, path: str) -> Problems:
    claim, at = spec.get("devices") or {}, f"{path}.devices"
    names = _request_names(claim)
    out = each_once(claim.get("requests"), f"{at}.requests", MOST_REQUESTS, _request, _name)
    out += each(
        claim.get("constraints"), f"{at}.constraints", MOST_CONSTRAINTS, lambda c, p: _constraint(c, p, names)
    )

    def config(given: Object, where: str) -> Problems:
        return _references(given, where, names) + _configuration(given, where)

    return out + each(claim.get("config"), f"{at}.config", MOST_CONFIGS, config)


def _request_names(claim: Object) -> Requests:
    return {
        _name(r): {_name(s) for s in r["firstAvailable"]} if r.get("firstAvailable") else None
        for r in claim.get("requests") or ()
    }


def _request(request: Object, path: str) -> Problems:
    out = formatted(f"{path}.name", _name(request), formats.dns1123_label)
    exactly, first = request.get("exactly"), request.get("firstAvailable")
    one = "exactly one of `exactly` or `firstAvailable` is required"
    if exactly is None and not first:
        return [*out, required(path, one)]
    if exactly is not None and first:
        return [*out, invalid_value(path, None, f"{one}, but multiple fields are set")]
    if first:
        return out + each_once(first, f"{path}.firstAvailable", MOST_ALTERNATIVES, _alternative, _name)
    return out + _wanted(exactly or {}, f"{path}.exactly")


def _alternative(request: Object, path: str) -> Problems:
    return formatted(f"{path}.name", _name(request), formats.dns1123_label) + _wanted(request, path)


def _wanted(request: Object, path: str) -> Problems:
    at = f"{path}.deviceClassName"
    out = named(at, request.get("deviceClassName"), formats.dns1123_subdomain)
    out += _selectors(request.get("selectors"), f"{path}.selectors")
    mode, count = request.get("allocationMode") or "", request.get("count") or 0
    if mode == "All":
        if count:
            detail = "must not be specified when allocationMode is 'All'"
            out.append(invalid_value(f"{path}.count", count, detail))
    elif mode == "ExactCount":
        if count <= 0:
            out.append(invalid_value(f"{path}.count", count, "must be greater than zero"))
    else:
        out.append(not_supported(f"{path}.allocationMode", mode, _MODES))
    return out + each(request.get("tolerations"), f"{path}.tolerations", MOST_TOLERATIONS, toleration)


def _constraint(constraint: Object, path: str, names: Requests) -> Problems:
    out = _references(constraint, path, names)
    for name in ("matchAttribute", "distinctAttribute"):
        if constraint.get(name) is not None:
            return out + fully_qualified_name(f"{path}.{name}", constraint[name])
    detail = 'exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set'
    return [*out, required(path, detail)]


def _references(given: Object, path: str, names: Requests) -> Problems:
    """A list `requests` of names of the claim's requests."""
    at = f"{path}.requests"
    return each_once(given.get("requests"), at, MOST_REQUESTS, lambda n, p: _reference(n, p, names))


def _reference(name: str, path: str, names: Requests) -> Problems:
    parts = name.split("/")
    if len(parts) > 2:
        return [invalid_value(path, name, _NAME_REFERENCE)]
    out = [p for part in parts for p in formatted(path, part, formats.dns1123_label)]
    known = parts[0] in names and (len(parts) == 1 or parts[1] in (names[parts[0]] or ()))
    return out if known else [*out, invalid_value(path, name, _NAME_REFERENCE)]


def resource_claim_update(new: Object, old: Object, subresource: str) -> Problems:
    if subresource == "status":
        return _claim_status(new, old)
    if same(new.get("spec"), old.get("spec")):
        return []
    return [invalid_value("spec", new.get("spec"), formats.IMMUTABLE)]


# ---- what was allocated


def _claim_status(new: Object, old: Object) -> Problems:
    status, before = new.get("status") or {}, old.get("status") or {}
    names = _request_names((new.get("spec") or {}).get("devices") or {})
    reserved, allocation = status.get("reservedFor") or [], status.get("allocation")
    out = each_once(
        reserved, "status.reservedFor", MOST_CONSUMERS, _consumer, lambda c: str(c.get("uid") or "")
    )
    given = {_device(r) for r in ((allocation or {}).get("devices") or {}).get("results") or ()}

    def device(told: Object, path: str) -> Problems:
        return _device_status(told, path, given)

    out += each_once(status.get("devices"), "status.devices", -1, device, _device)
    if reserved:
        if allocation is None:
            detail = "may not be specified when `allocated` is not set"
            out.append(forbidden_field("status.reservedFor", detail))
        elif new["metadata"].get("deletionTimestamp"):
            kept = before.get("reservedFor") or []
            if any(c not in kept for c in reserved):
                detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set"
                out.append(forbidden_field("status.reservedFor", detail))
    if allocation is None:
        return out
    if before.get("allocation") is not None:
        if not same(allocation, before["allocation"]):
            out.append(invalid_value("status.allocation", allocation, formats.IMMUTABLE))
        return out
    return out + _allocation(allocation, "status.allocation", names)


def _consumer(given: Object, path: str) -> Problems:
    return [required(f"{path}.{n}") for n in ("resource", "name", "uid") if not given.get(n)]


def _device(given: Object) -> str:
    """The name that tells one share of one device from all others."""
    parts = [given.get(n) or "" for n in ("driver", "pool", "device")]
    return "/".join([*parts, given["shareID"]] if given.get("shareID") else parts)


def _allocation(allocation: Object, path: str, names: Requests) -> Problems:
    devices = allocation.get("devices") or {}

    def result(given: Object, at: str) -> Problems:
        out = _reference(given.get("request") or "", f"{at}.request", names)
        out += driver_name(f"{at}.driver", given.get("driver") or "")
        out += pool_name(f"{at}.pool", given.get("pool") or "")
        out += formatted(f"{at}.device", given.get("device") or "", formats.dns1123_label)
        out += binding_conditions(given, at)
        out += each(given.get("tolerations"), f"{at}.tolerations", MOST_TOLERATIONS, toleration)
        return out + (_share_id(f"{at}.shareID", given["shareID"]) if given.get("shareID") else [])

    def config(given: Object, at: str) -> Problems:
        source = given.get("source")
        out: list[FieldError] = []
        if not source:
            out.append(required(f"{at}.source"))
        elif source not in ("FromClaim", "FromClass"):
            out.append(not_supported(f"{at}.source", source, ("FromClaim", "FromClass")))
        return out + _references(given, at, names) + _configuration(given, at)

    out = each(devices.get("results"), f"{path}.devices.results", MOST_REQUESTS, result)
    out += each(devices.get("config"), f"{path}.devices.config", 2 * MOST_CONFIGS, config)
    if allocation.get("nodeSelector") is not None:
        out += node_selector(allocation["nodeSelector"], f"{path}.nodeSelector")
    return out


def _device_status(given: Object, path: str, allocated: set[str]) -> Problems:
    out = driver_name(f"{path}.driver", given.get("driver") or "")
    out += pool_name(f"{path}.pool", given.get("pool") or "")
    out += formatted(f"{path}.device", given.get("device") or "", formats.dns1123_label)
    if given.get("shareID"):
        out += _share_id(f"{path}.shareID", given["shareID"])
    if _device(given) not in allocated:
        out.append(invalid_value(path, _device(given), "must be an allocated device in the claim"))
    conditions = given.get("conditions") or []
    if len(conditions) > MOST_DEVICE_CONDITIONS:
        out.append(too_many(f"{path}.conditions", len(conditions), MOST_DEVICE_CONDITIONS))
    out += each_once(conditions, f"{path}.conditions", -1, _condition, lambda c: c.get("type") or "")
    if given.get("data") is not None:
        out += _raw(given["data"], f"{path}.data")
    return out + _network_data(given.get("networkData") or {}, f"{path}.networkData")


def _condition(given: Object, path: str) -> Problems:
    """A `metav1.Condition`."""
    out = formatted(f"{path}.type", given.get("type") or "", formats.qualified_name)
    if not given.get("type"):
        out.insert(0, required(f"{path}.type", "must be set"))
    status = given.get("status")
    if status not in ("True", "False", "Unknown"):
        out.append(not_supported(f"{path}.status", status or "", ("False", "True", "Unknown")))
    if (given.get("observedGeneration") or 0) < 0:
        detail = "must be greater than or equal to zero"
        out.append(invalid_value(f"{path}.observedGeneration", given["observedGeneration"], detail))
    if not given.get("lastTransitionTime"):
        out.append(required(f"{path}.lastTransitionTime", "must be set"))
    reason = given.get("reason") or ""
    if not reason:
        out.append(required(f"{path}.reason", "must be set"))
    elif len(reason) > 1024:
        out.append(too_long(f"{path}.reason", 1024))
    elif not re.fullmatch(_REASON, reason):
        detail = (
            "a condition reason must start with alphabetic character, optionally followed by a string of "
            "alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. "
            f"'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for "
            f"validation is '{_REASON}')"
        )
        out.append(invalid_value(f"{path}.reason", reason, detail))
    if len(given.get("message") or "") > 32768:
        out.append(too_long(f"{path}.message", 32768))
    return out


def _network_data(given: Object, path: str) -> Problems:
    out: list[FieldError] = []
    for name, most in (("interfaceName", 256), ("hardwareAddress", 128)):
        if len(given.get(name) or "") > most:
            out.append(too_long(f"{path}.{name}", most))
    return out + each_once(given.get("ips"), f"{path}.ips", 16, _interface_address)


def _interface_address(text: str, path: str) -> Problems:
    """An address with the length of its network's prefix, in the one way to write it."""
    try:
        if "/" not in text or "%" in text:
            raise ValueError
        address = ipaddress.ip_interface(text)
    except ValueError:
        detail = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)"
        return [invalid_value(path, text, detail)]
    if text != str(address):
        return [invalid_value(path, text, f'must be in canonical form ("{address}")')]
    return []


# ---- ResourceClaimTemplate


def resource_claim_template(obj: Object) -> Problems:
    spec = obj.get("spec") or {}
    meta = spec.get("metadata") or {}
    out = metadata.labels(meta.get("labels") or {}, "spec.metadata.labels")
    out += metadata.annotation_map(meta.get("annotations") or {}, "spec.metadata.annotations")
    return out + _claim_spec(spec.get("spec") or {}, "spec.spec")


def resource_claim_template_update(new: Object, old: Object, subresource: str) -> Problems:
    if same(new.get("spec"), old.get("spec")):
        return []
    return [invalid_value("spec", new.get("spec"), formats.IMMUTABLE)]
