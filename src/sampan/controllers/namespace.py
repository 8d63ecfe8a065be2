"""Namespace: when one is deleted, everything in it goes first: pods, then all the rest.

Upstream: `pkg/controller/namespace`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from sampan.api.errors import Object, StatusError
from sampan.api.objects import condition, deep_copy, now
from sampan.api.resources import NAMESPACES, PODS, Resource, stored
from sampan.controllers.controller import Context, Controller, deleting

FINALIZER = "kubernetes"
_AT_ONCE = 50
"""Deletions under way at a time."""


class NamespaceController(Controller):
    name = "namespace"
    workers = 4

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._namespaces = context.informers.of(NAMESPACES)
        self._namespaces.add_handler(self._namespace_changed)
        self._resources = [r for r in stored() if r.namespaced]
        self._going: set[str] = set()
        for resource in self._resources:
            context.informers.of(resource).add_handler(self._content_changed)

    def _namespace_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and deleting(new):
            self._going.add(new["metadata"]["name"])
            self.enqueue(new)
        elif old is not None:
            self._going.discard(old["metadata"]["name"])

    def _content_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None and old is not None and old["metadata"]["namespace"] in self._going:
            self.queue.add(old["metadata"]["namespace"])

    async def sync(self, key: str) -> None:
        namespace = self._namespaces.get("", key)
        if namespace is None or not deleting(namespace):
            return
        if FINALIZER not in (namespace["spec"].get("finalizers") or ()):
            return
        failures: list[str] = []
        remaining = await self._empty(key, [PODS], failures)
        if not remaining:
            remaining = await self._empty(key, [r for r in self._resources if r is not PODS], failures)
        changed = deep_copy(namespace)
        conditions = _conditions(namespace, remaining, failures)
        if conditions != ((namespace.get("status") or {}).get("conditions") or []):
            changed.setdefault("status", {})["conditions"] = conditions
            changed = await self._client.update(NAMESPACES, changed, subresource="status")
        if failures:
            raise RuntimeError(f"namespace {key}: {'; '.join(failures)}")
        if not remaining:
            changed = deep_copy(changed)
            changed["spec"]["finalizers"] = [f for f in changed["spec"]["finalizers"] if f != FINALIZER]
            try:
                await self._client.update(NAMESPACES, changed, subresource="finalize")
            except StatusError as e:
                if e.code != 404:
                    raise

    async def _empty(
        self, namespace: str, resources: Sequence[Resource], failures: list[str]
    ) -> list[tuple[Resource, Object]]:
        """Delete the objects of these resources; what is still there afterwards (waiting for its node, or held by a
        finalizer)."""
        remaining: list[tuple[Resource, Object]] = []
        limit = asyncio.Semaphore(_AT_ONCE)

        async def remove(resource: Resource, obj: Object) -> None:
            meta = obj["metadata"]
            try:
                async with limit:
                    await self._client.delete(
                        resource,
                        namespace,
                        meta["name"],
                        uid=meta["uid"],
                        propagation_policy="Background",
                    )
            except StatusError as e:
                if e.code not in (404, 409):
                    failures.append(e.message)

        for resource in resources:
            found = (await self._client.list(resource, namespace)).items
            if not found:
                continue
            await asyncio.gather(*(remove(resource, o) for o in found if not deleting(o)))
            left = (await self._client.list(resource, namespace)).items
            remaining += [(resource, o) for o in left]
        return remaining


def _conditions(
    namespace: Object, remaining: Sequence[tuple[Resource, Object]], failures: Sequence[str]
) -> list[Object]:
    counts = Counter(f"{r.plural}.{r.group}" for r, _ in remaining)
    held = Counter(f for _, o in remaining for f in o["metadata"].get("finalizers") or ())
    listed = ", ".join(f"{what} has {n} resource instances" for what, n in sorted(counts.items()))
    holders = ", ".join(f"{what} in {n} resource instances" for what, n in sorted(held.items()))
    wanted = [
        ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered", "All resources successfully discovered", ""),
        ("NamespaceDeletionGroupVersionParsingFailure", "ParsedGroupVersions", "All legacy kube types successfully parsed", ""),
        (
            "NamespaceDeletionContentFailure",
            "ContentDeletionFailed" if failures else "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
            f"Failed to delete all resource types, {len(failures)} remaining: {', '.join(sorted(failures))}" if failures else "",
        ),
        (
            "NamespaceContentRemaining",
            "SomeResourcesRemain" if listed else "ContentRemoved",
            "All content successfully removed",
            f"Some resources are remaining: {listed}" if listed else "",
        ),
        (
            "NamespaceFinalizersRemaining",
            "SomeFinalizersRemain" if holders else "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
            f"Some content in the namespace has finalizers remaining: {holders}" if holders else "",
        ),
    ]  # fmt: skip
    made: list[Object] = []
    for type_, reason, fine, trouble in wanted:
        status, message = ("True", trouble) if trouble else ("False", fine)
        present = condition(namespace, type_)
        since = (
            present["lastTransitionTime"]
            if present is not None and present["status"] == status and present.get("lastTransitionTime")
            else now()
        )
        made.append(
            {
                "type": type_,
                "status": status,
                "lastTransitionTime": since,
                "reason": reason,
                "message": message,
            }
        )
    return made
