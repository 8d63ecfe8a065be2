"""The OpenAPI documents of the served API: version 3, one document a group and version, and version 2, one for all.

Made from the release's definitions and the table of resources when somebody asks, then kept as bytes. Clients read
them for `kubectl explain`, for validation and to build patches.

Upstream: `k8s.io/kube-openapi` (`pkg/builder`, `pkg/builder3`, `pkg/handler3`).
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from sampan.api import resources, schema
from sampan.api.resources import Resource, Subresource

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_STATUS = _META + "Status"
_DELETE_OPTIONS = _META + "DeleteOptions"
_PATCH = _META + "Patch"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_SUBRESOURCE_DEFINITIONS = {
    "Scale": "io.k8s.api.autoscaling.v1.Scale",
    "Eviction": "io.k8s.api.policy.v1.Eviction",
    "TokenRequest": "io.k8s.api.authentication.v1.TokenRequest",
    "Binding": "io.k8s.api.core.v1.Binding",
}
_PATCH_TYPES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)
_RESPONSE_TYPES = ("application/json", "application/yaml")
# --- What can be done: independent of the documents' version ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Parameter:
    name: str
    type: str
    description: str

    where: str = "query"


_PRETTY = _Parameter("pretty", "string", "If 'true', the output is indented.")
_NAME = _Parameter("name", "string", "The name of the object.", "path")
_NAMESPACE = _Parameter("namespace", "string", "The namespace of the object.", "path")
_REST = _Parameter("path", "string", "The path of the request to pass on.", "path")
_WRITE = (
    _Parameter("dryRun", "string", "With 'All' nothing is stored: the request is only processed."),
    _Parameter("fieldManager", "string", "The name of who makes this change."),
    _Parameter(
        "fieldValidation", "string", "What unknown and duplicate fields lead to: Ignore, Warn or Strict."
    ),
)
_FORCE = _Parameter("force", "boolean", "Take over fields that others own (apply patches only).")
_LIST = (
    _Parameter("allowWatchBookmarks", "boolean", "Whether a watch may send bookmarks."),
    _Parameter("continue", "string", "Where the page before ended."),
    _Parameter("fieldSelector", "string", "Only objects whose fields match."),
    _Parameter("labelSelector", "string", "Only objects whose labels match."),
    _Parameter("limit", "integer", "How many objects a page may have."),
    _Parameter("resourceVersion", "string", "How recent the answer has to be, or where a watch begins."),
    _Parameter("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan."),
    _Parameter("sendInitialEvents", "boolean", "Whether a watch begins with what there is."),
    _Parameter("timeoutSeconds", "integer", "How long the call may take."),
    _Parameter("watch", "boolean", "Send changes as they happen instead of a list."),
)
_DELETE = (
    _WRITE[0],
    _Parameter("gracePeriodSeconds", "integer", "How long the object may take to end; 0 is at once."),
    _Parameter("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    _Parameter(
        "propagationPolicy", "string", "What happens to dependents: Orphan, Background or Foreground."
    ),
)


@dataclass(frozen=True, slots=True)
class _Operation:
    """One method of one path. `body` and `result` are names of definitions; '' is none, and a plain string."""

    path: str
    method: str
    action: str
    id: str
    group: str
    version: str
    kind: str
    parameters: tuple[_Parameter, ...]
    body: str
    result: str
    tag: str

    def gvk(self) -> dict[str, str]:
        return {"group": self.group, "kind": self.kind, "version": self.version}


def _camel(text: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in re.split(r"[.\-/]", text))


def _tag(resource: Resource) -> str:
    group = resource.group.removesuffix(".k8s.io") or "core"
    return f"{group.split('.')[0] if '.' in group else group}_{resource.version}"


def _operations(resource: Resource) -> Iterator[_Operation]:
    """Every operation of a resource and its subresources."""
    stem = _camel(resource.group.removesuffix(".k8s.io") or "core") + _camel(resource.version)
    scope = "Namespaced" if resource.namespaced else ""
    scoped = (_NAMESPACE,) if resource.namespaced else ()
    place = "{namespace}" if resource.namespaced else ""
    collection = resource.path(place)
    item = resource.path(place, "{name}")
    kind_list = resource.definition + "List"

    def make(
        path: str,
        method: str,
        action: str,
        verb: str,
        parameters: tuple[_Parameter, ...],
        body: str = "",
        result: str = resource.definition,
        *,
        scope: str = scope,
        sub: Subresource | None = None,
    ) -> _Operation:
        suffix = _camel(sub.name) if sub else ""
        gvk = (resource.group, resource.version, resource.kind)
        if sub is not None and sub.kind:
            group, version = (sub.group, sub.version) if sub.version else (resource.group, resource.version)
            gvk = (group, version, sub.kind)
        named = f"{verb}{stem}{scope}{resource.kind}{suffix}"
        return _Operation(
            path, method, action, named, *gvk, (*parameters, _PRETTY), body, result, _tag(resource)
        )

    verbs = set(resource.verbs)
    if "list" in verbs:
        yield make(collection, "get", "list", "list", (*scoped, *_LIST), result=kind_list)
        if resource.namespaced:
            yield make(
                resource.path(), "get", "list", "list", _LIST, result=kind_list, scope="ForAllNamespaces"
            )
    if "create" in verbs:
        yield make(collection, "post", "post", "create", (*scoped, *_WRITE), resource.definition)
    if "deletecollection" in verbs:
        parameters = (*scoped, *_LIST, *_DELETE)
        yield make(
            collection,
            "delete",
            "deletecollection",
            "deleteCollection",
            parameters,
            _DELETE_OPTIONS,
            _STATUS,
        )
    named = (*scoped, _NAME)
    if "get" in verbs:
        yield make(item, "get", "get", "read", named)
    if "update" in verbs:
        yield make(item, "put", "put", "replace", (*named, *_WRITE), resource.definition)
    if "patch" in verbs:
        yield make(item, "patch", "patch", "patch", (*named, *_WRITE, _FORCE), _PATCH)
    if "delete" in verbs:
        yield make(item, "delete", "delete", "delete", (*named, *_DELETE), _DELETE_OPTIONS, _STATUS)
    for sub in resource.subresources:
        path = resource.path(place, "{name}", sub.name)
        if sub.kind.endswith("Options"):
            for method in _connect_methods(sub):
                yield make(
                    path, method, "connect", f"connect{method.capitalize()}", named, result="", sub=sub
                )
                if sub.name == "proxy":
                    yield make(
                        path + "/{path}",
                        method,
                        "connect",
                        f"connect{method.capitalize()}",
                        (*named, _REST),
                        result="",
                        sub=Subresource("proxyWithPath", sub.verbs, sub.kind),
                    )
            continue
        of = _SUBRESOURCE_DEFINITIONS.get(sub.kind, resource.definition)
        if "get" in sub.verbs:
            result = "" if sub.name == "log" else of
            yield make(path, "get", "get", "read", named, result=result, sub=sub)
        if "create" in sub.verbs:
            yield make(path, "post", "post", "create", (*named, *_WRITE), of, of, sub=sub)
        if "update" in sub.verbs:
            yield make(path, "put", "put", "replace", (*named, *_WRITE), of, of, sub=sub)
        if "patch" in sub.verbs:
            yield make(path, "patch", "patch", "patch", (*named, *_WRITE, _FORCE), _PATCH, of, sub=sub)


def _connect_methods(sub: Subresource) -> tuple[str, ...]:
    if sub.name == "proxy":
        return ("get", "put", "post", "delete", "patch", "head", "options")
    return ("get", "post")


# --- Definitions --------------------------------------------------------------------------------------------------


class _Definitions:
    """Rewrites the release's definitions for one document and notes which of them it needs."""

    def __init__(self, prefix: str, groups: Iterable[str], *, v3: bool) -> None:
        self._all = schema.definitions()
        self._prefix = prefix
        self._groups = set(groups)
        self._v3 = v3
        self.used: dict[str, Any] = {}

    def ref(self, name: str) -> dict[str, str]:
        """A reference to a definition, which becomes part of the document with all that it refers to."""
        if name not in self.used:
            self.used[name] = None  # types that contain themselves end here
            self.used[name] = self._definition(name, self._all[name])
        return {"$ref": self._prefix + name}

    def _definition(self, name: str, source: dict[str, Any]) -> dict[str, Any]:
        if name == _QUANTITY:
            return {"oneOf": [{"type": "string"}, {"type": "number"}]} if self._v3 else {"type": "string"}
        if name == _INT_OR_STRING:
            if self._v3:
                return {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}
            return {"format": "int-or-string", "type": "string"}
        out = self._schema(source)
        kinds = out.get("x-kubernetes-group-version-kind")
        if kinds:
            out["x-kubernetes-group-version-kind"] = [
                k for k in kinds if k["group"] in self._groups
            ] or kinds[:1]
            # The dataset pins these two to their values; upstream's documents leave them open.
            for field in ("apiVersion", "kind"):
                out.get("properties", {}).get(field, {}).pop("enum", None)
        return out

    def _schema(self, source: dict[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key, value in source.items():
            if key == "$ref":
                ref = self.ref(value.rpartition("/")[2])
                if self._v3 and len(source) > 1:
                    out["allOf"] = [ref]
                else:
                    out |= ref
            elif key == "type":
                out["type"] = value if isinstance(value, str) else value[0]
            elif key == "properties":
                out["properties"] = {name: self._schema(part) for name, part in value.items()}
            elif key in ("items", "additionalProperties") and isinstance(value, dict):
                out[key] = self._schema(value)
            else:
                out[key] = value
        return out


# --- Version 3 ----------------------------------------------------------------------------------------------------


def _path_of(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


@functools.cache
def v3_paths(without: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """The documents that there are: `api/v1`, `apis/apps/v1`, ..."""
    return tuple(
        _path_of(group, version) for group, versions in resources.groups(without) for version in versions
    )


@functools.cache
def document_hash(path: str, without: frozenset[str] = frozenset()) -> str:
    """What changes when the document does. `v2` is the path of the document of version 2."""
    body = v2(without) if path == "v2" else v3(path)
    return _hash(body or b"")


def etag(path: str, without: frozenset[str] = frozenset()) -> str:
    """The entity tag of a document, quoted as the header wants it."""
    return f'"{document_hash(path, without)}"'


@functools.cache
def index_etag(without: frozenset[str] = frozenset()) -> str:
    """The entity tag of the list of documents."""
    return f'"{_hash(v3_index(without))}"'


def _hash(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32].upper()


@functools.cache
def v3_index(without: frozenset[str] = frozenset()) -> bytes:
    """The list of the documents, each with a URL that changes when the document does."""
    return msgspec.json.encode(
        {
            "paths": {
                path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={document_hash(path)}"}
                for path in v3_paths(without)
            }
        }
    )


@functools.lru_cache(4)
def v3(path: str) -> bytes | None:
    """The document of one group and version (`api/v1`, `apis/apps/v1`), or None if there is none."""
    served = [r for r in resources.RESOURCES if _path_of(r.group, r.version) == path]
    if not served:
        return None
    groups = {r.group for r in served} | {s.group for r in served for s in r.subresources if s.version}
    definitions = _Definitions("#/components/schemas/", groups, v3=True)
    paths: dict[str, Any] = {}
    for resource in served:
        for operation in _operations(resource):
            _add(paths, operation, "parameters", _v3_parameter)[operation.method] = _v3_operation(
                operation, definitions
            )
    return msgspec.json.encode(
        {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": f"v{schema.RELEASE}"},
            "paths": paths,
            "components": {"schemas": dict(sorted(definitions.used.items()))},
        }
    )


def _add(paths: dict[str, Any], operation: _Operation, key: str, render: Any) -> dict[str, Any]:
    """The entry of an operation's path, with what all operations there have in common: the parts of the path."""
    shared = [render(p) for p in operation.parameters if p.where == "path"]
    entry: dict[str, Any] = paths.setdefault(operation.path, {key: shared} if shared else {})
    return entry


def _v3_parameter(parameter: _Parameter) -> dict[str, Any]:
    out: dict[str, Any] = {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.description,
        "schema": {"type": parameter.type, "uniqueItems": True},
    }
    if parameter.where == "path":
        out["required"] = True
    return out


def _described(operation: _Operation) -> dict[str, Any]:
    return {
        "tags": [operation.tag],
        "description": f"{operation.action} {operation.kind}",
        "operationId": operation.id,
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": operation.gvk(),
    }


def _v3_operation(operation: _Operation, definitions: _Definitions) -> dict[str, Any]:
    out = _described(operation)
    out["parameters"] = [_v3_parameter(p) for p in operation.parameters if p.where == "query"]
    if operation.body:
        accepted = _PATCH_TYPES if operation.method == "patch" else ("*/*",)
        content = {t: {"schema": definitions.ref(operation.body)} for t in accepted}
        out["requestBody"] = {"content": content, "required": operation.method != "delete"}
    answer: dict[str, Any] = {"schema": definitions.ref(operation.result)} if operation.result else {}
    types = _RESPONSE_TYPES if operation.result else ("*/*",)
    if not operation.result:
        answer = {"schema": {"type": "string"}}
    out["responses"] = {
        "200": {"description": "OK", "content": dict.fromkeys(types, answer)},
        "401": {"description": "Unauthorized"},
    }
    return out


# --- Version 2 ----------------------------------------------------------------------------------------------------


@functools.lru_cache(1)
def v2(without: frozenset[str] = frozenset()) -> bytes:
    """The Swagger 2.0 document of everything served, as JSON."""
    return msgspec.json.encode(_v2_document(without))


@functools.lru_cache(1)
def v2_protobuf(without: frozenset[str] = frozenset()) -> bytes:
    """The Swagger 2.0 document of everything served, as gnostic's `openapi.v2.Document`."""
    from sampan.api import openapi_protobuf

    return openapi_protobuf.encode(_v2_document(without))


def _v2_document(without: frozenset[str]) -> dict[str, Any]:
    definitions = _Definitions(
        "#/definitions/", {r.group for r in resources.served(without)} | {"policy", "autoscaling"}, v3=False
    )
    paths: dict[str, Any] = {}
    for resource in resources.served(without):
        for operation in _operations(resource):
            _add(paths, operation, "parameters", _v2_parameter)[operation.method] = _v2_operation(
                operation, definitions
            )
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": f"v{schema.RELEASE}"},
        "paths": paths,
        "definitions": dict(sorted(definitions.used.items())),
    }


def _v2_parameter(parameter: _Parameter) -> dict[str, Any]:
    out: dict[str, Any] = {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.description,
        "type": parameter.type,
        "uniqueItems": True,
    }
    if parameter.where == "path":
        out["required"] = True
    return out


def _v2_operation(operation: _Operation, definitions: _Definitions) -> dict[str, Any]:
    out = _described(operation)
    out["consumes"] = list(_PATCH_TYPES) if operation.method == "patch" and operation.body else ["*/*"]
    out["produces"] = list(_RESPONSE_TYPES) if operation.result else ["*/*"]
    out["schemes"] = ["https"]
    out["parameters"] = [_v2_parameter(p) for p in operation.parameters if p.where == "query"]
    if operation.body:
        body = {"name": "body", "in": "body", "schema": definitions.ref(operation.body)}
        out["parameters"].append(body if operation.method == "delete" else body | {"required": True})
    result = definitions.ref(operation.result) if operation.result else {"type": "string"}
    out["responses"] = {
        "200": {"description": "OK", "schema": result},
        "401": {"description": "Unauthorized"},
    }
    return out
