"""The one way every part talks to the API: typed by resource, the same in-process and over HTTPS.

Objects that a client returns from a cache or a watch are shared and must not be changed; copy first
(`sampan.api.objects.deep_copy`). Every failure of a request is a `sampan.api.errors.StatusError`; a connection that
could not be made or broke is `ConnectionLost`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from sampan.api.errors import Object
from sampan.api.resources import Resource

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]


class ConnectionLost(Exception):
    """The API server could not be reached, or went away before it answered; the request may have taken effect."""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change. For BOOKMARK only `metadata.resourceVersion` of `object` means anything."""

    type: EventType
    object: Object


@dataclass(frozen=True, slots=True)
class ObjectList:
    """Items with the revision they were read at; `continue_` is "" on the last page."""

    items: Sequence[Object]
    resource_version: str
    continue_: str = ""
    remaining: int = 0


class Client(Protocol):
    """Requests under one identity. `namespace` is "" for cluster-scoped resources and for all namespaces."""

    async def get(
        self, resource: Resource, namespace: str, name: str, *, subresource: str = ""
    ) -> Object: ...

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
    ) -> ObjectList: ...

    def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[WatchEvent]:
        """Changes after `resource_version`, with bookmarks. Ends quietly when the server ends it (reconnect from the
        last revision seen); raises StatusError 410 when the revision is too old (list anew), ConnectionLost when the
        connection breaks."""

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
        """Create `obj`; with `subresource` (binding, eviction, token), post it below object `name`. `namespace`
        defaults to the object's own."""

    async def update(self, resource: Resource, obj: Object, *, subresource: str = "") -> Object:
        """Replace an object (or its status/scale); 409 unless `metadata.resourceVersion` is the newest."""

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
    ) -> Object: ...

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
    ) -> Object: ...

    async def close(self) -> None: ...
