"""References of the Gateway API from one namespace to another, which ReferenceGrants of the other one allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sampan.api.errors import Object

GROUP = "gateway.networking.k8s.io"

Granted = Callable[[str, str, str, str, str], bool]
"""From kind and namespace (of the group GROUP) to kind, namespace and name (of the core group): whether it may refer to it."""


def granted(grants: Iterable[Object], kind: str, namespace: str, to_kind: str, to_name: str) -> bool:
    """Whether one of the grants, which are all of the namespace that is referred to, allows it."""
    return any(
        any(
            f["group"] == GROUP and f["kind"] == kind and f["namespace"] == namespace
            for f in grant["spec"]["from"]
        )
        and any(
            t["group"] == "" and t["kind"] == to_kind and t.get("name") in (None, "", to_name)
            for t in grant["spec"]["to"]
        )
        for grant in grants
    )


def foreign_namespaces(obj: Object) -> Iterable[str]:
    """The other namespaces that a Gateway or a route refers to for Secrets and Services; for an index."""
    own = obj["metadata"].get("namespace", "")
    found = {ref.get("namespace") or own for ref in _references(obj.get("spec") or {})}
    return sorted(found - {own})


def services(route: Object) -> Iterable[str]:
    """`namespace/name` of every Service that a route refers to; for an index."""
    own = route["metadata"].get("namespace", "")
    return sorted(
        {f"{ref.get('namespace') or own}/{ref['name']}" for ref in _references(route.get("spec") or {})}
    )


def secrets(gateway: Object) -> Iterable[str]:
    """`namespace/name` of every Secret that a Gateway refers to; for an index."""
    return services(gateway)


def _references(spec: Object) -> Iterable[Object]:
    for listener in spec.get("listeners") or ():
        yield from (listener.get("tls") or {}).get("certificateRefs") or ()
    for rule in spec.get("rules") or ():
        for backend in rule.get("backendRefs") or ():
            yield backend
            yield from _mirrors(backend.get("filters") or ())
        yield from _mirrors(rule.get("filters") or ())


def _mirrors(filters: Iterable[Object]) -> Iterable[Object]:
    return (f["requestMirror"]["backendRef"] for f in filters if f.get("requestMirror"))
