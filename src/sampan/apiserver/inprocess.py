"""The client of parts that share the API server's process: no HTTP, no encoding, the same rules.

Requests go through admission and validation as any other; they skip authentication and authorization, for the
identity is the server's to give. What is returned is shared with the watch cache: treat it as immutable. What is
passed in is copied before it is changed. The sets of fields in `metadata.managedFields` are JSON as it stands (`msgspec.Raw`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Literal

from sampan.api import conversion, errors
from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.resources import BINDINGS, Resource
from sampan.apiserver import deletion
from sampan.apiserver.deletion import DeleteOptions, Deletion
from sampan.apiserver.events import Change, ChangeType, Selection, bookmark_object, initial
from sampan.apiserver.list_options import ListOptions, parse_revision, too_large
from sampan.apiserver.listing import Listed, Lists
from sampan.apiserver.patching import Patching
from sampan.apiserver.preparation import Writing, check_resource, check_type
from sampan.apiserver.registry import Registry, translated
from sampan.apiserver.subresources import Actions, view_of
from sampan.apiserver.types import User
from sampan.apiserver.watchcache import WatchCache
from sampan.client.types import MERGE_PATCH, ObjectList, WatchEvent

MOST_WAITING = 100_000
"""Events that a watcher may leave untaken before its watch ends (it then lists anew)."""

Reviews = Callable[[Resource, str, Object, User], Object | Awaitable[Object]]


class InProcessClient:
    """Implements `sampan.client.types.Client` for one identity."""

    def __init__(
        self,
        user: User,
        *,
        cache: WatchCache,
        registry: Registry,
        patching: Patching,
        deletion: Deletion,
        lists: Lists,
        actions: Actions,
        reviews: Reviews,
        manager: str = "",
    ) -> None:
        self._user = user
        self._cache = cache
        self._registry = registry
        self._patching = patching
        self._deletion = deletion
        self._lists = lists
        self._store = lists.store
        self._actions = actions
        self._reviews = reviews
        self._manager = manager or user.name

    def _writing(self, manager: str = "") -> Writing:
        # Strict: a misspelt field in a part of ours is a bug to be seen at once.
        return Writing(self._user, manager or self._manager, field_validation="Strict")

    async def _catch_up(self) -> None:
        """Where others write to the store too: stand on all that was acknowledged to anybody."""
        with translated():
            await self._store.catch_up()

    async def get(self, resource: Resource, namespace: str, name: str, *, subresource: str = "") -> Object:
        if self._store.shared:
            await self._catch_up()
        record = self._cache.record(resource, namespace, name)
        if record is None:
            raise errors.not_found(resource.plural, name, resource.group)
        return view_of(resource, _sub(resource, subresource)).read(record.obj)

    async def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        limit: int = 0,
        continue_: str = "",
    ) -> ObjectList:
        if self._store.shared and not resource_version:
            await self._catch_up()
        selection = Selection(resource, namespace, label_selector, field_selector)
        listed = self._lists.list(selection, ListOptions(limit, continue_, resource_version))
        if not isinstance(listed, Listed):
            listed = await listed
        items = [conversion.shown(resource, r.obj) for r in listed.records]
        return ObjectList(items, str(listed.revision), listed.continue_, listed.remaining or 0)

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[WatchEvent]:
        selection = Selection(resource, namespace, label_selector, field_selector)
        revision = parse_revision(resource_version)
        if revision > self._cache.revision:
            raise too_large(revision, self._cache.revision)
        first: Sequence[tuple[ChangeType, Change]]
        if revision:
            first = self._cache.backlog(selection, revision)
        else:
            first = [("ADDED", c) for c in initial(self._cache.shelf(resource).select(selection))]
        queue = _Queue(resource)
        queue.deliver(first, b"")
        leave = self._cache.join(selection, None, queue)
        try:
            while True:
                for event in await queue.take():
                    yield event
                if queue.ended and not queue.waiting:
                    return
        finally:
            leave()

    async def create(
        self,
        resource: Resource,
        obj: Object,
        *,
        namespace: str = "",
        name: str = "",
        subresource: str = "",
        field_manager: str = "",
    ) -> Object:
        if self._store.shared:
            await self._catch_up()
        obj = deep_copy(obj)
        writing = self._writing(field_manager)
        metadata = obj.setdefault("metadata", {})
        namespace = namespace or metadata.get("namespace", "")
        if subresource:
            name = name or metadata.get("name", "")
            return await self._actions.create(resource, namespace, name, subresource, obj, writing)
        if resource is BINDINGS:
            return await self._actions.bind(namespace, "", obj, writing)
        check_resource(resource, obj, writing)
        if not resource.stored:
            made = self._reviews(resource, namespace, obj, self._user)
            return await made if isinstance(made, Awaitable) else made
        record = await self._registry.create(resource, namespace, obj, writing)
        return conversion.shown(resource, record.obj)

    async def update(self, resource: Resource, obj: Object, *, subresource: str = "") -> Object:
        if self._store.shared:
            await self._catch_up()
        obj = deep_copy(obj)
        view = view_of(resource, _sub(resource, subresource))
        writing = self._writing()
        check_type(view.definition, view.api_version, view.kind, obj, writing)
        metadata = obj["metadata"]
        record, _ = await self._registry.update(
            resource, metadata.get("namespace", ""), metadata.get("name", ""), view, obj, writing
        )
        return view.read(record.obj)

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        patch: Any,
        *,
        content_type: str = MERGE_PATCH,
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
    ) -> Object:
        if self._store.shared:
            await self._catch_up()
        view = view_of(resource, _sub(resource, subresource))
        writing = self._writing(field_manager)
        writing.force = force
        record, _ = await self._patching.patch(
            resource, namespace, name, view, deep_copy(patch), content_type, writing
        )
        return view.read(record.obj)

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        grace_period_seconds: int | None = None,
        propagation_policy: Literal["", "Background", "Foreground", "Orphan"] = "",
        uid: str = "",
        resource_version: str = "",
    ) -> Object:
        if self._store.shared:
            await self._catch_up()
        options = DeleteOptions(grace_period_seconds, propagation_policy, uid, resource_version)
        record, gone = await self._deletion.delete(resource, namespace, name, options, self._writing())
        return deletion.answer(resource, record, gone) or conversion.shown(resource, record.obj)

    async def close(self) -> None:
        """Nothing to let go of: watches end when their iterators are closed."""


class _Queue:
    """The events that a watch in this process has not taken yet."""

    bookmarks = True

    def __init__(self, resource: Resource) -> None:
        self.ended = False
        self.waiting: deque[WatchEvent] = deque()
        self._resource = resource
        self._wake: asyncio.Future[None] | None = None

    async def take(self) -> Sequence[WatchEvent]:
        """Everything that waits; at least one event, unless the watch has ended."""
        if not self.waiting and not self.ended:
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        taken = list(self.waiting)
        self.waiting.clear()
        return taken

    def deliver(self, changes: Sequence[tuple[ChangeType, Change]], framed: bytes) -> None:
        if self.ended:
            return
        if len(self.waiting) > MOST_WAITING:
            self.end()
            return
        resource = self._resource
        if resource.storage:
            self.waiting += [WatchEvent(t, conversion.shown(resource, c.event(t).object)) for t, c in changes]
        else:
            self.waiting += [c.event(t) for t, c in changes]
        self._notify()

    def bookmark(self, revision: int) -> None:
        if self.ended:  # what was not delivered any more lies before this revision
            return
        self.waiting.append(WatchEvent("BOOKMARK", bookmark_object(self._resource, revision)))
        self._notify()

    def end(self) -> None:
        self.ended = True
        self._notify()

    def cut(self) -> None:
        self.end()

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)


def _sub(resource: Resource, name: str) -> Any:
    if not name:
        return None
    found = resource.subresource(name)
    if found is None:
        raise errors.page_not_found()
    return found
