"""An object that every namespace has: made with the namespace, and made again when it is deleted or changed."""

from __future__ import annotations

from sampan.api.errors import Object, StatusError
from sampan.api.objects import deep_copy
from sampan.api.resources import NAMESPACES, Resource
from sampan.controllers.controller import Context, Controller


class PerNamespace(Controller):
    """Keeps the object `object_name` of `resource`; `content` are the fields that it must have."""

    workers = 4

    def __init__(
        self,
        context: Context,
        resource: Resource,
        object_name: str,
        content: Object,
        annotations: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._client = context.client
        self._resource = resource
        self._object_name = object_name
        self._content = content
        self._annotations = annotations
        self._namespaces = context.informers.of(NAMESPACES)
        self._objects = context.informers.of(resource)
        self._namespaces.add_handler(self.enqueue_either)
        self._objects.add_handler(self._object_changed)

    def _object_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        if obj["metadata"]["name"] == self._object_name and (new is None or not self._right(new)):
            self.queue.add(obj["metadata"]["namespace"])

    def _right(self, obj: Object) -> bool:
        return all(obj.get(name) == value for name, value in self._content.items())

    async def sync(self, key: str) -> None:
        namespace = self._namespaces.get("", key)
        if namespace is None or (namespace.get("status") or {}).get("phase") != "Active":
            return
        present = self._objects.get(key, self._object_name)
        if present is not None:
            if not self._right(present):
                await self._client.update(self._resource, {**deep_copy(present), **self._content})
            return
        metadata: Object = {"name": self._object_name, "namespace": key}
        if self._annotations:
            metadata["annotations"] = self._annotations
        wanted = {
            "apiVersion": self._resource.api_version,
            "kind": self._resource.kind,
            "metadata": metadata,
            **self._content,
        }
        try:
            await self._client.create(self._resource, wanted)
        except StatusError as e:
            # The namespace may have begun to go meanwhile, and somebody else may have been quicker.
            if e.reason != "AlreadyExists" and e.code != 404 and not namespace_terminating(e):
                raise


def namespace_terminating(e: StatusError) -> bool:
    """Whether a creation was refused because its namespace is going."""
    causes = (e.details or {}).get("causes") or ()
    return any(c.get("reason") == "NamespaceTerminating" for c in causes)
