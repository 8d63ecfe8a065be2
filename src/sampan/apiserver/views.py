"""The faces of a stored object: its subresources, and Events under their two names.

Events are stored as core/v1 has them and shown by events.k8s.io/v1 too. Upstream: `pkg/apis/events/v1/conversion.go`.
"""

from __future__ import annotations

from typing import Protocol

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


class View(Protocol):
    """A subresource that is another face of the same object (the object itself, its status, its scale)."""

    name: str
    definition: str
    api_version: str
    kind: str

    def read(self, obj: Object) -> Object:
        """The face of a stored object; shares what it can."""

    def write(self, obj: Object, face: Object) -> Object:
        """The object with a changed face."""


class ObjectView:
    """The object itself, or a subresource of the same kind (`status`, `finalize`)."""

    def __init__(self, resource: Resource, name: str = "") -> None:
        self.resource = resource
        self.name = name
        self.definition = resource.definition
        self.api_version = resource.api_version
        self.kind = resource.kind

    def read(self, obj: Object) -> Object:
        return shown(self.resource, obj)

    def write(self, obj: Object, face: Object) -> Object:
        return kept(self.resource, face)
