"""A small API in memory behind the `Client` protocol, and an image store, for tests of the node agent."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from sampan.api.errors import Object, StatusError, already_exists, conflict, not_found
from sampan.api.objects import deep_copy, new_uid, now
from sampan.api.resources import PODS, Resource
from sampan.client.types import MERGE_PATCH, STRATEGIC_MERGE_PATCH, ConnectionLost, ObjectList, WatchEvent
from sampan.node.images.types import Credentials, Image, ImageConfig, ImageError

MERGE_KEYS = {"conditions": "type", "podIPs": "ip", "hostIPs": "ip", "addresses": "type"}


def merge(target: Any, patch: Any, strategic: bool) -> Any:
    if not isinstance(patch, dict):
        return deep_copy(patch)
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        elif strategic and key in MERGE_KEYS and isinstance(value, list):
            mk = MERGE_KEYS[key]
            if {"$patch": "replace"} in value:
                out[key] = [item for item in value if item != {"$patch": "replace"}]
                continue
            items = {i[mk]: i for i in out.get(key) or []}
            for item in value:
                if item.get("$patch") == "delete":
                    items.pop(item[mk], None)
                else:
                    items[item[mk]] = merge(items.get(item[mk], {}), item, strategic)
            out[key] = list(items.values())
        else:
            out[key] = merge(out.get(key), value, strategic)
    return out


class FakeClient:
    """Objects by resource, with watches, field selectors on name and node, and a log of every write."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[tuple[str, str], Object]] = defaultdict(dict)
        self.revision = 0
        self.history: list[tuple[int, str, str, Object]] = []
        self.changed = asyncio.Event()
        self.writes: list[tuple[str, str, str, Any]] = []
        self.away = False
        self.tokens = 0
        self.token_seconds: int | None = None
        self._waiters: list[asyncio.Future[None]] = []

    # Seen from the test.

    def put(self, resource: Resource, obj: Object) -> Object:
        """Create or replace as a user would."""
        meta = obj["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        old = self.objects[resource.key_stem].get(key)
        new = deep_copy(obj)
        new["metadata"].setdefault("uid", old["metadata"]["uid"] if old else new_uid())
        new["metadata"].setdefault("creationTimestamp", now())
        if old and "status" in old and "status" not in obj:
            new["status"] = old["status"]
        return self._store(resource, key, new, "MODIFIED" if old else "ADDED")

    def find(self, resource: Resource, namespace: str, name: str) -> Object | None:
        return self.objects[resource.key_stem].get((namespace, name))

    def remove(self, resource: Resource, namespace: str, name: str) -> None:
        old = self.objects[resource.key_stem].pop((namespace, name))
        self._tell(resource, "DELETED", old)

    def graceful_delete(self, namespace: str, name: str, seconds: int = 30) -> None:
        pod = deep_copy(self.objects[PODS.key_stem][(namespace, name)])
        pod["metadata"]["deletionTimestamp"] = now()
        pod["metadata"]["deletionGracePeriodSeconds"] = seconds
        self._store(PODS, (namespace, name), pod, "MODIFIED")

    async def wait_for(self, check: Callable[[], Any], seconds: float = 5.0) -> Any:
        """Wait, woken by every change, until `check()` gives something true."""
        async with asyncio.timeout(seconds):
            while True:
                found = check()
                if found:
                    return found
                self.changed.clear()
                await self.changed.wait()

    # The Client protocol.

    async def get(self, resource: Resource, namespace: str, name: str, *, subresource: str = "") -> Object:
        await self._round_trip()
        found = self.find(resource, namespace, name)
        if found is None:
            raise not_found(resource.plural, name, resource.group)
        return found

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
        await self._round_trip()
        items = [
            o
            for (ns, _), o in self.objects[resource.key_stem].items()
            if (not namespace or ns == namespace) and _selected(o, field_selector)
        ]
        return ObjectList(items, str(self.revision))

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[WatchEvent]:
        await self._round_trip()
        done = 0
        start = int(resource_version)
        while True:
            while done < len(self.history):
                revision, stem, type_, obj = self.history[done]
                done += 1
                if (
                    revision > start
                    and stem == resource.key_stem
                    and (not namespace or obj["metadata"].get("namespace", "") == namespace)
                    and _selected(obj, field_selector)
                ):
                    yield WatchEvent(type_, obj)  # type: ignore[arg-type]
            if self.away:
                raise ConnectionLost("away")
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    async def create(
        self, resource: Resource, obj: Object, *, namespace: str = "", name: str = "", subresource: str = ""
    ) -> Object:
        await self._round_trip()
        if subresource == "token":
            self.tokens += 1
            import time

            from sampan.api.objects import format_time

            seconds = self.token_seconds or obj["spec"].get("expirationSeconds", 3607)
            return {
                **obj,
                "status": {
                    "token": f"token-{self.tokens}",
                    "expirationTimestamp": format_time(time.time() + seconds),
                },
            }
        meta = obj["metadata"]
        key = (namespace or meta.get("namespace", ""), meta["name"])
        self.writes.append(("create", resource.plural, key[1], obj))
        if key in self.objects[resource.key_stem]:
            raise already_exists(resource.plural, key[1], resource.group)
        new = deep_copy(obj)
        new["metadata"].setdefault("uid", new_uid())
        new["metadata"].setdefault("creationTimestamp", now())
        return self._store(resource, key, new, "ADDED")

    async def update(self, resource: Resource, obj: Object, *, subresource: str = "") -> Object:
        await self._round_trip()
        meta = obj["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        self.writes.append(("update", resource.plural, key[1], obj))
        old = self.objects[resource.key_stem].get(key)
        if old is None:
            raise not_found(resource.plural, key[1], resource.group)
        if (
            meta.get("resourceVersion", old["metadata"]["resourceVersion"])
            != old["metadata"]["resourceVersion"]
        ):
            raise conflict(resource.plural, key[1], "modified")
        return self._store(resource, key, deep_copy(obj), "MODIFIED")

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
        await self._round_trip()
        self.writes.append(("patch", resource.plural, name, patch))
        old = self.find(resource, namespace, name)
        if old is None:
            raise not_found(resource.plural, name, resource.group)
        uid = (patch.get("metadata") or {}).get("uid")
        if uid and uid != old["metadata"]["uid"]:
            raise conflict(resource.plural, name, "Precondition failed: UID in precondition")
        new = merge(old, patch, content_type == STRATEGIC_MERGE_PATCH)
        return self._store(resource, (namespace, name), new, "MODIFIED")

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        grace_period_seconds: int | None = None,
        propagation_policy: str = "",
        uid: str = "",
        resource_version: str = "",
    ) -> Object:
        await self._round_trip()
        self.writes.append(("delete", resource.plural, name, grace_period_seconds))
        old = self.find(resource, namespace, name)
        if old is None:
            raise not_found(resource.plural, name, resource.group)
        if uid and uid != old["metadata"]["uid"]:
            raise conflict(resource.plural, name, "Precondition failed: UID in precondition")
        self.remove(resource, namespace, name)
        return old

    async def close(self) -> None: ...

    async def _round_trip(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise ConnectionLost("away")

    def _store(self, resource: Resource, key: tuple[str, str], obj: Object, type_: str) -> Object:
        if key[0]:
            obj["metadata"]["namespace"] = key[0]
        obj.setdefault("apiVersion", resource.api_version)
        obj.setdefault("kind", resource.kind)
        self.objects[resource.key_stem][key] = obj
        self._tell(resource, type_, obj)
        return obj

    def _tell(self, resource: Resource, type_: str, obj: Object) -> None:
        self.revision += 1
        obj["metadata"] = {**obj["metadata"], "resourceVersion": str(self.revision)}
        self.history.append((self.revision, resource.key_stem, type_, deep_copy(obj)))
        self.wake()

    def wake(self) -> None:
        self.changed.set()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


def _selected(obj: Object, selector: str) -> bool:
    for part in filter(None, selector.split(",")):
        path, _, value = part.partition("=")
        at: Any = obj
        for step in path.split("."):
            at = (at or {}).get(step)
        if (at or "") != value:
            return False
    return True


class FakeImages:
    """Images by name; names in `missing` cannot be pulled."""

    def __init__(self, *present: str) -> None:
        self.images = {name: fake_image(name) for name in present}
        self.remote: dict[str, Image] = {}
        self.pulls: list[tuple[str, Sequence[Credentials]]] = []
        self.pulled = asyncio.Event()

    async def image_status(self, name: str) -> Image | None:
        if name != name.lower():
            raise ImageError(f"couldn't parse image name {name!r}", "InvalidImageName")
        return self.images.get(name)

    async def pull_image(self, name: str, credentials: Sequence[Credentials] = ()) -> Image:
        self.pulls.append((name, credentials))
        self.pulled.set()
        if name not in self.remote:
            raise ImageError(f"no such image: {name}")
        self.images[name] = self.remote[name]
        return self.images[name]

    async def list_images(self) -> list[Image]:
        return list(self.images.values())

    async def remove_image(self, name: str) -> None:
        self.images.pop(name, None)


def fake_image(name: str, **config: Any) -> Image:
    return Image(
        id=f"sha256:{name}",
        tags=(f"docker.io/library/{name}:latest",),
        digests=(f"docker.io/library/{name}@sha256:{name}",),
        size=1234,
        pinned=False,
        layers=(),
        config=ImageConfig(**config),
    )


__all__ = ["FakeClient", "FakeImages", "StatusError", "fake_image", "merge"]
