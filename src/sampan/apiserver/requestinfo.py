"""What a request is about, read from its method and URL alone.

Upstream: `k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`. What comes out is what authorization decides on,
so nothing here depends on the body.
"""

from __future__ import annotations

from sampan.api.resources import lookup
from sampan.apiserver.list_options import flag
from sampan.apiserver.types import RequestInfo
from sampan.transport.types import Request

_VERBS = {
    "GET": "get",
    "HEAD": "get",
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
_NAMESPACE_SUBRESOURCES = {"status", "finalize"}
_OLD_PROXY = "/api/v1/proxy/"


def modern_target(target: str) -> str:
    """The lesson's old proxy form `/api/v1/proxy/namespaces/NS/services/NAME:PORT/REST` in today's form; any other
    target unchanged."""
    if not target.startswith(_OLD_PROXY):
        return target
    path, mark, query = target.partition("?")
    parts = path[len(_OLD_PROXY) :].split("/", 4)
    if parts[0] == "namespaces" and len(parts) >= 4:
        rest = "/" + parts[4] if len(parts) == 5 else ""
        return f"/api/v1/namespaces/{parts[1]}/{parts[2]}/{parts[3]}/proxy{rest}{mark}{query}"
    if parts[0] == "nodes" and len(parts) >= 2:
        rest = "".join("/" + p for p in parts[2:])
        return f"/api/v1/nodes/{parts[1]}/proxy{rest}{mark}{query}"
    return target


def _only_name(field_selector: str) -> str:
    """The name that a field selector asks for, if it can stand in a path: whoever may get an object may list or watch it
    alone."""
    for term in field_selector.split(","):
        field, _, value = term.partition("=")
        if field == "metadata.name" and (value := value.removeprefix("=")):
            return "" if value in (".", "..") or set(value) & set("/%\\=") else value
    return ""


def parse(request: Request) -> RequestInfo:
    """The request's verb and object; `is_resource` is False for paths outside `/api/V/` and `/apis/G/V/`."""
    path = request.path
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) >= 3:
        group, version, parts = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        group, version, parts = parts[1], parts[2], parts[3:]
    else:
        return RequestInfo(request.method.lower(), path)

    verb = _VERBS.get(request.method, "")
    if parts[0] == "watch" and len(parts) > 1:
        verb, parts = "watch", parts[1:]
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 1:
        namespace = parts[1]
        if len(parts) > 2 and parts[2] not in _NAMESPACE_SUBRESOURCES:
            parts = parts[2:]
            if not namespace:
                parts = [""]  # nothing: or it would mean all namespaces
    plural = parts[0]
    name = parts[1] if len(parts) > 1 else ""
    subresource = parts[2] if len(parts) > 2 else ""
    rest = "/".join(parts[3:])

    label_selector = field_selector = ""
    if not name and verb in ("get", "delete"):
        if verb == "delete":
            verb = "deletecollection"
        else:
            verb = "watch" if "?" in request.target and flag(request.params, "watch") else "list"
    if verb in ("list", "watch", "deletecollection") and "?" in request.target:
        label_selector = request.param("labelSelector")
        field_selector = request.param("fieldSelector")
        name = name or _only_name(field_selector)
    return RequestInfo(
        verb,
        path,
        True,
        group,
        version,
        plural,
        namespace,
        name,
        subresource,
        rest,
        lookup(group, version, plural),
        label_selector,
        field_selector,
    )
