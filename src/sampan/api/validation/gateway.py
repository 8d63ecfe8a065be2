"""The kinds of the Gateway API: what their definitions say, then what upstream's CustomResourceDefinitions say in CEL.

As there, the second is asked only where the first holds, and a rule that is broken is told with the type of the value that it is about.
Upstream: `config/crd/standard` of kubernetes-sigs/gateway-api.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from sampan.api import structural
from sampan.api.errors import FieldError, Object, invalid_value
from sampan.api.validation import formats
from sampan.api.validation.gateway_routes import grpc_route, http_route
from sampan.api.validation.values import Problems

Rule = Callable[[Object], Iterator[FieldError]]
_KEY = re.compile(r"([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]")  # fmt: skip
_HOST = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def _all(kind: str, obj: Object, rule: Rule | None) -> Problems:
    found = structural.problems("gateway", f"io.k8s.networking.gateway.v1.{kind}", obj)
    return found or (list(rule(obj)) if rule is not None else [])


def gateway_class(obj: Object) -> Problems:
    return _all("GatewayClass", obj, None)


def gateway_class_update(new: Object, old: Object, subresource: str) -> Problems:
    out = gateway_class(new)
    if not out and new["spec"]["controllerName"] != old["spec"]["controllerName"]:
        out.append(invalid_value("spec.controllerName", "string", "Value is immutable"))
    return out


def gateway(obj: Object) -> Problems:
    return _all("Gateway", obj, _gateway)


def http(obj: Object) -> Problems:
    return _all("HTTPRoute", obj, http_route)


def grpc(obj: Object) -> Problems:
    return _all("GRPCRoute", obj, grpc_route)


def reference_grant(obj: Object) -> Problems:
    return _all("ReferenceGrant", obj, None)


def whole(create: Callable[[Object], Problems]) -> Callable[[Object, Object, str], Problems]:
    """An update's rules: what holds at creation, for the status as well."""
    return lambda new, old, subresource: create(new)


def _gateway(obj: Object) -> Iterator[FieldError]:
    spec = obj["spec"]
    yield from _listeners(spec["listeners"])
    addresses = spec.get("addresses") or []
    for i, one in enumerate(addresses):
        yield from _address(one, f"spec.addresses[{i}]")
    for kind in ("IPAddress", "Hostname"):
        values = [a["value"] for a in addresses if a.get("type") == kind and a.get("value") is not None]
        if len(set(values)) < len(values):
            yield invalid_value("spec.addresses", "array", f"{kind} values must be unique")
    infrastructure = spec.get("infrastructure") or {}
    for name, what in (("annotations", "Annotation"), ("labels", "Label")):
        yield from _keys(infrastructure.get(name) or {}, f"spec.infrastructure.{name}", what)
    ports = [p["port"] for p in ((spec.get("tls") or {}).get("frontend") or {}).get("perPort") or ()]
    if len(set(ports)) < len(ports):
        detail = "Port for TLS configuration must be unique within the Gateway"
        yield invalid_value("spec.tls.frontend.perPort", "array", detail)


def _address(one: Object, path: str) -> Iterator[FieldError]:
    value = one.get("value")
    if one.get("type") == "IPAddress" and value is not None:
        yield from (invalid_value(f"{path}.value", value, m) for m in formats.ip_address(value))
    if one.get("type") == "Hostname" and value and not _HOST.fullmatch(value):
        detail = f"Hostname value must be empty or contain only valid characters (matching ^{_HOST.pattern}$)"
        yield invalid_value(path, "object", detail)


def _keys(given: Object, path: str, what: str) -> Iterator[FieldError]:
    if not all(_KEY.fullmatch(k) for k in given):
        detail = (
            f"{what} keys must be in the form of an optional DNS subdomain prefix followed by a required name segment "
            "of up to 63 characters."
        )
        yield invalid_value(path, "object", detail)
    if any(len(k.split("/")[0]) >= 253 for k in given):
        detail = f"If specified, the {what.lower()} key's prefix must be a DNS subdomain not longer than 253 characters in total."
        yield invalid_value(path, "object", detail)


def _listeners(listeners: list[Any]) -> Iterator[FieldError]:
    at = "spec.listeners"

    def of(*protocols: str) -> list[Object]:
        return [one for one in listeners if one["protocol"].upper() in protocols]

    if any("tls" in one for one in of("HTTP", "TCP", "UDP")):
        yield invalid_value(at, "array", "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']")
    if any((one.get("tls") or {}).get("mode", "Terminate") != "Terminate" for one in of("HTTPS")):
        yield invalid_value(at, "array", "tls mode must be Terminate for protocol HTTPS")
    if any(not (one.get("tls") or {}).get("mode") for one in of("TLS")):
        yield invalid_value(at, "array", "tls mode must be set for protocol TLS")
    if any(one.get("hostname") for one in of("TCP", "UDP")):
        yield invalid_value(at, "array", "hostname must not be specified for protocols ['TCP', 'UDP']")
    if len({(one["port"], one["protocol"], one.get("hostname")) for one in listeners}) < len(listeners):
        detail = "Combination of port, protocol and hostname must be unique for each listener"
        yield invalid_value(at, "array", detail)
    for i, one in enumerate(listeners):
        tls = one.get("tls")
        if tls is None or tls.get("mode") != "Terminate":
            continue
        if not tls.get("certificateRefs") and not tls.get("options"):
            detail = "certificateRefs or options must be specified when mode is Terminate"
            yield invalid_value(f"{at}[{i}].tls", "object", detail)
