"""Single objects that others refer to, ConfigMaps and Secrets above all: one watch an object, shared, and none for any other.

Nodes may read no more than that. An object is followed from the first owner that asks for it until the last one goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from sampan.api.errors import Object
from sampan.api.resources import Resource
from sampan.client.informer import Informer
from sampan.client.types import Client

SYNC_SECONDS = 10.0

Reference = tuple[Resource, str, str]
"""Resource, namespace and name."""
_Key = tuple[str, str, str]


class CacheTimeout(Exception):
    """The API did not tell in time whether the object exists; the message is upstream's."""


class _Followed:
    def __init__(self, informer: Informer) -> None:
        self.informer = informer
        self.owners: set[str] = set()
        self.awaited = False
        """Whether somebody is to be told once it is known."""
        self.tasks: list[asyncio.Task[None]] = []


class ReferencedObjects:
    """`changed(owner)` is called for each owner of an object that came, changed or went."""

    def __init__(self, client: Client, changed: Callable[[str], None]) -> None:
        self._client = client
        self._changed = changed
        self._followed: dict[_Key, _Followed] = {}
        self._of_owner: dict[str, set[_Key]] = {}
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
        followed = self._follow(owner, resource, namespace, name)
        if not followed.informer.synced.is_set():
            try:
                async with asyncio.timeout(SYNC_SECONDS):
                    await followed.informer.synced.wait()
            except TimeoutError:
                followed.awaited = True
                raise CacheTimeout(
                    f"failed to sync {resource.singular} cache: timed out waiting for the condition"
                ) from None
        return followed.informer.get(namespace, name)

    def follow(self, owner: str, wanted: Iterable[Reference]) -> bool:
        """From here on `owner` is told of changes of these objects and of no others. Returns whether it is known of each what
        it is; if not, `owner` is told when it is."""
        known, keys = True, set()
        for resource, namespace, name in wanted:
            followed = self._follow(owner, resource, namespace, name)
            keys.add((resource.plural, namespace, name))
            if not followed.informer.synced.is_set():
                followed.awaited, known = True, False
        for key in self._of_owner.get(owner, set()) - keys:
            self._drop(owner, key)
        return known

    def known(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """An object that somebody follows, as it is now."""
        followed = self._followed.get((resource.plural, namespace, name))
        return followed.informer.get(namespace, name) if followed is not None else None

    def release(self, owner: str) -> None:
        """`owner` is gone: objects that nobody else refers to are followed no more."""
        for key in list(self._of_owner.get(owner, ())):
            self._drop(owner, key)

    def __len__(self) -> int:
        return len(self._followed)

    async def close(self) -> None:
        """Follow nothing any more."""
        tasks = [t for f in self._followed.values() for t in f.tasks]
        self._followed.clear()
        self._of_owner.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # a failure is `run`'s to raise

    def _follow(self, owner: str, resource: Resource, namespace: str, name: str) -> _Followed:
        key = (resource.plural, namespace, name)
        followed = self._followed.get(key)
        if followed is None:
            informer = Informer(self._client, resource, namespace, field_selector=f"metadata.name={name}")
            followed = self._followed[key] = _Followed(informer)
            informer.add_handler(lambda old, new: self._tell(key))
            loop = asyncio.get_running_loop()
            followed.tasks = [
                loop.create_task(informer.run(), name=f"follow {key}"),
                loop.create_task(self._wait(key, followed), name=f"wait for {key}"),
            ]
            followed.tasks[0].add_done_callback(self._ended)
        followed.owners.add(owner)
        self._of_owner.setdefault(owner, set()).add(key)
        return followed

    def _drop(self, owner: str, key: _Key) -> None:
        keys = self._of_owner[owner]
        keys.discard(key)
        if not keys:
            del self._of_owner[owner]
        followed = self._followed[key]
        followed.owners.discard(owner)
        if not followed.owners:
            del self._followed[key]
            for task in followed.tasks:
                task.cancel()

    async def _wait(self, key: _Key, followed: _Followed) -> None:
        """That there is none is also told."""
        await followed.informer.synced.wait()
        if followed.awaited:
            self._tell(key)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._failure = failure
            self._failed.set()

    def _tell(self, key: _Key) -> None:
        followed = self._followed.get(key)
        # Whoever waits for the first list sees it anyway.
        if followed is None or not (followed.informer.synced.is_set() or followed.awaited):
            return
        for owner in list(followed.owners):
            self._changed(owner)
