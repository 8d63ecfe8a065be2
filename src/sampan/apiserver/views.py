"""The faces of a stored object: its subresources, and the same object under several names (`api.conversion`)."""

from __future__ import annotations

from typing import Protocol

from sampan.api import conversion
from sampan.api.errors import Object
from sampan.api.resources import Resource, hub


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
        return conversion.shown(self.resource, obj)

    def write(self, obj: Object, face: Object) -> Object:
        return conversion.kept(self.resource, hub(self.resource), face)
