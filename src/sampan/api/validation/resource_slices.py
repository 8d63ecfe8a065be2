"""ResourceSlices: the devices that a driver offers (resource.k8s.io)."""

from __future__ import annotations

import re
from typing import Any

from sampan.api import quantity
from sampan.api.errors import (
    FieldError,
    Object,
    forbidden_field,
    invalid_value,
    required,
    too_long,
    too_many,
)
from sampan.api.strategy.types import same
from sampan.api.validation import formats, metadata
from sampan.api.validation.devices import (
    binding_conditions,
    each,
    each_once,
    pool_name,
    qualified_name,
    taint,
)
from sampan.api.validation.persistent_volumes import driver_name
from sampan.api.validation.scheduling import node_selector
from sampan.api.validation.values import Problems, formatted, named

MOST_DEVICES, MOST_ADVANCED_DEVICES = 128, 64
MOST_ATTRIBUTES, MOST_ATTRIBUTE_VALUES = 32, 48
MOST_COUNTER_SETS, MOST_COUNTERS, MOST_CONSUMPTIONS = 8, 32, 2
MOST_TAINTS = 16
MOST_REQUEST_VALUES = 10
_VALUE_BYTES = 64
_LARGEST = 2**63 - 1
_NUMBER = r"(0|[1-9]\d*)"
_PRE_RELEASE = r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
_is_version = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_PRE_RELEASE}(\.{_PRE_RELEASE})*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?"
).fullmatch
_LISTS = ("bools", "ints", "strings", "versions")
_ONE_PLACE = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
_ONE_DEVICE_PLACE = (
    "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to "
    "true in the ResourceSlice spec"
)


def resource_slice(obj: Object) -> Problems:
    return _spec(obj.get("spec") or {}, None)


def resource_slice_update(new: Object, old: Object, subresource: str) -> Problems:
    return _spec(new.get("spec") or {}, old.get("spec") or {})


def _spec(spec: Object, old: Object | None) -> Problems:
    pool = spec.get("pool") or {}
    out = driver_name("spec.driver", spec.get("driver") or "")
    out += pool_name("spec.pool.name", pool.get("name") or "")
    if (pool.get("resourceSliceCount") or 0) <= 0:
        count = pool.get("resourceSliceCount") or 0
        out.append(invalid_value("spec.pool.resourceSliceCount", count, "must be greater than zero"))
    if (pool.get("generation") or 0) < 0:
        detail = "must be greater than or equal to zero"
        out.append(invalid_value("spec.pool.generation", pool["generation"], detail))
    if old is not None:
        before = (old.get("pool") or {}).get("name")
        out += metadata.immutable("spec.pool.name", pool.get("name"), before)
        for name in ("driver", "nodeName"):
            out += metadata.immutable(f"spec.{name}", spec.get(name), old.get(name))
    out += _place(spec)
    if spec.get("sharedCounters") is not None and spec.get("devices") is not None:
        out.append(invalid_value("spec", "", "only one of `sharedCounters` or `devices` is allowed"))
    devices: list[Object] = spec.get("devices") or []
    old_devices = {d.get("name"): d for d in (old or {}).get("devices") or ()}
    each_its_place = bool(spec.get("perDeviceNodeSelection"))

    def device(given: Object, path: str) -> Problems:
        return _device(given, old_devices.get(given.get("name")), path, each_its_place)

    most = MOST_ADVANCED_DEVICES if any(map(_advanced, devices)) else MOST_DEVICES
    out += each_once(devices, "spec.devices", most, device, lambda d: d.get("name") or "")
    return out + each_once(
        spec.get("sharedCounters"),
        "spec.sharedCounters",
        MOST_COUNTER_SETS,
        _counter_set,
        lambda c: c.get("name") or "",
    )


def _advanced(device: Object) -> bool:
    """Whether a device makes its slice large, so that fewer fit."""
    attributes = (device.get("attributes") or {}).values()
    return bool(
        device.get("taints")
        or device.get("consumesCounters")
        or any(a.get(name) is not None for a in attributes for name in _LISTS)
    )


def _place(spec: Object) -> Problems:
    """Where the devices are: one way to say it."""
    out: list[FieldError] = []
    told: list[str] = []
    node, selector = spec.get("nodeName"), spec.get("nodeSelector")
    if node:
        told.append("`nodeName`")
        out += formatted("spec.nodeName", node, formats.dns1123_subdomain)
    elif node is not None:
        detail = "must be either unset or set to a non-empty string"
        out.append(invalid_value("spec.nodeName", node, detail))
    if selector is not None:
        told.append("`nodeSelector`")
        out += node_selector(selector, "spec.nodeSelector")
        terms = selector.get("nodeSelectorTerms") or []
        if len(terms) != 1:
            detail = "must have exactly one node selector term"
            out.append(invalid_value("spec.nodeSelector.nodeSelectorTerms", terms, detail))
    for name in ("allNodes", "perDeviceNodeSelection"):
        if spec.get(name):
            told.append(f"`{name}`")
        elif spec.get(name) is not None:
            out.append(invalid_value(f"spec.{name}", False, "must be either unset or set to true"))
    if not told:
        out.append(required("spec", _ONE_PLACE))
    elif len(told) > 1:
        detail = f"{_ONE_PLACE}, but multiple fields are set"
        out.append(invalid_value("spec", f"{{{', '.join(told)}}}", detail))
    return out


# ---- one device


def _device(device: Object, old: Object | None, path: str, its_place: bool) -> Problems:
    out = formatted(f"{path}.name", device.get("name") or "", formats.dns1123_label)
    attributes, capacity = device.get("attributes") or {}, device.get("capacity") or {}
    total = len(attributes) + len(capacity)
    if total > MOST_ATTRIBUTES:
        detail = f"the total number of attributes and capacities must not exceed {MOST_ATTRIBUTES}"
        out.append(invalid_value(path, total, detail))
    values = sum(sum(len(a.get(n) or ()) for n in _LISTS) or 1 for a in attributes.values())
    if values > MOST_ATTRIBUTE_VALUES:
        detail = f"the total number of attribute values must not exceed {MOST_ATTRIBUTE_VALUES}"
        out.append(invalid_value(path, values, detail))
    for name, attribute in attributes.items():
        out += qualified_name(f"{path}.attributes", name)
        out += _attribute(attribute, f"{path}.attributes[{name}]")
    if old is None or not same(old.get("capacity"), capacity):
        shared = bool(device.get("allowMultipleAllocations"))
        for name, given in capacity.items():
            out += qualified_name(f"{path}.capacity", name)
            out += _capacity(given, f"{path}.capacity[{name}].requestPolicy", shared)
    if old is None or not same(old.get("taints"), device.get("taints")):
        out += each(device.get("taints"), f"{path}.taints", MOST_TAINTS, taint)
    out += each_once(
        device.get("consumesCounters"),
        f"{path}.consumesCounters",
        MOST_CONSUMPTIONS,
        _consumption,
        lambda c: c.get("counterSet") or "",
    )
    return out + _device_place(device, path, its_place) + binding_conditions(device, path)


def _device_place(device: Object, path: str, its_place: bool) -> Problems:
    names = ("nodeName", "nodeSelector", "allNodes")
    if not its_place:
        if all(device.get(n) is None for n in names):
            return []
        detail = (
            "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in "
            "the ResourceSlice spec"
        )
        return [invalid_value(path, None, detail)]
    out: list[FieldError] = []
    told = [f"`{n}`" for n in names if device.get(n) or (n == "nodeSelector" and device.get(n) is not None)]
    node, selector = device.get("nodeName"), device.get("nodeSelector")
    if node:
        out += formatted(f"{path}.nodeName", node, formats.dns1123_subdomain)
    elif node is not None:
        out.append(invalid_value(f"{path}.nodeName", node, "must not be empty"))
    if selector is not None:
        out += node_selector(selector, f"{path}.nodeSelector")
    if device.get("allNodes") is False:
        out.append(invalid_value(f"{path}.allNodes", False, "must be either unset or set to true"))
    if not told:
        out.append(required(path, _ONE_DEVICE_PLACE))
    elif len(told) > 1:
        out.append(invalid_value(path, f"{{{', '.join(told)}}}", _ONE_DEVICE_PLACE))
    return out


def _attribute(attribute: Object, path: str) -> Problems:
    out: list[FieldError] = []
    for name, check in (("string", _text), ("version", _version)):
        if attribute.get(name) is not None:
            out += check(attribute[name], f"{path}.{name}")
    for name in _LISTS:
        values = attribute.get(name)
        if values is None:
            continue
        if not values:
            out.append(invalid_value(f"{path}.{name}", values, "must not be empty if specified"))
        check_item = {"strings": _text, "versions": _version}.get(name)
        for i, value in enumerate(values):
            out += check_item(value, f"{path}.{name}[{i}]") if check_item else []
    told = [n for n in ("bool", "int", "string", "version", *_LISTS) if attribute.get(n) is not None]
    if len(told) != 1:
        out.append(invalid_value(path, attribute if told else "", "exactly one value must be specified"))
    return out


def _text(value: str, path: str) -> Problems:
    return [too_long(path, _VALUE_BYTES)] if len(value.encode()) > _VALUE_BYTES else []


def _version(value: str, path: str) -> Problems:
    detail = "must be a string compatible with semver.org spec 2.0.0"
    return ([] if _is_version(value) else [invalid_value(path, value, detail)]) + _text(value, path)


# ---- capacity that several claims share


def _capacity(given: Object, path: str, shared: bool) -> Problems:
    policy = given.get("requestPolicy")
    if policy is None:
        return []
    if not shared:
        return [forbidden_field(path, "allowMultipleAllocations must be true")]
    values, within = policy.get("validValues"), policy.get("validRange")
    if values and within is not None:
        detail = 'exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time'
        return [forbidden_field(path, detail)]
    whole, default = given.get("value") or "0", policy.get("default")
    for name, wanted in (("validValues", values), ("validRange", within)):
        if wanted and default is None:
            return [required(f"{path}.default", f"required when {name} is defined")]
    if values:
        return _request_values(default, whole, values, f"{path}.validValues")
    return _request_range(default, whole, within, f"{path}.validRange") if within is not None else []


def _request_values(default: Any, whole: Any, values: list[Any], path: str) -> Problems:
    out: list[FieldError] = []
    for i in range(1, len(values)):
        if quantity.compare(values[i - 1], values[i]) > 0:
            detail = "values must be sorted in ascending order"
            out.append(invalid_value(f"{path}[{i}]", values[i], detail))

    def check(value: Any, at: str) -> Problems:
        if quantity.compare(value, whole) <= 0:
            return []
        return [invalid_value(at, value, f"option is larger than capacity value: {whole}")]

    out += each_once(values, path, MOST_REQUEST_VALUES, check, lambda v: str(quantity.value(v)))
    if all(quantity.compare(v, default) for v in values):
        detail = "default value is not valid according to the requestPolicy"
        out.append(invalid_value(path, default, detail))
    return out


def _request_range(default: Any, whole: Any, given: Object, path: str) -> Problems:
    low, high, step = (given.get(n) for n in ("min", "max", "step"))
    if low is None:
        return [required(f"{path}.min", "required when validRange is defined")]
    out: list[FieldError] = []

    def refuse(name: str, value: Any, detail: str) -> None:
        out.append(invalid_value(f"{path}.{name}", value, detail))

    if quantity.compare(low, whole) > 0:
        refuse("min", low, f"min is larger than capacity value: {whole}")
    if quantity.compare(default, low) < 0:
        refuse("default", default, f"default is less than min: {low}")
    if high is not None:
        if quantity.compare(low, high) > 0:
            refuse("max", low, f"min is larger than max: {high}")
        if quantity.compare(high, whole) > 0:
            refuse("max", high, f"max is larger than capacity value: {whole}")
        if quantity.compare(default, high) > 0:
            refuse("default", default, f"default is more than max: {high}")
    if step is None:
        return out
    if quantity.parse(step) <= 0:
        refuse("step", step, "must be greater than zero")
        return out
    one = quantity.add(low, step)
    if quantity.compare(one, whole) > 0:
        refuse("step", step, f"one step {one} is larger than capacity value: {whole}")
    unsafe = False
    for name, value in (("default", default), ("min", low), ("max", high), ("step", step)):
        if value is not None and quantity.parse(value) < 0:
            refuse(name, value, formats.NON_NEGATIVE)
            unsafe = True
        elif value is not None and quantity.parse(value) > _LARGEST:
            refuse(name, value, f"must not be larger than {_LARGEST}")
            unsafe = True
    for value in (default, high):
        if unsafe or value is None:
            continue
        if (quantity.value(value) - quantity.value(low)) % quantity.value(step):
            refuse("step", value, f"value is not a multiple of a given step ({step}) from ({low})")
    return out


# ---- counters that devices share


def _counter_set(given: Object, path: str) -> Problems:
    out = named(f"{path}.name", given.get("name"), formats.dns1123_label)
    return out + _counters(given, path)


def _consumption(given: Object, path: str) -> Problems:
    out = named(f"{path}.counterSet", given.get("counterSet"), formats.dns1123_label)
    return out + _counters(given, path)


def _counters(given: Object, path: str) -> Problems:
    counters, at = given.get("counters") or {}, f"{path}.counters"
    if not counters:
        return [required(at)]
    if len(counters) > MOST_COUNTERS:
        return [too_many(at, len(counters), MOST_COUNTERS)]
    return [p for name in counters for p in formatted(at, name, formats.dns1123_label)]
