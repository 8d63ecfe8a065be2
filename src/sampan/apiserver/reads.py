"""get, list and watch: what a request wants to see, found and shown.

What can be answered at once is, without a task; large lists take turns. Upstream:
`k8s.io/apiserver/pkg/endpoints/handlers/get.go`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from sampan.api import errors
from sampan.api.errors import bad_request
from sampan.api.resources import Resource
from sampan.apiserver import list_options
from sampan.apiserver.events import Selection
from sampan.apiserver.listing import Listed, Lists
from sampan.apiserver.negotiation import negotiate
from sampan.apiserver.records import Record
from sampan.apiserver.registry import translated
from sampan.apiserver.rendering import Rendering
from sampan.apiserver.types import RequestInfo
from sampan.apiserver.watchcache import WatchCache
from sampan.apiserver.watching import watch
from sampan.transport.types import Answer, Request, Response


class Reads:
    def __init__(self, cache: WatchCache, lists: Lists) -> None:
        self._store = lists.store
        self._cache = cache
        self._lists = lists

    def get(self, request: Request, info: RequestInfo, resource: Resource) -> Answer | Awaitable[Answer]:
        rendering = negotiate(resource, request)

        def get() -> Answer | Awaitable[Answer]:
            record = self.record(request, info, resource)
            if rendering.plain or rendering.is_quick((record,)):
                return Response(200, rendering.one(record), rendering.content_type)
            return self._get_later(rendering, record)

        return self._fresh(request, get) if self._store.shared else get()

    async def _get_later(self, rendering: Rendering, record: Record) -> Answer:
        """An object that takes long to be shown as it is asked for: YAML of much."""
        return Response(200, await asyncio.to_thread(rendering.one, record), rendering.content_type)

    def record(self, request: Request, info: RequestInfo, resource: Resource) -> Record:
        """The object that a request names. Raises StatusError 404; 504 where it wants one newer than there is."""
        if "?" in request.target:
            asked = list_options.parse_revision(request.param("resourceVersion"))
            if asked > self._cache.revision:
                raise list_options.too_large(asked, self._cache.revision)
        record = self._cache.record(resource, info.namespace if resource.namespaced else "", info.name)
        if record is None:
            raise errors.not_found(resource.plural, info.name, resource.group)
        return record

    def list(self, request: Request, info: RequestInfo, resource: Resource) -> Answer | Awaitable[Answer]:
        rendering = negotiate(resource, request, "list")
        options = list_options.read(request.params)
        selected = selection(info, resource)

        def list_() -> Answer | Awaitable[Answer]:
            listed = self._lists.list(selected, options)
            if isinstance(listed, Listed) and rendering.is_quick(listed.records):
                body = rendering.list(listed.records, listed.revision, listed.continue_, listed.remaining)
                return Response(200, body, rendering.content_type)
            return self._list_later(rendering, listed)

        return self._fresh(request, list_) if self._store.shared else list_()

    async def _list_later(self, rendering: Rendering, listed: Listed | Awaitable[Listed]) -> Answer:
        if not isinstance(listed, Listed):
            listed = await listed
        body, size = await rendering.list_in_turns(
            self._cache.turns, listed.records, listed.revision, listed.continue_, listed.remaining
        )
        return Response(200, body, rendering.content_type, size=size)

    def watch(self, request: Request, info: RequestInfo, resource: Resource) -> Answer | Awaitable[Answer]:
        rendering = negotiate(resource, request, "watch")
        options = list_options.read(request.params, watch=True)
        selected = selection(info, resource)

        def watch_() -> Answer:
            return watch(self._cache, request, selected, rendering, options)

        return self._fresh(request, watch_) if self._store.shared else watch_()

    def _fresh(
        self, request: Request, answer: Callable[[], Answer | Awaitable[Answer]]
    ) -> Answer | Awaitable[Answer]:
        """Answer when the cache is as new as the request wants, where others write to the store too: one without a
        resourceVersion must see all that was acknowledged to anybody before."""
        version = request.param("resourceVersion")
        if version and list_options.parse_revision(version) <= self._cache.revision:
            return answer()
        return self._after_catching_up(answer)

    async def _after_catching_up(self, answer: Callable[[], Answer | Awaitable[Answer]]) -> Answer:
        with translated():
            await self._store.catch_up()
        found = answer()
        return await found if isinstance(found, Awaitable) else found


def selection(info: RequestInfo, resource: Resource) -> Selection:
    """The objects that a request is about. Raises StatusError 400 for selectors that are none."""
    found = Selection(
        resource, info.namespace if resource.namespaced else "", info.label_selector, info.field_selector
    )
    if info.name and found.only_name != info.name:
        # A watch in its old form, whose path names the object.
        if found.fields is not None:
            raise bad_request("fieldSelector metadata.name doesn't match requested name")
        name = info.name.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
        return Selection(resource, found.namespace, info.label_selector, f"metadata.name={name}")
    return found
