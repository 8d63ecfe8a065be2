"""A local copy of one resource that follows the API: list once, then watch, and tell handlers of every change.

Role as in client-go's shared informer: each controller reads the copy and is woken by its handlers. There is no
resync timer; a watch that ends is taken up from the last revision seen, and only a 410 leads to a new list, whose
difference from the copy is told to the handlers as ordinary changes.
"""

from __future__ import annotations

import asyncio
import builtins
import logging
import random
from collections.abc import Callable, Iterable, Mapping

from sampan.api.errors import Object, StatusError
from sampan.api.resources import Resource
from sampan.client.types import Client, ConnectionLost

log = logging.getLogger(__name__)

Handler = Callable[[Object | None, Object | None], None]
"""Called with (old, new): (None, new) added, (old, new) changed, (old, None) deleted; old is the last state seen."""

IndexFunction = Callable[[Object], Iterable[str]]

Transform = Callable[[Object], Object]
"""What is kept of an object: a new one, with its name, namespace and resourceVersion. The object itself is others', too."""

_BACKOFF_FIRST, _BACKOFF_MOST = 0.05, 10.0


class HandlerFailed(Exception):
    """A handler was told of a change and raised."""


def key_of(obj: Object) -> str:
    """`namespace/name`, or `name` for a cluster-scoped object."""
    meta = obj["metadata"]
    namespace = meta.get("namespace")
    return f"{namespace}/{meta['name']}" if namespace else str(meta["name"])


class Informer:
    """The copy of one resource (narrowed by selectors where given).

    `run()` must be running in a task of the owner's; `synced` is set once the first list has been told. Handlers run
    inside `run()` in the order of changes, must not block, and see the copy already updated. One that raises ends
    `run()`: its owner missed a change, and only by beginning anew does it find out what is so (upstream ends the process).
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        indexes: Mapping[str, IndexFunction] | None = None,
        transform: Transform | None = None,
    ) -> None:
        self.resource = resource
        self.synced = asyncio.Event()
        self.resource_version = ""
        self._client = client
        self._namespace = namespace
        self._label_selector = label_selector
        self._field_selector = field_selector
        self._transform = transform
        self._objects: dict[str, Object] = {}
        self._handlers: list[Handler] = []
        self._index_functions = dict(indexes or {})
        self._indexes: dict[str, dict[str, dict[str, Object]]] = {name: {} for name in self._index_functions}

    def add_handler(self, handler: Handler) -> None:
        """Have `handler` told of every change; one added late is first told of all objects in the copy."""
        self._handlers.append(handler)
        for obj in list(self._objects.values()):
            handler(None, obj)

    def get(self, namespace: str, name: str) -> Object | None:
        return self._objects.get(f"{namespace}/{name}" if namespace else name)

    def get_by_key(self, key: str) -> Object | None:
        return self._objects.get(key)

    def list(self, namespace: str = "") -> list[Object]:
        """All objects of the copy, or those of one namespace."""
        if not namespace:
            return list(self._objects.values())
        return [o for o in self._objects.values() if o["metadata"].get("namespace") == namespace]

    def by_index(self, index: str, value: str) -> builtins.list[Object]:
        """The objects for which the index function named `index` gives `value`."""
        return list(self._indexes[index].get(value, {}).values())

    async def run(self) -> None:
        """Follow the API until cancelled; failures of the API are logged and tried again with growing pauses. Raises
        HandlerFailed."""
        pause, followed_from = _BACKOFF_FIRST, ""
        while True:
            try:
                if not self.resource_version:
                    await self._relist()
                followed_from = self.resource_version
                await self._follow()
                pause = _BACKOFF_FIRST
            except StatusError as e:
                if e.code == 410:
                    self.resource_version = ""
                    continue
                log.warning("%s: %s", self.resource.plural, e.message)
            except ConnectionLost as e:
                log.debug("%s: %s", self.resource.plural, e)
                if self.resource_version != followed_from:  # it worked until now
                    pause = _BACKOFF_FIRST
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            pause = min(pause * 2, _BACKOFF_MOST)

    async def _relist(self) -> None:
        found = await self._client.list(
            self.resource,
            self._namespace,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        )
        present = {key_of(o): self._kept(o) for o in found.items}
        for key in [k for k in self._objects if k not in present]:
            self._change(key, None)
        for key, obj in present.items():
            old = self._objects.get(key)
            if old is None or old["metadata"]["resourceVersion"] != obj["metadata"]["resourceVersion"]:
                self._change(key, obj)
        self.resource_version = found.resource_version
        self.synced.set()

    async def _follow(self) -> None:
        async for event in self._client.watch(
            self.resource,
            self._namespace,
            resource_version=self.resource_version,
            label_selector=self._label_selector,
            field_selector=self._field_selector,
        ):
            obj = event.object
            if event.type == "DELETED":
                self._change(key_of(obj), None, last=self._kept(obj))
            elif event.type != "BOOKMARK":
                self._change(key_of(obj), self._kept(obj))
            self.resource_version = obj["metadata"]["resourceVersion"]

    def _kept(self, obj: Object) -> Object:
        return obj if self._transform is None else self._transform(obj)

    def _change(self, key: str, new: Object | None, last: Object | None = None) -> None:
        old = self._objects.get(key)
        if new is None:
            self._objects.pop(key, None)
            if old is None:
                return
        else:
            self._objects[key] = new
        for name, function in self._index_functions.items():
            index = self._indexes[name]
            for value in function(old) if old is not None else ():
                bucket = index.get(value)
                if bucket is not None:
                    bucket.pop(key, None)
                    if not bucket:
                        del index[value]
            for value in function(new) if new is not None else ():
                index.setdefault(value, {})[key] = new  # type: ignore[assignment]
        told_old = last if new is None and last is not None else old
        for handler in self._handlers:
            try:
                handler(told_old, new)
            except Exception as e:
                raise HandlerFailed(f"a handler for {self.resource.plural} failed on {key}: {e!r}") from e
