"""The write verbs on stored objects: create, update, patch, and the loop that retries them on conflict.

Upstream: `k8s.io/apiserver/pkg/registry/generic/registry/store.go` and `endpoints/handlers`. Deletion is in
`deletion`, the views below an object (status, scale, binding, ...) in `subresources`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Set
from typing import TYPE_CHECKING, Any

from sampan.api import conversion, errors, strategy
from sampan.api.errors import MODIFIED, Object, StatusError, bad_request, invalid_value
from sampan.api.objects import deep_copy, generate_name
from sampan.api.resources import (
    CLUSTERROLEBINDINGS,
    CLUSTERROLES,
    ENDPOINTS,
    EVENTS,
    LEASES,
    PODDISRUPTIONBUDGETS,
    ROLEBINDINGS,
    ROLES,
    SERVICES,
    Resource,
    hub,
)
from sampan.apiserver import expiry, preparation
from sampan.apiserver.preparation import Writing
from sampan.apiserver.records import Record, encode, key_of, opening, splice
from sampan.apiserver.types import Admission, Attributes
from sampan.apiserver.views import View
from sampan.apiserver.watchcache import WatchCache
from sampan.store import types as store_types
from sampan.store.transformed import TransformedStore
from sampan.store.types import Store

if TYPE_CHECKING:
    from sampan.apiserver.allocation import ServiceAllocator

_CREATE_ON_UPDATE = {
    r.key_stem
    for r in (ENDPOINTS, EVENTS, LEASES, SERVICES, ROLES, ROLEBINDINGS, CLUSTERROLES, CLUSTERROLEBINDINGS)
}
_VERSION_NEEDED = {r.key_stem for r in (LEASES, PODDISRUPTIONBUDGETS)}
"""Kinds whose update must say which version it replaces."""
_NAME_ATTEMPTS = 8


class Conflict(Exception):
    """The object changed under a write; `StatusError` once no retry is left."""


class Registry:
    """The write side. `admission` and `allocator` are set by the app before the first write."""

    admission: Admission
    allocator: ServiceAllocator

    def __init__(self, store: Store, cache: WatchCache) -> None:
        self.store = store
        self.cache = cache
        self._stale: Set[str] = store.stale if isinstance(store, TransformedStore) else frozenset()
        """Keys that are to be written again, even if nothing changed: another key of encryption sealed them."""

    # -- create

    async def create(
        self, resource: Resource, namespace: str, obj: Object, writing: Writing, *, applied: bool = False
    ) -> Record:
        """Store a new object; takes `obj` over. `applied`: its managedFields are server-side apply's and stand.
        Raises StatusError."""
        metadata = obj["metadata"]
        check_namespace(resource, namespace, metadata)
        if metadata.get("resourceVersion") not in (None, "", "0"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        row = hub(resource)
        obj = conversion.kept(resource, row, obj)
        base = metadata.get("generateName")
        generated = bool(base) and not metadata.get("name")
        if generated:
            metadata["name"] = generate_name(base)
        attributes = Attributes(
            writing.user,
            "CREATE",
            resource,
            namespace,
            metadata.get("name", ""),
            "",
            obj,
            None,
            writing.dry_run,
        )
        preparation.begin_create(resource, obj, writing, applied)
        await self.admission.mutate(attributes)
        preparation.validate_create(resource, obj, writing)
        await self.admission.validate(attributes)
        writing.warnings += attributes.warnings
        stored = False
        try:
            record = await self.insert(row, obj, writing, _NAME_ATTEMPTS if generated else 1)
            stored = True
            return record
        finally:
            for settle in attributes.settle:
                await settle(stored)

    async def insert(self, row: Resource, obj: Object, writing: Writing, attempts: int = 1) -> Record:
        """Store a new object that is ready; with further `attempts`, under further generated names."""
        metadata = obj["metadata"]
        while True:
            attempts -= 1
            try:
                if row is not SERVICES:
                    return await self.put_new(row, obj, dry_run=writing.dry_run)
                # Its addresses say whose they are: each name takes its own.
                async with self.allocator.allocated(obj, dry_run=writing.dry_run):
                    return await self.put_new(row, obj, dry_run=writing.dry_run)
            except store_types.KeyExists:
                if attempts <= 0:
                    raise self._already_exists(row, metadata) from None
                strategy.rename(row, obj, generate_name(metadata["generateName"]))

    def _already_exists(self, row: Resource, metadata: Object) -> errors.StatusError:
        """With a word about an object that is on its way out: whoever waits for its end may try again."""
        key = key_of(row.storage_path, metadata.get("namespace", ""), metadata["name"])
        present = self.cache.shelf(row).records.get(key)
        going = present is not None and bool(present.obj["metadata"].get("deletionTimestamp"))
        return errors.already_exists(row.plural, metadata["name"], row.group, deleting=going)

    async def put_new(self, row: Resource, obj: Object, *, dry_run: bool) -> Record:
        """Store a new object as it is. Raises KeyExists of the store."""
        metadata = obj["metadata"]
        key = key_of(row.storage_path, metadata.get("namespace", ""), metadata["name"])
        if dry_run:
            if key in self.cache.shelf(row).records:
                raise self._already_exists(row, metadata)
            return unstored(row, obj)
        value = encode(row, obj)
        self.cache.hand_over(value, obj)
        try:
            with translated():
                entry = await self.store.create(key, value, ttl=expiry.ttl(row))
        finally:
            self.cache.take_back(value)
        return self._written(row, key, value, entry.revision)

    def _written(self, row: Resource, key: str, value: bytes, revision: int) -> Record:
        shelf = self.cache.shelf(row)
        record = shelf.records.get(key)
        if record is not None and record.revision == revision:
            return record
        return shelf.make(key, value, revision)

    # -- update

    async def update(
        self, resource: Resource, namespace: str, name: str, view: View, face: Object, writing: Writing
    ) -> tuple[Record, bool]:
        """Replace an object or one face of it; takes `face` over. The second value says whether it was created."""
        metadata = face["metadata"]
        check_namespace(resource, namespace, metadata)
        check_name(metadata, name)
        row = hub(resource)
        asked = metadata.get("resourceVersion") or ""
        while True:
            record = self.cache.record(row, namespace, name)
            if record is None:
                return await self._update_missing(resource, namespace, name, view, face, asked, writing)
            self.check_preconditions(row, record, metadata, asked)
            if not asked and not view.name and row.key_stem in _VERSION_NEEDED:
                problem = invalid_value("metadata.resourceVersion", 0, "must be specified for an update")
                raise errors.invalid(row.kind, name, [problem], row.group)
            try:
                new = view.write(record.obj, deep_copy(face) if not asked else face)
                return await self.replace(resource, record, new, view.name, writing), False
            except Conflict:
                # Somebody else's write came between, so that the cluster as a whole gets on: try again. Where a version
                # was asked for, the next round says what became of it: changed (409) or gone (404).
                if asked and self.cache.record(row, namespace, name) is record:
                    raise modified(row, name) from None

    async def _update_missing(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        view: View,
        face: Object,
        asked: str,
        writing: Writing,
    ) -> tuple[Record, bool]:
        row = hub(resource)
        if view.name or row.key_stem not in _CREATE_ON_UPDATE:
            raise errors.not_found(row.plural, name, row.group)
        if asked not in ("", "0"):
            raise modified(row, name)
        if face["metadata"].get("uid"):
            why = f"Precondition failed: UID in precondition: {face['metadata']['uid']}, UID in object meta: "
            raise errors.conflict(row.plural, name, why, row.group)
        writing.authorize_create()
        return await self.create(resource, namespace, face, writing), True

    def check_preconditions(self, row: Resource, record: Record, metadata: Object, asked: str) -> None:
        uid = metadata.get("uid")
        present = record.obj["metadata"]["uid"]
        if uid and uid != present:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {present}"
            raise errors.conflict(row.plural, record.name, why, row.group)
        if asked not in ("", "0") and asked != str(record.revision):
            raise modified(row, record.name)

    async def replace(
        self, resource: Resource, record: Record, new: Object, subresource: str, writing: Writing
    ) -> Record:
        """Take `new` (ours to change, in its stored form) through all steps of an update and store it.

        Raises Conflict where the object is no longer the one in `record`.
        """
        row = hub(resource)
        old = record.obj
        preparation.begin_update(row, new, old, subresource, writing)
        preparation.record_fields(resource, new, old, writing, subresource)
        return await self.finish_update(resource, record, new, subresource, writing)

    async def finish_update(
        self, resource: Resource, record: Record, new: Object, subresource: str, writing: Writing
    ) -> Record:
        """The second half of an update: admission, validation, addresses, store."""
        row = hub(resource)
        old = record.obj
        attributes = Attributes(
            writing.user,
            "UPDATE",
            resource,
            record.namespace,
            record.name,
            subresource,
            new,
            old,
            writing.dry_run,
        )
        await self.admission.mutate(attributes)
        preparation.validate_update(resource, new, old, subresource, writing)
        await self.admission.validate(attributes)
        writing.warnings += attributes.warnings
        if not attributes.settle:
            return await self._store_update(row, record, new, subresource, writing)
        stored = False
        try:
            record = await self._store_update(row, record, new, subresource, writing)
            stored = True
            return record
        finally:
            for settle in attributes.settle:
                await settle(stored)

    async def _store_update(
        self, row: Resource, record: Record, new: Object, subresource: str, writing: Writing
    ) -> Record:
        old = record.obj
        if finished_deleting(row, new, old):
            return await self.remove(row, record, writing, last=new)
        if preparation.same(new, old) and record.key not in self._stale:
            return record
        if subresource:
            return await self.put(row, record, new, writing)
        if row is not SERVICES:
            return await self.put(row, record, new, writing)
        async with self.allocator.allocated(new, old, dry_run=writing.dry_run):
            return await self.put(row, record, new, writing)

    async def put(self, row: Resource, record: Record, new: Object, writing: Writing) -> Record:
        """Store `new` in the place of what is in `record`. Raises Conflict."""
        if writing.dry_run:
            return unstored(row, new, record.revision)
        value = encode(row, new)
        self.cache.hand_over(value, new)
        try:
            with translated():
                entry = await self.store.update(record.key, value, record.revision, ttl=expiry.ttl(row))
        except store_types.Conflict:
            raise Conflict from None
        finally:
            self.cache.take_back(value)
        return self._written(row, record.key, value, entry.revision)

    async def remove(
        self, row: Resource, record: Record, writing: Writing, *, last: Object | None = None
    ) -> Record:
        """Take an object out of the store. The result holds its last state (`last`, where given). Raises Conflict."""
        if writing.dry_run:
            return unstored(row, last, record.revision) if last is not None else record
        try:
            with translated():
                entry = await self.store.delete(record.key, record.revision)
        except store_types.Conflict:
            raise Conflict from None
        if row is SERVICES:
            await self.allocator.release(record.obj)
        if last is not None:
            return unstored(row, last, entry.revision)
        return record.at(entry.revision)

    # -- changes of our own

    async def modify(
        self,
        row: Resource,
        namespace: str,
        name: str,
        change: Callable[[Object], Object | Awaitable[Object]],
        writing: Writing,
    ) -> Record:
        """Read, change and store until nobody came between. `change` gets a copy; it may raise StatusError."""
        while True:
            record = self.cache.record(row, namespace, name)
            if record is None:
                raise errors.not_found(row.plural, name, row.group)
            changed = change(deep_copy(record.obj))
            new = await changed if isinstance(changed, Awaitable) else changed
            try:
                return await self.put(row, record, new, writing)
            except Conflict:
                continue


def check_namespace(resource: Resource, namespace: str, metadata: Object) -> None:
    """Fill in the namespace of the URL; refuse another one."""
    if not resource.namespaced:
        if metadata.get("namespace"):
            raise bad_request("namespace field should not be set for cluster-scoped objects")
        metadata.pop("namespace", None)
        return
    given = metadata.get("namespace") or namespace
    if given != namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    metadata["namespace"] = namespace


def check_name(metadata: Object, name: str) -> None:
    """Refuse an object that has another name than the URL, or none."""
    given = metadata.get("name") or ""
    if not given:
        raise bad_request(
            f"the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )
    if given != name:
        raise bad_request(f"the name of the object ({given}) does not match the name on the URL ({name})")


def modified(row: Resource, name: str) -> StatusError:
    return errors.conflict(row.plural, name, MODIFIED, row.group)


def finished_deleting(row: Resource, new: Object, old: Object) -> bool:
    """Whether an update takes away the last thing that held an object whose deletion was asked for."""
    metadata = new["metadata"]
    if not old["metadata"].get("deletionTimestamp") or metadata.get("finalizers"):
        return False
    if row.kind == "Namespace" and (new.get("spec") or {}).get("finalizers"):
        return False
    return not metadata.get("deletionGracePeriodSeconds")


def unstored(row: Resource, obj: Object, revision: int = 0) -> Record:
    """A record of an object that is not in the store (dry run, just deleted)."""
    start = opening(row)
    metadata = obj["metadata"]
    namespace, name = metadata.get("namespace", ""), metadata["name"]
    value = encode(row, obj)
    key = key_of(row.storage_path, namespace, name)
    if revision:
        return Record(key, namespace, name, revision, splice(value, start, revision), len(start))
    return Record(key, namespace, name, 0, value, len(start), obj=obj)


@contextlib.contextmanager
def translated() -> Any:
    """The store's failures as a client sees them; KeyExists and Conflict are left to the caller."""
    try:
        yield
    except (store_types.KeyExists, store_types.Conflict):
        raise
    except store_types.StoreFull as e:
        raise StatusError(507, "InsufficientStorage", f"the store is full: {e}") from e
    except store_types.ValueTooLarge as e:
        raise StatusError(413, "RequestEntityTooLarge", f"the object is too large to be stored: {e}") from e
    except store_types.StoreError as e:
        raise errors.unavailable(f"the store failed: {e}") from e
