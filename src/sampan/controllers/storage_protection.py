"""Storage protection: claims, volumes and their attributes' classes that are to go stay until nobody uses them.

A claim is in use while a pod that names it is on a node, a volume while it is bound, a class while a claim or a volume has
it or wants it. Upstream: `pkg/controller/volume/{pvc,pv,vac}protection`.
"""

from __future__ import annotations

from collections.abc import Iterator

from sampan.api.errors import Object, StatusError
from sampan.api.objects import controller_of, deep_copy
from sampan.api.quota.persistent_volume_claims import attributes_classes
from sampan.api.resources import (
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    PODS,
    VOLUMEATTRIBUTESCLASSES,
    Resource,
)
from sampan.client.informer import key_of
from sampan.controllers.controller import Context, Controller, deleting, split_key


class _Protection(Controller):
    """Takes its finalizer off what is to go and is not in use."""

    resource: Resource
    finalizer = ""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._objects = context.informers.of(self.resource)
        self._objects.add_handler(self._changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and self._waits(new):
            self.enqueue(new)

    def _waits(self, obj: Object) -> bool:
        return deleting(obj) and self.finalizer in (obj["metadata"].get("finalizers") or ())

    async def sync(self, key: str) -> None:
        obj = self._objects.get(*split_key(key))
        if obj is None or not self._waits(obj) or await self._in_use(obj):
            return
        changed = deep_copy(obj)
        metadata = changed["metadata"]
        metadata["finalizers"] = [f for f in metadata["finalizers"] if f != self.finalizer]
        try:
            await self._client.update(self.resource, changed)
        except StatusError as e:
            if e.code != 404:
                raise

    async def _in_use(self, obj: Object) -> bool:
        raise NotImplementedError


class PVCProtectionController(_Protection):
    name = "persistentvolumeclaim-protection"
    resource = PERSISTENTVOLUMECLAIMS
    finalizer = "kubernetes.io/pvc-protection"

    def __init__(self, context: Context) -> None:
        self._users: dict[str, set[str]] = {}
        """The keys of the pods that name a claim, by the claim's key."""
        super().__init__(context)
        self._pods = context.informers.of(PODS)
        self._pods.add_handler(self._pod_changed)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        before, after = (set(_claims(p)) if p is not None else set() for p in (old, new))
        pod = key_of(new if new is not None else old or {})
        for claim in after - before:
            self._users.setdefault(claim, set()).add(pod)
        for claim in before - after:
            users = self._users.get(claim, set())
            users.discard(pod)
            if not users:
                self._users.pop(claim, None)
        for claim in before:
            obj = self._objects.get_by_key(claim)
            if obj is not None and self._waits(obj):
                self.queue.add(claim)

    async def _in_use(self, obj: Object) -> bool:
        key = key_of(obj)
        if any(self._uses(self._pods.get_by_key(pod), obj) for pod in self._users.get(key, ())):
            return True
        # The copy may lag behind a pod that was bound just now: before the last word, the API is asked.
        found = await self._client.list(PODS, obj["metadata"]["namespace"])
        return any(key in _claims(pod) and self._uses(pod, obj) for pod in found.items)

    def _uses(self, pod: Object | None, claim: Object) -> bool:
        """A node starts no pod with a claim that is to go, so that a pod without a node does not count."""
        if pod is None or not pod["spec"].get("nodeName"):
            return False
        name = claim["metadata"]["name"]
        if any(_named(v) == name for v in pod["spec"].get("volumes") or ()):
            return True
        # One made for a pod's own volume goes with the pod.
        owner = controller_of(claim)
        own = owner is not None and owner.get("uid") == pod["metadata"]["uid"]
        return own and not _shut_down(pod)


class PVProtectionController(_Protection):
    name = "persistentvolume-protection"
    resource = PERSISTENTVOLUMES
    finalizer = "kubernetes.io/pv-protection"

    async def _in_use(self, obj: Object) -> bool:
        return (obj.get("status") or {}).get("phase") == "Bound"


class VACProtectionController(_Protection):
    name = "volumeattributesclass-protection"
    resource = VOLUMEATTRIBUTESCLASSES
    finalizer = "kubernetes.io/vac-protection"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._users = [context.informers.of(r) for r in (PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES)]
        for users in self._users:
            users.add_handler(self._user_changed)

    def _user_changed(self, old: Object | None, new: Object | None) -> None:
        for name in attributes_classes(old) - attributes_classes(new):
            klass = self._objects.get("", name)
            if klass is not None and self._waits(klass):
                self.queue.add(name)

    async def _in_use(self, obj: Object) -> bool:
        name = obj["metadata"]["name"]
        return any(name in attributes_classes(user) for users in self._users for user in users.list())


def _named(volume: Object) -> str:
    return str((volume.get("persistentVolumeClaim") or {}).get("claimName") or "")


def _claims(pod: Object) -> Iterator[str]:
    """The keys of the claims that a pod's volumes are made of."""
    metadata = pod["metadata"]
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        name = _named(volume)
        if not name and volume.get("ephemeral") is not None:
            name = f"{metadata['name']}-{volume['name']}"
        if name:
            yield f"{metadata['namespace']}/{name}"


def _shut_down(pod: Object) -> bool:
    """Whether a pod's node has said that nothing of it runs any more."""
    return deleting(pod) and not pod["metadata"].get("deletionGracePeriodSeconds")
