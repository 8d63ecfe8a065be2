"""The small core kinds: ConfigMap, Secret, Namespace, Node; and Lease and Event."""

from __future__ import annotations

import base64
import json

from sampan.api.errors import (
    FieldError,
    Object,
    duplicate,
    forbidden_field,
    invalid_value,
    required,
    too_long,
)
from sampan.api.strategy import same
from sampan.api.validation import formats, metadata, resources, scheduling
from sampan.api.validation.values import Problems, cidr, formatted, present

MAX_DATA = 1024 * 1024
"""Bytes of all values of a ConfigMap or Secret."""
_IMMUTABLE = "field is immutable when `immutable` is set"


def _bytes(text: str) -> int:
    """How many bytes a base64 text stands for."""
    return len(text) * 3 // 4 - text[-2:].count("=")


def config_map(obj: Object) -> Problems:
    out: list[FieldError] = []
    size = 0
    data, binary = obj.get("data") or {}, obj.get("binaryData") or {}
    for key, value in data.items():
        out += formatted(f"data[{key}]", key, formats.config_map_key)
        if key in binary:
            out.append(invalid_value(f"data[{key}]", key, "duplicate of key present in binaryData"))
        size += len(value.encode())
    for key, value in binary.items():
        out += formatted(f"binaryData[{key}]", key, formats.config_map_key)
        size += _bytes(value)
    if size > MAX_DATA:
        out.append(too_long("[]", MAX_DATA))
    return out


def config_map_update(new: Object, old: Object, subresource: str) -> Problems:
    return _immutable(new, old, ("data", "binaryData")) + config_map(new)


def _immutable(new: Object, old: Object, fields: tuple[str, ...]) -> Problems:
    if not old.get("immutable"):
        return []
    out = [] if new.get("immutable") else [forbidden_field("immutable", _IMMUTABLE)]
    return out + [forbidden_field(f, _IMMUTABLE) for f in fields if (new.get(f) or {}) != (old.get(f) or {})]


_TLS = ("tls.crt", "tls.key")
_DOCKER = {"kubernetes.io/dockercfg": ".dockercfg", "kubernetes.io/dockerconfigjson": ".dockerconfigjson"}


def secret(obj: Object) -> Problems:
    out: list[FieldError] = []
    data = obj.get("data") or {}
    for key in data:
        out += formatted(f"data[{key}]", key, formats.config_map_key)
    if sum(map(_bytes, data.values())) > MAX_DATA:
        out.append(too_long("data", MAX_DATA))
    kind = obj.get("type")
    if kind == "kubernetes.io/service-account-token":
        account = "kubernetes.io/service-account.name"
        if not ((obj.get("metadata") or {}).get("annotations") or {}).get(account):
            out.append(required(f"metadata.annotations[{account}]"))
    elif kind in _DOCKER:
        key = _DOCKER[kind]
        out += _docker(data.get(key), f"data[{key}]")
    elif kind == "kubernetes.io/basic-auth":
        if "username" not in data and "password" not in data:
            out += [required("data[username]"), required("data[password]")]
    elif kind == "kubernetes.io/ssh-auth":
        out += present("data[ssh-privatekey]", data.get("ssh-privatekey"))
    elif kind == "kubernetes.io/tls":
        out += [required(f"data[{key}]") for key in _TLS if key not in data]
    return out


def _docker(text: str | None, path: str) -> Problems:
    if text is None:
        return [required(path)]
    try:
        if not isinstance(json.loads(base64.b64decode(text)), dict):
            raise ValueError("must be a JSON object")
    except ValueError as problem:
        return [invalid_value(path, "<secret contents redacted>", str(problem))]
    return []


def secret_update(new: Object, old: Object, subresource: str) -> Problems:
    out = metadata.immutable("type", new.get("type"), old.get("type"))
    return out + _immutable(new, old, ("data",)) + secret(new)


def _finalizers(obj: Object) -> Problems:
    out: list[FieldError] = []
    for name in (obj.get("spec") or {}).get("finalizers") or ():
        out += formatted("spec.finalizers", name, formats.qualified_name)
        if "/" not in name and name not in ("kubernetes", "orphan", "foregroundDeletion"):
            detail = "name is neither a standard finalizer name nor is it fully qualified"
            out.append(invalid_value("spec.finalizers", name, detail))
    return out


namespace = _finalizers


def namespace_update(new: Object, old: Object, subresource: str) -> Problems:
    if subresource == "finalize":
        return _finalizers(new)
    if subresource != "status":
        return []
    deleting = bool((new.get("metadata") or {}).get("deletionTimestamp"))
    phase, right = (new.get("status") or {}).get("phase", ""), "Terminating" if deleting else "Active"
    if phase == right:
        return []
    state = "is not empty" if deleting else "is empty"
    detail = f"may only be '{right}' if `deletionTimestamp` {state}"
    return [invalid_value("status.Phase", phase, detail)]


def node(obj: Object) -> Problems:
    spec = obj.get("spec") or {}
    out = scheduling.taints(spec.get("taints") or [], "metadata.taints") + _node_amounts(obj)
    cidrs = spec.get("podCIDRs") or []
    for i, value in enumerate(cidrs):
        out += cidr(f"spec.podCIDRs[{i}]", value)
        if value in cidrs[:i]:
            out.append(duplicate(f"spec.podCIDRs[{i}]", value))
    if len(cidrs) > 2:
        detail = "may specify no more than one CIDR for each IP family"
        out.append(invalid_value("spec.podCIDRs", cidrs, detail))
    return out


def _node_amounts(obj: Object) -> Problems:
    out: list[FieldError] = []
    for kind in ("capacity", "allocatable"):
        for name, value in ((obj.get("status") or {}).get(kind) or {}).items():
            out += resources.amount(f"status.{kind}.{name}", name, value)
    return out


def node_update(new: Object, old: Object, subresource: str) -> Problems:
    out = _node_amounts(new)
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    addresses = (new.get("status") or {}).get("addresses") or []
    for i, address in enumerate(addresses):
        if address in addresses[:i]:
            out.append(duplicate(f"status.addresses[{i}]", address))
    if before.get("podCIDRs") and spec.get("podCIDRs") != before["podCIDRs"]:
        detail = 'node updates may not change podCIDR except from "" to valid'
        out.append(forbidden_field("spec.podCIDRs", detail))
    if before.get("providerID") and spec.get("providerID") != before["providerID"]:
        detail = 'node updates may not change providerID except from "" to valid'
        out.append(forbidden_field("spec.providerID", detail))
    return out + scheduling.taints(spec.get("taints") or [], "metadata.taints")


def lease(obj: Object) -> Problems:
    out: list[FieldError] = []
    spec = obj.get("spec") or {}
    duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
    if duration is not None and duration <= 0:
        out.append(invalid_value("spec.leaseDurationSeconds", duration, "must be greater than 0"))
    if transitions is not None and transitions < 0:
        detail = "must be greater than or equal to 0"
        out.append(invalid_value("spec.leaseTransitions", transitions, detail))
    return out


_EVENT_KEPT = ("involvedObject", "regarding", "reason", "note", "message", "type", "action", "eventTime",
               "reportingController", "reportingComponent", "reportingInstance")  # fmt: skip


def event(obj: Object) -> Problems:
    """An Event of either group. One of the new sort (with `eventTime`) must say who reports what."""
    out: list[FieldError] = []
    field = (
        "regarding"
        if "regarding" in obj or str(obj.get("apiVersion", "")).startswith("events")
        else "involvedObject"
    )
    about = (obj.get(field) or {}).get("namespace") or ""
    namespace_ = (obj.get("metadata") or {}).get("namespace") or ""
    if namespace_ != (about or "default"):
        out.append(invalid_value(f"{field}.namespace", about, "does not match event.namespace"))
    if field == "involvedObject" and not obj.get("eventTime"):
        return out
    out += present("eventTime", obj.get("eventTime"))
    reporter = obj.get("reportingController") or obj.get("reportingComponent") or ""
    if not reporter:
        out.append(required("reportingController"))
    else:
        out += formatted("reportingController", reporter, formats.qualified_name)
    for name, maximum in (("reportingInstance", 128), ("action", 128), ("reason", 128)):
        value = obj.get(name) or ""
        out += present(name, value)
        if len(value) > maximum:
            out.append(invalid_value(name, "", f"can have at most {maximum} characters"))
    if len(obj.get("note") or obj.get("message") or "") > 1024:
        out.append(
            invalid_value(
                "note" if field == "regarding" else "message", "", "can have at most 1024 characters"
            )
        )
    kind = obj.get("type") or ""
    if kind not in ("Normal", "Warning"):
        out.append(invalid_value("type", "", f"has invalid value: {kind}"))
    return out


def event_update(new: Object, old: Object, subresource: str) -> Problems:
    out = event(new)
    if not old.get("eventTime"):
        return out
    for name in _EVENT_KEPT:
        if not same(new.get(name), old.get(name)):
            out.append(invalid_value(name, new.get(name), formats.IMMUTABLE))
    return out
