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
    not_supported,
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
    strategy = spec.get("strategy")
    if strategy is not None:
        at = "spec.strategy.strategy"
        if "/" in strategy:
            out += formatted(at, strategy, formats.qualified_name)
        elif strategy != "OldestEmulationVersion":
            out.append(not_supported(at, strategy, ("OldestEmulationVersion",)))
    if spec.get("preferredHolder") and not strategy:
        out.append(forbidden_field("spec.preferredHolder", "may only be specified if `strategy` is defined"))
    return out


# ---- Events, in their core form


def event(obj: Object) -> Problems:
    """What holds for Events of either group; those of the new sort (with `eventTime`) say who reports what."""
    out: list[FieldError] = []
    about = (obj.get("involvedObject") or {}).get("namespace") or ""
    home = (obj.get("metadata") or {}).get("namespace") or ""
    new = bool(obj.get("eventTime"))
    elsewhere = ("default", "kube-system") if new else ("", "default")
    if (not about and home not in elsewhere) or (about and home != about and not new):
        out.append(invalid_value("involvedObject.namespace", about, "does not match event.namespace"))
    if not new:
        return out
    reporter = obj.get("reportingComponent") or ""
    if not reporter:
        out.append(required("reportingController"))
    out += formatted("reportingController", reporter, formats.qualified_name)
    for name in ("reportingInstance", "action", "reason"):
        value = obj.get(name) or ""
        out += present(name, value)
        if len(value) > 128:
            out.append(invalid_value(name, "", "can have at most 128 characters"))
    if len(obj.get("message") or "") > 1024:
        out.append(invalid_value("message", "", "can have at most 1024 characters"))
    return out


def event_v1(obj: Object) -> Problems:
    """What more holds for those that are made through events.k8s.io."""
    out = event(obj) + _event_series(obj) + present("eventTime", obj.get("eventTime"))
    kind = obj.get("type") or ""
    if kind not in ("Normal", "Warning"):
        out.append(invalid_value("type", "", f"has invalid value: {kind}"))
    source = obj.get("source") or {}
    given = {n: obj.get(n) for n in ("firstTimestamp", "lastTimestamp", "count")}
    given["source"] = source.get("component") or source.get("host")
    return out + [invalid_value(name, "", "needs to be unset") for name, value in given.items() if value]


def _event_series(obj: Object) -> Problems:
    series = obj.get("series")
    if series is None:
        return []
    few = (series.get("count") or 0) < 2
    out = [invalid_value("series.count", "", "should be at least 2")] if few else []
    return out + present("series.lastObservedTime", series.get("lastObservedTime"))


def event_update(new: Object, old: Object, subresource: str) -> Problems:
    return event(new)


_EVENT_KEPT = (
    "involvedObject", "reason", "message", "source", "firstTimestamp", "lastTimestamp", "count", "type", "eventTime",
    "action", "related", "reportingComponent", "reportingInstance",
)  # fmt: skip


def event_v1_update(new: Object, old: Object, subresource: str) -> Problems:
    """Through events.k8s.io only the series of an Event goes on."""
    out = event(new)
    if not same(new.get("series"), old.get("series")):
        out += _event_series(new)
    for name in _EVENT_KEPT:
        if not same(new.get(name) or None, old.get(name) or None):
            told = "reportingController" if name == "reportingComponent" else name
            out.append(invalid_value(told, new.get(name), formats.IMMUTABLE))
    return out
