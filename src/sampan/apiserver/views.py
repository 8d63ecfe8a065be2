"""One stored object under two names: Events as core/v1 keeps them and as events.k8s.io/v1 shows them.

The stored form is core/v1's. Upstream: `pkg/apis/events/v1/conversion.go`.
"""

from __future__ import annotations

from sampan.api.errors import Object
from sampan.api.resources import EVENTS, EVENTS_V1, Resource

_RENAMED = (
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
)


def storage_resource(resource: Resource) -> Resource:
    """The row under which objects of `resource` are kept."""
    return EVENTS if resource is EVENTS_V1 else resource


def shown(resource: Resource, stored: Object) -> Object:
    """A stored object as `resource` shows it (shares what it can with the original)."""
    if resource is not EVENTS_V1:
        return stored
    return _renamed(stored, resource, _RENAMED)


def kept(resource: Resource, given: Object) -> Object:
    """An object of `resource` in the form in which it is stored."""
    if resource is not EVENTS_V1:
        return given
    return _renamed(given, EVENTS, tuple((new, old) for old, new in _RENAMED))


def _renamed(obj: Object, resource: Resource, names: tuple[tuple[str, str], ...]) -> Object:
    table = dict(names)
    out = {table.get(k, k): v for k, v in obj.items()}
    out["apiVersion"], out["kind"] = resource.api_version, resource.kind
    if resource is EVENTS:
        out.setdefault("involvedObject", {})
    return out
