"""The objects of a resource by their namespace, kept up to date: most namespaces have none, and to know that must cost
nothing at each write."""

from __future__ import annotations

from collections.abc import Mapping

from sampan.api.errors import Object
from sampan.api.resources import Resource
from sampan.apiserver.types import ReadCache

_NONE: Mapping[str, Object] = {}


class ByNamespace:
    """Newest states by name. What is returned is shared: not to be changed."""

    def __init__(self, cache: ReadCache, resource: Resource) -> None:
        self._objects: dict[str, dict[str, Object]] = {}
        for obj in cache.list(resource):
            self._changed(None, obj)
        cache.on_change(resource, self._changed)

    def __contains__(self, namespace: str) -> bool:
        return namespace in self._objects

    def of(self, namespace: str) -> Mapping[str, Object]:
        return self._objects.get(namespace, _NONE)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        if new is not None:
            self._objects.setdefault(namespace, {})[name] = new
            return
        there = self._objects.get(namespace, {})
        there.pop(name, None)
        if not there:
            self._objects.pop(namespace, None)
