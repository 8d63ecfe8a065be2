"""Which objects are a controller's: those that name it as owner and match its selector, and orphans that match.

Upstream: `pkg/controller/controller_ref_manager.go`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from sampan.api import selectors
from sampan.api.errors import Object, StatusError
from sampan.api.objects import controller_of, owner_reference
from sampan.api.resources import Resource
from sampan.client.informer import Informer
from sampan.client.types import STRATEGIC_MERGE_PATCH, Client
from sampan.controllers.controller import deleting
from sampan.controllers.informers import ORPHANS, OWNER


async def claim(client: Client, owner: Object, owner_resource: Resource, informer: Informer) -> list[Object]:
    """The objects of `informer` that belong to `owner`, after adopting matching orphans and releasing what does not
    match any more. Raises StatusError."""
    meta = owner["metadata"]
    uid = meta["uid"]
    selector = selectors.from_object(owner["spec"].get("selector"))
    kept: list[Object] = []
    released: list[Object] = []
    for obj in informer.by_index(OWNER, uid):
        matches = selector.matches(obj["metadata"].get("labels"))
        (kept if matches else released).append(obj)
    adoptable: list[Object] = []
    if not deleting(owner):
        for obj in informer.by_index(ORPHANS, meta["namespace"]):
            if not deleting(obj) and selector.matches(obj["metadata"].get("labels")):
                adoptable.append(obj)
        if released:
            await asyncio.gather(*(_release(client, informer.resource, obj, uid) for obj in released))
        if adoptable:
            kept += await _adopt(client, owner, owner_resource, informer.resource, adoptable)
    return kept


async def _adopt(
    client: Client, owner: Object, owner_resource: Resource, resource: Resource, orphans: Iterable[Object]
) -> list[Object]:
    meta = owner["metadata"]
    # The copy may be behind: never adopt for an owner that is gone or going.
    fresh = await client.get(owner_resource, meta["namespace"], meta["name"])
    if fresh["metadata"]["uid"] != meta["uid"] or deleting(fresh):
        return []
    reference = owner_reference(
        {**owner, "apiVersion": owner_resource.api_version, "kind": owner_resource.kind}
    )
    adopted: list[Object] = []
    for orphan in orphans:
        it = orphan["metadata"]
        patch = {"metadata": {"uid": it["uid"], "ownerReferences": [reference]}}
        try:
            adopted.append(
                await client.patch(
                    resource, it["namespace"], it["name"], patch, content_type=STRATEGIC_MERGE_PATCH
                )
            )
        except StatusError as e:
            if e.code not in (404, 409, 422):
                raise
    return adopted


async def _release(client: Client, resource: Resource, obj: Object, owner_uid: str) -> None:
    meta = obj["metadata"]
    patch = {
        "metadata": {"uid": meta["uid"], "ownerReferences": [{"$patch": "delete", "uid": owner_uid}]},
    }
    try:
        await client.patch(
            resource, meta["namespace"], meta["name"], patch, content_type=STRATEGIC_MERGE_PATCH
        )
    except StatusError as e:
        if e.code not in (404, 422):
            raise


def owner_of_kind(obj: Object | None, resource: Resource) -> Object | None:
    """The controlling owner reference of `obj`, where it names a `resource`."""
    reference = controller_of(obj) if obj is not None else None
    if reference is None or reference.get("kind") != resource.kind:
        return None
    return reference if reference.get("apiVersion", "").partition("/")[0] == resource.group else None
