"""Ingresses as `extensions/v1beta1` and `networking.k8s.io/v1beta1` had them; `networking.k8s.io/v1` is stored.

Nothing is lost either way: a path as `/bar/*` stays as it is, of the type ImplementationSpecific.
Upstream: `pkg/apis/networking/v1beta1/conversion.go` of the releases until 1.21.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sampan.api.errors import Object

_ANY = "ImplementationSpecific"
"""What a path is of that has no type, and not shown, so that it is seen as it was written."""


def from_v1(obj: Object) -> Object:
    return _changed(obj, "defaultBackend", "backend", _backend_from_v1, _path_from_v1)


def to_v1(obj: Object) -> Object:
    return _changed(obj, "backend", "defaultBackend", _backend_to_v1, _path_to_v1)


def field(path: str) -> str:
    """The old name of a field that is named as in v1."""
    path = path.replace("spec.defaultBackend", "spec.backend", 1)
    for new, old in ((".service.name", ".serviceName"), (".service.port.name", ".servicePort"),
                     (".service.port.number", ".servicePort"), (".service.port", ".servicePort")):  # fmt: skip
        if path.endswith(new):
            return path.removesuffix(new) + old
    return path


def _changed(
    obj: Object,
    default: str,
    as_default: str,
    backend: Callable[[Object], Object],
    path: Callable[[Object], Object],
) -> Object:
    spec = obj.get("spec")
    if not isinstance(spec, dict):
        return obj
    out = {(as_default if k == default else k): v for k, v in spec.items()}
    if out.get(as_default) is not None:
        out[as_default] = backend(out[as_default])
    if spec.get("rules"):
        out["rules"] = [_rule(rule, path) for rule in spec["rules"]]
    return {**obj, "spec": out}


def _rule(rule: Object, path: Callable[[Object], Object]) -> Object:
    http = rule.get("http")
    if not http or not http.get("paths"):
        return rule
    return {**rule, "http": {**http, "paths": [path(p) for p in http["paths"]]}}


def _path_from_v1(path: Object) -> Object:
    out = {k: v for k, v in path.items() if (k, v) != ("pathType", _ANY)}
    if path.get("backend"):
        out["backend"] = _backend_from_v1(path["backend"])
    return out


def _path_to_v1(path: Object) -> Object:
    out = {"pathType": _ANY, **{k: v for k, v in path.items() if v is not None}}
    if path.get("backend"):
        out["backend"] = _backend_to_v1(path["backend"])
    return out


def _backend_from_v1(backend: Object) -> Object:
    out = {k: v for k, v in backend.items() if k != "service"}
    service = backend.get("service")
    if service is not None:
        port = service.get("port") or {}
        out["serviceName"] = service.get("name", "")
        out["servicePort"] = port["name"] if port.get("name") else port.get("number", 0)
    return out


def _backend_to_v1(backend: Object) -> Object:
    out = {k: v for k, v in backend.items() if k not in ("serviceName", "servicePort")}
    name, port = backend.get("serviceName"), backend.get("servicePort")
    if name or port is not None:
        service: dict[str, Any] = {"name": name or ""}
        if isinstance(port, str):
            service["port"] = {"name": port}
        elif port:
            service["port"] = {"number": port}
        out["service"] = service
    return out
