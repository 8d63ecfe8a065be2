"""The OpenAPI documents, v2 and v3, made of the release's definitions and our own table of resources.

`kubectl explain`, `kubectl apply` and validating clients read them. A document is made when first asked for and kept
as bytes. The hash in a v3 address stands for its content, so that clients may keep a document for ever.

Upstream: `k8s.io/kube-openapi/pkg/{handler,handler3,builder3}`.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from sampan.api import resources, schema
from sampan.api.errors import Object, StatusError
from sampan.api.resources import RESOURCES, Resource
from sampan.apiserver import discovery
from sampan.transport.types import Request, Response

Edition = Literal[2, 3]
_JSON = "application/json"
_V3 = "/openapi/v3"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_ALWAYS = ("Status", "DeleteOptions", "Patch", "WatchEvent", "APIResourceList", "APIGroup")
_ROOT = {2: "#/definitions/", 3: "#/components/schemas/"}
_PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
_GVK = "x-kubernetes-group-version-kind"


def handle(request: Request) -> Response | None:
    """Answer `/openapi/v2` and `/openapi/v3/...`; None for a path without a document. Raises StatusError 406 where
    the client accepts protobuf alone."""
    path = request.raw_path.rstrip("/")
    if path == "/openapi/v2":
        _check_accepts(request)
        return _answer(request, _document_v2(), f"v2-{fingerprint()}")
    if path == _V3:
        _check_accepts(request)
        return _answer(request, _index(), f"v3-{fingerprint()}")
    if not path.startswith(f"{_V3}/"):
        return None
    place = path.removeprefix(f"{_V3}/")
    if place not in _places():
        return None
    _check_accepts(request)
    given = request.param("hash")
    if given and given != fingerprint():
        location = f"{path}?hash={fingerprint()}"
        return Response(301, b"", _JSON, (("Location", location),))
    kept = (("Cache-Control", "public, immutable, max-age=31536000"),)
    return _answer(request, _document_v3(place), fingerprint(), kept if given else ())


def _check_accepts(request: Request) -> None:
    if not any(discovery.is_json(t) for t in discovery.accepted(request)):
        raise StatusError(406, "NotAcceptable", f"only the following media types are accepted: {_JSON}")


def _answer(request: Request, body: bytes, tag: str, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    quoted = f'"{tag}"'
    headers = (("ETag", quoted), ("Vary", "Accept"), *headers)
    if quoted in request.headers.get("if-none-match", ""):
        return Response(304, b"", _JSON, headers)
    return Response(200, body, _JSON, headers)


@functools.cache
def fingerprint() -> str:
    """A hash that changes whenever a document may: of the release, the table of resources and this module."""
    made_by = Path(__file__).read_bytes()
    return hashlib.sha256(f"{schema.RELEASE} {RESOURCES!r}".encode() + made_by).hexdigest().upper()


def _places() -> dict[str, tuple[str, str]]:
    """The group and version behind each document's path (`api/v1`, `apis/apps/v1`)."""
    return {
        f"apis/{group}/{version}" if group else f"api/{version}": (group, version)
        for group, versions in resources.groups()
        for version in versions
    }


@functools.cache
def _index() -> bytes:
    paths = {p: {"serverRelativeURL": f"{_V3}/{p}?hash={fingerprint()}"} for p in _places()}
    return _encode({"paths": paths})


@functools.cache
def _document_v3(place: str) -> bytes:
    group, version = _places()[place]
    served = [r for r in RESOURCES if (r.group, r.version) == (group, version)]
    return _encode(
        {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": discovery.GIT_VERSION},
            "paths": _paths(served, 3),
            "components": {"schemas": _schemas(served, 3)},
        }
    )


@functools.cache
def _document_v2() -> bytes:
    return _encode(
        {
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": discovery.GIT_VERSION},
            "paths": _paths(RESOURCES, 2),
            "definitions": _schemas(RESOURCES, 2),
        }
    )


def _encode(value: Object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


# ---- schemas


def _schemas(served: list[Resource] | tuple[Resource, ...], edition: Edition) -> Object:
    """The definitions that the served resources need, each once."""
    known = schema.definitions()
    waiting = {_META + name for name in _ALWAYS}
    for resource in served:
        waiting.update((resource.definition, f"{resource.definition}List"))
        waiting.update(_subresource_definition(resource, s.name) for s in resource.subresources)
    out: Object = {}
    while waiting:
        name = waiting.pop()
        if name in out or name not in known:
            continue
        out[name] = _convert(known[name], edition)
        waiting.update(_references(known[name]))
    return dict(sorted(out.items()))


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        ref = value.get("$ref")
        if isinstance(ref, str):
            yield ref.rpartition("/")[2]
        for v in value.values():
            yield from _references(v)
    elif isinstance(value, list):
        for v in value:
            yield from _references(v)


def _convert(value: Any, edition: Edition) -> Any:
    """A definition of the document in the words of OpenAPI. The document is JSON schema: it marks every optional
    place as nullable and pins `apiVersion` and `kind`, which OpenAPI does not say."""
    if not isinstance(value, dict):
        return value
    ref = value.get("$ref")
    if isinstance(ref, str):
        rest = {k: v for k, v in value.items() if k != "$ref"}
        target = {"$ref": _ROOT[edition] + ref.rpartition("/")[2]}
        if edition == 2 or not rest:
            return {**rest, **target}
        return {**rest, "allOf": [target]}
    if "oneOf" in value:
        return _either(value, edition)
    out: Object = {}
    for key, item in value.items():
        if key == "properties":
            out[key] = {name: _property(name, p, edition) for name, p in item.items()}
        elif key in ("items", "additionalProperties"):
            out[key] = _convert(item, edition)
        elif key == "type":
            out[key] = _type(item)
        elif key == "enum":
            out[key] = [e for e in item if e is not None]
        elif key != "$schema":
            out[key] = item
    return out


def _type(given: Any) -> Any:
    return next(t for t in given if t != "null") if isinstance(given, list) else given


def _property(name: str, value: Any, edition: Edition) -> Any:
    converted = _convert(value, edition)
    if name in ("apiVersion", "kind") and len(converted.get("enum") or ()) == 1:
        del converted["enum"]
    return converted


def _either(value: Object, edition: Edition) -> Object:
    types = [_type(o.get("type")) for o in value["oneOf"]]
    rest = {k: v for k, v in value.items() if k not in ("oneOf", "$schema")}
    if set(types) == {"integer", "string"}:
        rest["format"] = "int-or-string"
    if edition == 2 or set(types) != {"integer", "string"}:
        return {**rest, "type": "string"}
    return {**rest, "oneOf": [{"type": "integer"}, {"type": "string"}]}


def _subresource_definition(resource: Resource, name: str) -> str:
    found = resource.subresource(name)
    if found is None or not found.kind:
        return resource.definition
    stem = {"autoscaling": "autoscaling", "policy": "policy", "authentication.k8s.io": "authentication", "": "core"}  # fmt: skip
    return f"io.k8s.api.{stem[found.group]}.{found.version or 'v1'}.{found.kind}"


# ---- paths

_QUERY = {
    "list": "allowWatchBookmarks continue fieldSelector labelSelector limit resourceVersion resourceVersionMatch "
    "sendInitialEvents timeoutSeconds watch pretty",
    "get": "pretty",
    "post": "dryRun fieldManager fieldValidation pretty",
    "put": "dryRun fieldManager fieldValidation pretty",
    "patch": "dryRun fieldManager fieldValidation force pretty",
    "delete": "dryRun gracePeriodSeconds ignoreStoreReadErrorWithClusterBreakingPotential orphanDependents "
    "propagationPolicy pretty",
    "deletecollection": "continue dryRun fieldSelector gracePeriodSeconds labelSelector limit orphanDependents "
    "propagationPolicy resourceVersion resourceVersionMatch timeoutSeconds pretty",
    "connect": "",
}
_WORDS = {"post": "create", "get": "read", "put": "replace"}
_PARAMETER_TYPES = {
    "allowWatchBookmarks": "boolean",
    "force": "boolean",
    "gracePeriodSeconds": "integer",
    "ignoreStoreReadErrorWithClusterBreakingPotential": "boolean",
    "limit": "integer",
    "orphanDependents": "boolean",
    "sendInitialEvents": "boolean",
    "timeoutSeconds": "integer",
    "watch": "boolean",
}


def _paths(served: list[Resource] | tuple[Resource, ...], edition: Edition) -> Object:
    out: Object = {}
    for resource in served:
        _resource_paths(resource, edition, out)
    return dict(sorted(out.items()))


def _resource_paths(resource: Resource, edition: Edition, out: Object) -> None:
    verbs = set(resource.verbs)
    collection = resource.path("{namespace}" if resource.namespaced else "")
    item = resource.path("{namespace}" if resource.namespaced else "", "{name}")
    own, listed = resource.definition, f"{resource.definition}List"

    def add(path: str, method: str, action: str, takes: str, gives: str, kind: Object) -> None:
        operation = _operation(resource, path, method, action, takes, gives, kind, edition)
        present = out.setdefault(path, {"parameters": _path_parameters(path, edition)})
        present[method] = operation

    kind = _gvk(resource.group, resource.version, resource.kind)
    if "list" in verbs:
        add(collection, "get", "list", "", listed, kind)
        if resource.namespaced:
            add(resource.path(), "get", "list", "", listed, kind)
    if "create" in verbs:
        add(collection, "post", "post", own, own, kind)
    if "deletecollection" in verbs:
        add(collection, "delete", "deletecollection", f"{_META}DeleteOptions", f"{_META}Status", kind)
    if "get" in verbs:
        add(item, "get", "get", "", own, kind)
        add(item, "put", "put", own, own, kind)
        add(item, "patch", "patch", f"{_META}Patch", own, kind)
        add(item, "delete", "delete", f"{_META}DeleteOptions", f"{_META}Status", kind)
    methods = {"get": "get", "create": "post", "update": "put", "patch": "patch", "delete": "delete"}
    for sub in resource.subresources:
        shown = _subresource_definition(resource, sub.name)
        sub_kind = _gvk(sub.group, sub.version or "v1", sub.kind) if sub.kind else kind
        connects = sub.kind.endswith("Options")
        for verb in sub.verbs:
            method = methods[verb]
            takes = {"create": shown, "update": shown, "patch": f"{_META}Patch"}.get(verb, "")
            action = "connect" if connects else method
            add(
                f"{item}/{sub.name}",
                method,
                action,
                "" if connects else takes,
                "" if connects else shown,
                sub_kind,
            )


def _gvk(group: str, version: str, kind: str) -> Object:
    return {"group": group, "version": version, "kind": kind}


def _identity(resource: Resource, path: str, method: str, action: str) -> str:
    """`readAppsV1NamespacedDeploymentScale`: the names that generated clients call."""
    group = _camel(resource.group.partition(".")[0] or "core") + _camel(resource.version)
    last = path.rpartition("/")[2]
    tail = "" if last in (resource.plural, "{name}") else _camel(last)
    if resource.namespaced and "{namespace}" not in path:
        return f"{action}{group}{resource.kind}ForAllNamespaces"
    scope = "Namespaced" if resource.namespaced else ""
    what = f"{scope}{resource.kind}{tail}"
    if action == "connect":
        return f"connect{group}{_camel(method)}{what}"
    if action == "deletecollection":
        return f"delete{group}Collection{what}"
    return f"{_WORDS.get(action, action)}{group}{what}"


def _operation(
    resource: Resource,
    path: str,
    method: str,
    action: str,
    takes: str,
    gives: str,
    kind: Object,
    edition: Edition,
) -> Object:
    identity = _identity(resource, path, method, action)
    group = resource.group.partition(".")[0] or "core"
    consumes = _PATCHES if action == "patch" else (_JSON,)
    out: Object = {
        "description": f"{action} {resource.kind}",
        "operationId": identity,
        "tags": [f"{group}_{resource.version}"],
        "x-kubernetes-action": action,
        _GVK: kind,
        "parameters": [_parameter(n, "query", edition) for n in _QUERY[action].split()],
        "responses": {"200": _response(gives, edition), "401": {"description": "Unauthorized"}},
    }
    if edition == 2:
        out.update(consumes=list(consumes), produces=[_JSON], schemes=["https"])
        if takes:
            body = {"in": "body", "name": "body", "required": True, "schema": _ref(takes, 2)}
            out["parameters"].append(body)
    elif takes:
        content = {c: {"schema": _ref(takes, 3)} for c in (consumes if action == "patch" else ("*/*",))}
        out["requestBody"] = {"content": content, "required": action != "delete"}
    return out


def _camel(word: str) -> str:
    return "".join(p[:1].upper() + p[1:] for p in word.split("-"))


def _ref(definition: str, edition: Edition) -> Object:
    return {"$ref": _ROOT[edition] + definition}


def _response(definition: str, edition: Edition) -> Object:
    if not definition:
        return {"description": "OK"}
    if edition == 2:
        return {"description": "OK", "schema": _ref(definition, 2)}
    return {"description": "OK", "content": {_JSON: {"schema": _ref(definition, 3)}}}


def _path_parameters(path: str, edition: Edition) -> list[Object]:
    return [_parameter(n, "path", edition) for n in ("namespace", "name") if f"{{{n}}}" in path]


def _parameter(name: str, place: str, edition: Edition) -> Object:
    out: Object = {"name": name, "in": place}
    if place == "path":
        out["required"] = True
    kind = _PARAMETER_TYPES.get(name, "string")
    if edition == 2:
        return {**out, "type": kind, "uniqueItems": True}
    return {**out, "schema": {"type": kind, "uniqueItems": True}}
