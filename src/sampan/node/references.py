"""The ConfigMaps and Secrets that this node's pods refer to: one watch an object, shared, and none for any other.

That is all a node may read. An object is followed from the first pod that asks for it until the last one goes.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable

from sampan.api.errors import Object
from sampan.api.resources import CONFIGMAPS, Resource
from sampan.client.informer import Informer
from sampan.client.types import Client

SYNC_SECONDS = 10.0

_Key = tuple[str, str, str]


class CacheTimeout(Exception):
    """The API did not tell in time whether the object exists; the message is upstream's."""


def data_of(obj: Object, resource: Resource) -> dict[str, bytes]:
    """All keys of a ConfigMap (text and binary) or a Secret, with their content."""
    data = obj.get("data") or {}
    if resource is not CONFIGMAPS:
        return {k: base64.b64decode(v or "") for k, v in data.items()}
    binary = {k: base64.b64decode(v or "") for k, v in (obj.get("binaryData") or {}).items()}
    return {**{k: v.encode() for k, v in data.items()}, **binary}


class _Followed:
    def __init__(self, informer: Informer) -> None:
        self.informer = informer
        self.owners: set[str] = set()
        self.waited_in_vain = False
        self.task: asyncio.Task[None] | None = None


class ReferencedObjects:
    """`changed(owner uid)` is called for each owner of an object that came, changed or went."""

    def __init__(self, client: Client, changed: Callable[[str], None]) -> None:
        self._client = client
        self._changed = changed
        self._followed: dict[_Key, _Followed] = {}
        self._failed = asyncio.Event()
        self._failure: BaseException | None = None

    async def run(self) -> None:
        """Wait until one of the objects cannot be followed any more, and raise why."""
        await self._failed.wait()
        assert self._failure is not None
        raise self._failure

    async def get(self, owner: str, resource: Resource, namespace: str, name: str) -> Object | None:
        """The object as it is now, or None if there is none; from here on `owner` is told of its changes. Raises
        CacheTimeout."""
        key = (resource.plural, namespace, name)
        followed = self._followed.get(key)
        if followed is None:
            informer = Informer(self._client, resource, namespace, field_selector=f"metadata.name={name}")
            followed = self._followed[key] = _Followed(informer)
            informer.add_handler(lambda old, new: self._tell(key))
            followed.task = asyncio.get_running_loop().create_task(informer.run(), name=f"follow {key}")
            followed.task.add_done_callback(self._ended)
        followed.owners.add(owner)
        if not followed.informer.synced.is_set():
            try:
                async with asyncio.timeout(SYNC_SECONDS):
                    await followed.informer.synced.wait()
            except TimeoutError:
                followed.waited_in_vain = True
                raise CacheTimeout(
                    f"failed to sync {resource.singular} cache: timed out waiting for the condition"
                ) from None
        return followed.informer.get(namespace, name)

    def release(self, owner: str) -> None:
        """`owner` is gone: objects that nobody else refers to are followed no more."""
        for key in [k for k, f in self._followed.items() if owner in f.owners]:
            followed = self._followed[key]
            followed.owners.discard(owner)
            if not followed.owners:
                del self._followed[key]
                if followed.task is not None:
                    followed.task.cancel()

    def __len__(self) -> int:
        return len(self._followed)

    async def close(self) -> None:
        """Follow nothing any more."""
        tasks = [f.task for f in self._followed.values() if f.task is not None]
        self._followed.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # a failure is `run`'s to raise

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._failure = failure
            self._failed.set()

    def _tell(self, key: _Key) -> None:
        followed = self._followed.get(key)
        # Whoever waits for the first list sees it anyway.
        if followed is None or not (followed.informer.synced.is_set() or followed.waited_in_vain):
            return
        for owner in list(followed.owners):
            self._changed(owner)
