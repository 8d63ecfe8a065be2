"""What this server serves, as clients ask for it: `/api`, `/apis` and below, `/version`, `/openapi`.

All of it follows from the table of resources and is made once, when first asked for. `handle` answers these paths and
returns None for any other. `without` are the API versions that a server does not serve.

Upstream: `k8s.io/apiserver/pkg/endpoints/discovery` (and `/aggregated`).
"""

from __future__ import annotations

import functools
import hashlib
import json
import platform
from collections.abc import Iterable, Sequence

from sampan.api import resources
from sampan.api.errors import Object, StatusError
from sampan.api.resources import Resource, Subresource
from sampan.apiserver import debug
from sampan.transport.types import Request, Response

MAJOR, MINOR, GIT_VERSION = "1", "36", "v1.36.2+sampan"
_JSON = "application/json"
_AGGREGATED = f"{_JSON};g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_PRIORITY = (
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
)
"""The order in which groups are offered. Where a short word fits resources of several groups, the first one wins."""


def handle(request: Request, without: frozenset[str] = frozenset()) -> Response | None:
    """Answer a discovery path; None for a path that is none of these. Raises StatusError 405 and 406."""
    path = request.raw_path
    if path not in ("/api", "/apis", "/version") and not path.startswith(("/api/", "/apis/", "/openapi/")):
        if path == "/":
            return _root(request, without)
        return _version(request) if path == "/version/" else None
    parts = path.strip("/").split("/")
    answer: Response | None
    if parts[0] == "version":
        answer = _version(request) if len(parts) == 1 else None
    elif parts[0] == "openapi":
        from sampan.apiserver import openapi

        answer = openapi.handle(request, without)
    elif parts[0] == "api":
        answer = _core(request, parts, without)
    else:
        answer = _named(request, parts, without)
    if answer is not None and request.method not in ("GET", "HEAD"):
        raise StatusError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")  # fmt: skip
    return answer


def _root(request: Request, without: frozenset[str]) -> Response:
    """The paths there are, as upstream lists them."""
    paths = ["/.well-known/openid-configuration", "/api", "/apis", "/healthz", "/livez", "/openapi/v2"]
    paths += ["/metrics", "/openapi/v3", "/openid/v1/jwks", "/readyz", "/version", *debug.PATHS]
    for group in dict.fromkeys(r.group for r in resources.served(without)):
        if group:
            paths.append(f"/apis/{group}")
        paths += [f"/apis/{group}/{v}" if group else f"/api/{v}" for v in _versions(group, without)]
    return _plain(request, _encode({"paths": sorted(paths)}))


def _core(request: Request, parts: Sequence[str], without: frozenset[str]) -> Response | None:
    if len(parts) == 1:
        if _wants_aggregated(request):
            return _tagged(request, _aggregated(True, without), _AGGREGATED)
        host = request.headers.get("host", "")
        body = {
            "kind": "APIVersions",
            "versions": list(_versions("", without)),
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": host}],
        }
        return _plain(request, _encode(body))
    if len(parts) == 2 and parts[1] in _versions("", without):
        return _plain(request, _resource_list("", parts[1], without))
    return None


def _named(request: Request, parts: Sequence[str], without: frozenset[str]) -> Response | None:
    if len(parts) == 1:
        if _wants_aggregated(request):
            return _tagged(request, _aggregated(False, without), _AGGREGATED)
        return _plain(request, _group_list(without))
    versions = _versions(parts[1], without)
    if not parts[1] or not versions:
        return None
    if len(parts) == 2:
        return _plain(request, _encode({"kind": "APIGroup", "apiVersion": "v1", **_group(parts[1], without)}))
    if len(parts) == 3 and parts[2] in versions:
        return _plain(request, _resource_list(parts[1], parts[2], without))
    return None


# ---- answers


def accepted(request: Request) -> list[str]:
    """The media types of the Accept header in order, each without its weight and without blanks."""
    given = request.headers.get("accept", "") or "*/*"
    types: list[str] = []
    for item in given.split(","):
        fields = [f.strip() for f in item.split(";")]
        types.append(";".join(f for f in fields if not f.startswith("q=")))
    return types


def is_json(media_type: str) -> bool:
    return media_type in (_JSON, "*/*", "application/*")


def _wants_aggregated(request: Request) -> bool:
    """Whether the first form that the client accepts and we have is the aggregated one; v2beta1 we have not."""
    for media_type in accepted(request):
        if media_type == _AGGREGATED:
            return True
        if is_json(media_type):
            return False
    return False


def _plain(request: Request, body: bytes) -> Response:
    if not any(is_json(t) for t in accepted(request)):
        why = f"only the following media types are accepted: {_JSON}"
        raise StatusError(406, "NotAcceptable", why)
    return Response(200, body, _JSON, (("Vary", "Accept"),))


def _tagged(request: Request, body: bytes, content_type: str) -> Response:
    tag = f'"{hashlib.sha512(body).hexdigest().upper()}"'
    headers = (("ETag", tag), ("Vary", "Accept"), ("Cache-Control", "public"))
    if tag in request.headers.get("if-none-match", ""):
        return Response(304, b"", content_type, headers)
    return Response(200, body, content_type, headers)


def _encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _version(request: Request) -> Response:
    return _plain(request, _version_body())


@functools.cache
def _version_body() -> bytes:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return _encode(
        {
            "major": MAJOR,
            "minor": MINOR,
            "emulationMajor": MAJOR,
            "emulationMinor": MINOR,
            "minCompatibilityMajor": MAJOR,
            "minCompatibilityMinor": str(int(MINOR) - 1),
            "gitVersion": GIT_VERSION,
            "gitCommit": "",
            "gitTreeState": "",
            "buildDate": "1970-01-01T00:00:00Z",
            "goVersion": f"python{platform.python_version()}",
            "compiler": platform.python_implementation().lower(),
            "platform": f"linux/{machine}",
        }
    )


# ---- what there is


def _versions(group: str, without: frozenset[str]) -> tuple[str, ...]:
    return next((versions for name, versions in resources.groups(without) if name == group), ())


def groups(without: frozenset[str] = frozenset()) -> list[str]:
    """The named groups, in the order in which they are offered."""
    place = {name: i for i, name in enumerate(_PRIORITY)}
    named = [name for name, _ in resources.groups(without) if name]
    return sorted(named, key=lambda name: place.get(name, len(place)))


def _group(name: str, without: frozenset[str]) -> Object:
    versions = [{"groupVersion": f"{name}/{v}", "version": v} for v in _versions(name, without)]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


@functools.cache
def _group_list(without: frozenset[str]) -> bytes:
    body = {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [_group(g, without) for g in groups(without)],
    }
    return _encode(body)


def _of(group: str, version: str, without: frozenset[str]) -> list[Resource]:
    found = [r for r in resources.served(without) if (r.group, r.version) == (group, version)]
    return sorted(found, key=lambda r: r.plural)


@functools.cache
def _resource_list(group: str, version: str, without: frozenset[str]) -> bytes:
    rows: list[Object] = []
    for resource in _of(group, version, without):
        rows.append(_legacy_row(resource))
        rows.extend(_legacy_subresource(resource, s) for s in _sorted(resource.subresources))
    name = f"{group}/{version}" if group else version
    body: Object = {"kind": "APIResourceList"}
    if group:
        # The core group's list has never carried this field.
        body["apiVersion"] = "v1"
    return _encode({**body, "groupVersion": name, "resources": rows})


def _sorted(subresources: Iterable[Subresource]) -> list[Subresource]:
    return sorted(subresources, key=lambda s: s.name)


def _legacy_row(resource: Resource) -> Object:
    row: Object = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        row["shortNames"] = list(resource.short_names)
    if resource.categories:
        row["categories"] = list(resource.categories)
    if "list" in resource.verbs:
        stem = f"{resource.key_stem}/{resource.version}/{resource.kind}"
        digest = hashlib.sha256(stem.encode()).digest()[:8]
        row["storageVersionHash"] = _base64(digest)
    return row


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


def _legacy_subresource(resource: Resource, subresource: Subresource) -> Object:
    row: Object = {"name": f"{resource.plural}/{subresource.name}", "singularName": "", "namespaced": resource.namespaced}  # fmt: skip
    if subresource.version:
        row.update(group=subresource.group, version=subresource.version)
    return {**row, "kind": subresource.kind or resource.kind, "verbs": list(subresource.verbs)}


@functools.cache
def _aggregated(core: bool, without: frozenset[str]) -> bytes:
    items = [_aggregated_group(g, without) for g in ([""] if core else groups(without))]
    return _encode(
        {
            "kind": "APIGroupDiscoveryList",
            "apiVersion": "apidiscovery.k8s.io/v2",
            "metadata": {},
            "items": items,
        }
    )


def _aggregated_group(group: str, without: frozenset[str]) -> Object:
    metadata: Object = {"creationTimestamp": None}
    if group:
        metadata["name"] = group
    versions = [
        {
            "version": version,
            "resources": [_aggregated_row(r) for r in _of(group, version, without)],
            "freshness": "Current",
        }
        for version in _versions(group, without)
    ]
    return {"metadata": metadata, "versions": versions}


def _aggregated_row(resource: Resource) -> Object:
    row: Object = {
        "resource": resource.plural,
        "responseKind": _kind(resource, None),
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        row["shortNames"] = list(resource.short_names)
    if resource.categories:
        row["categories"] = list(resource.categories)
    if resource.subresources:
        row["subresources"] = [
            {"subresource": s.name, "responseKind": _kind(resource, s), "verbs": list(s.verbs)}
            for s in _sorted(resource.subresources)
        ]
    return row


def _kind(resource: Resource, subresource: Subresource | None) -> Object:
    """A response's kind; an empty group or version stands for the resource's own."""
    if subresource is None or not subresource.kind:
        kind, group, version = resource.kind, "", ""
    else:
        kind, group, version = subresource.kind, subresource.group, subresource.version
    own = (resource.group, resource.version)
    return {
        "group": "" if (group, version) == own else group,
        "version": "" if (group, version) == own else version,
        "kind": kind,
    }
