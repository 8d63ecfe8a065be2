"""Garbage collector: what names owners goes when none of them is left.

It keeps who owns whom for every stored resource. An owner that the copies do not show is looked up by uid before
anything is deleted for want of it. Background deletion follows from owners being gone; foreground deletion waits
for the dependents that block it; orphaning takes the owner's name out of its dependents first.

Upstream: `pkg/controller/garbagecollector`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Literal

from sampan.api.errors import Object, StatusError
from sampan.api.objects import deep_copy
from sampan.api.resources import EVENTS, LEASES, Resource, by_kind, stored
from sampan.client.informer import Handler, Informer
from sampan.client.types import STRATEGIC_MERGE_PATCH
from sampan.controllers.controller import Context, Controller, deleting

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
_ABSENT_KEPT = 500
_IGNORED = (EVENTS,)


class GarbageCollector(Controller):
    """Keys of its queue are uids."""

    name = "garbage-collector"
    workers = 20

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._events = context.recorder("garbage-collector-controller")
        self._informers: dict[Resource, Informer] = {}
        self._present: dict[str, tuple[Resource, str, str]] = {}
        """Where each object is: resource, namespace, name."""
        self._dependents: dict[str, set[str]] = {}
        """The uids of what names a uid as owner."""
        self._absent: OrderedDict[tuple[str, str], None] = OrderedDict()
        """Owners (uid, namespace) that the API was asked about and does not have."""
        for resource in stored():
            if resource not in _IGNORED:
                informer = context.informers.of(resource)
                self._informers[resource] = informer
                informer.add_handler(self._handler(resource))

    # ---- who owns whom

    def _handler(self, resource: Resource) -> Handler:
        quiet = resource is LEASES

        def changed(old: Object | None, new: Object | None) -> None:
            if quiet and old is not None and new is not None and _same_life(old, new):
                return
            if old is not None and (new is None or new["metadata"]["uid"] != old["metadata"]["uid"]):
                self._gone(old)
                old = None
            if new is not None:
                self._seen(resource, old, new)

        return changed

    def _seen(self, resource: Resource, old: Object | None, new: Object) -> None:
        meta = new["metadata"]
        uid = meta["uid"]
        if old is None:
            self._present[uid] = (resource, meta.get("namespace", ""), meta["name"])
        before, after = _owner_uids(old), _owner_uids(new)
        for owner in before - after:
            self._part(owner, uid)
        for owner in after - before:
            self._dependents.setdefault(owner, set()).add(uid)
            if owner not in self._present:
                self.queue.add(uid)  # it may be gone already
        if old is not None and _references(old) != _references(new):
            # One that blocked a foreground deletion may not any more; one that had an owner left may not either.
            for owner in before | after:
                self._look_at_waiting(owner)
            self.queue.add(uid)
        if deleting(new) and not (old is not None and _same_life(old, new)):
            self.queue.add(uid)
            if _deletes_dependents(new):
                for dependent in self._dependents.get(uid, ()):
                    self.queue.add(dependent)
        elif after and old is None and any(self._waits(o) for o in after):
            self.queue.add(uid)

    def _gone(self, old: Object) -> None:
        uid = old["metadata"]["uid"]
        self._present.pop(uid, None)
        for dependent in self._dependents.get(uid, ()):
            self.queue.add(dependent)
        for owner in _owner_uids(old):
            self._part(owner, uid)
            self._look_at_waiting(owner)

    def _part(self, owner: str, dependent: str) -> None:
        dependents = self._dependents.get(owner)
        if dependents is not None:
            dependents.discard(dependent)
            if not dependents:
                del self._dependents[owner]

    def _look_at_waiting(self, owner: str) -> None:
        if self._waits(owner):
            self.queue.add(owner)

    def _object(self, uid: str) -> Object | None:
        """The object as the copy has it."""
        where = self._present.get(uid)
        if where is None:
            return None
        resource, namespace, name = where
        found = self._informers[resource].get(namespace, name)
        return found if found is not None and found["metadata"]["uid"] == uid else None

    def _waits(self, uid: str) -> bool:
        """Whether an object waits for its dependents to go."""
        found = self._object(uid)
        return found is not None and _deletes_dependents(found)

    # ---- the work

    async def sync(self, key: str) -> None:
        where = self._present.get(key)
        obj = self._object(key)
        if where is None or obj is None:
            return
        resource = where[0]
        if deleting(obj):
            finalizers = obj["metadata"].get("finalizers") or ()
            if ORPHAN in finalizers:
                await self._orphan(resource, obj)
            elif FOREGROUND in finalizers:
                await self._finish_foreground(resource, obj)
            return
        if _references(obj):
            await self._judge(resource, where[1], where[2], key)

    async def _judge(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        """Delete an object whose owners are all gone or going; let go of the owners that are, if others stay."""
        try:
            obj = await self._client.get(resource, namespace, name)
        except StatusError as e:
            if e.code == 404:
                return
            raise
        if obj["metadata"]["uid"] != uid or deleting(obj):
            return
        solid, dangling, waiting = await self._classify(obj)
        if solid:
            if dangling or waiting:
                await self._remove_owners(resource, obj, [r["uid"] for r in (*dangling, *waiting)])
            return
        policy: Literal["Background", "Foreground", "Orphan"] = "Background"
        finalizers = obj["metadata"].get("finalizers") or ()
        if waiting and self._dependents.get(uid):
            policy = "Foreground"
            await self._break_circle(resource, obj)
        elif ORPHAN in finalizers:
            policy = "Orphan"
        elif FOREGROUND in finalizers:
            policy = "Foreground"
        try:
            await self._client.delete(resource, namespace, name, uid=uid, propagation_policy=policy)
        except StatusError as e:
            if e.code not in (404, 409):
                raise

    async def _break_circle(self, resource: Resource, obj: Object) -> None:
        """Two that own each other would wait for each other."""
        if any(self._waits(d) for d in self._dependents.get(obj["metadata"]["uid"], ())):
            unblocked = [{**r, "blockOwnerDeletion": False} for r in _references(obj)]
            await self._patch(resource, obj, {"ownerReferences": unblocked})

    async def _classify(self, obj: Object) -> tuple[list[Object], list[Object], list[Object]]:
        """Owner references: of owners that stay, that are gone, that wait for their dependents."""
        solid: list[Object] = []
        dangling: list[Object] = []
        waiting: list[Object] = []
        for reference in _references(obj):
            owner = await self._find(reference, obj)
            if owner is None:
                dangling.append(reference)
            elif _deletes_dependents(owner):
                waiting.append(reference)
            else:
                solid.append(reference)
        return solid, dangling, waiting

    async def _find(self, reference: Object, obj: Object) -> Object | None:
        """The owner that a reference means, or None if it is certain that there is none."""
        owner = self._object(reference["uid"])
        namespace = obj["metadata"].get("namespace", "")
        resource = by_kind(reference.get("apiVersion", ""), reference.get("kind", ""))
        if owner is not None and owner["metadata"].get("namespace", namespace) == namespace:
            return owner
        if resource is None:
            return {"metadata": {}}  # of a kind that is not served nothing is certain
        if not resource.namespaced:
            namespace = ""
        elif not namespace:
            self._events.event(
                obj,
                "Warning",
                "OwnerRefInvalidNamespace",
                f"ownerRef [{resource.group}/{reference.get('kind')}, namespace: {namespace}, name: "
                f'{reference.get("name")}, uid: {reference["uid"]}] does not exist in namespace "{namespace}"',
            )
            return {"metadata": {}}
        identity = (reference["uid"], namespace)
        if identity in self._absent:
            return None
        try:
            found = await self._client.get(resource, namespace, reference["name"])
        except StatusError as e:
            if e.code != 404:
                raise
        else:
            if found["metadata"]["uid"] == reference["uid"]:
                return found
        self._absent[identity] = None
        if len(self._absent) > _ABSENT_KEPT:
            self._absent.popitem(last=False)
        return None

    async def _orphan(self, resource: Resource, obj: Object) -> None:
        uid = obj["metadata"]["uid"]
        places = [(self._present[d][0], o) for d in self._dependents.get(uid, ()) if (o := self._object(d))]
        await asyncio.gather(*(self._remove_owners(r, o, [uid]) for r, o in places))
        await self._remove_finalizer(resource, obj, ORPHAN)

    async def _finish_foreground(self, resource: Resource, obj: Object) -> None:
        uid = obj["metadata"]["uid"]
        for dependent in list(self._dependents.get(uid, ())):
            found = self._object(dependent)
            if found is not None and any(
                r["uid"] == uid and r.get("blockOwnerDeletion") for r in _references(found)
            ):
                return  # its deletion, or its change of mind, brings us back
        await self._remove_finalizer(resource, obj, FOREGROUND)

    async def _remove_finalizer(self, resource: Resource, obj: Object, finalizer: str) -> None:
        meta = obj["metadata"]
        try:
            fresh = deep_copy(await self._client.get(resource, meta.get("namespace", ""), meta["name"]))
            it = fresh["metadata"]
            if it["uid"] != meta["uid"] or finalizer not in (it.get("finalizers") or ()):
                return
            it["finalizers"] = [f for f in it["finalizers"] if f != finalizer]
            await self._client.update(resource, fresh)
        except StatusError as e:
            if e.code != 404:
                raise

    async def _remove_owners(self, resource: Resource, obj: Object, uids: Sequence[str]) -> None:
        await self._patch(resource, obj, {"ownerReferences": [{"$patch": "delete", "uid": u} for u in uids]})

    async def _patch(self, resource: Resource, obj: Object, metadata: Object) -> None:
        meta = obj["metadata"]
        patch = {"metadata": {"uid": meta["uid"], **metadata}}
        try:
            await self._client.patch(
                resource,
                meta.get("namespace", ""),
                meta["name"],
                patch,
                content_type=STRATEGIC_MERGE_PATCH,
            )
        except StatusError as e:
            if e.code not in (404, 422):
                raise


def _references(obj: Object) -> Sequence[Object]:
    return obj["metadata"].get("ownerReferences") or ()


def _owner_uids(obj: Object | None) -> set[str]:
    references: Iterable[Object] = _references(obj) if obj is not None else ()
    return {r["uid"] for r in references}


def _deletes_dependents(obj: Object) -> bool:
    return deleting(obj) and FOREGROUND in (obj["metadata"].get("finalizers") or ())


def _same_life(old: Object, new: Object) -> bool:
    """Whether nothing changed that ownership or deletion depends on."""
    a, b = old["metadata"], new["metadata"]
    return a["uid"] == b["uid"] and all(
        a.get(f) == b.get(f) for f in ("ownerReferences", "deletionTimestamp", "finalizers")
    )
