"""The EndpointSlice controller: reads Services, pods and nodes, writes slices."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from sampan.api import selectors
from sampan.api.errors import Object, StatusError
from sampan.api.objects import condition, deep_copy, owner_reference
from sampan.api.resources import ENDPOINTSLICES, NODES, PODS, SERVICES
from sampan.client.informer import Informer, key_of
from sampan.controllers.controller import Context, Controller, OwnWrites, deleting, split_key
from sampan.controllers.endpointslice import endpoints, layout
from sampan.controllers.informers import NODE, SERVICE, SERVICE_NAME_LABEL, labelled, selecting
from sampan.controllers.per_namespace import namespace_terminating

MANAGED_BY_LABEL = "endpointslice.kubernetes.io/managed-by"
HEADLESS_LABEL = "service.kubernetes.io/headless"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
MANAGER = "endpointslice-controller.k8s.io"
_RESERVED = (SERVICE_NAME_LABEL, MANAGED_BY_LABEL, HEADLESS_LABEL)


class TriggerTimes:
    """When the change happened that makes us write, so that the time until it takes effect can be measured.

    Only for slices: the earliest new time of a Service's creation and its pods' readiness."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, str]] = {}

    def since_last(self, key: str, service: Object, pods: Iterable[Object]) -> str:
        """The earliest time that was not there the last time this was asked for `key`; "" for none."""
        times: dict[str, str] = {"": service["metadata"]["creationTimestamp"]}
        for pod in pods:
            found = condition(pod, "Ready")
            if found is not None and found.get("lastTransitionTime"):
                times[pod["metadata"]["name"]] = found["lastTransitionTime"]
        before = self._seen.get(key, {})
        self._seen[key] = times
        fresh = [t for name, t in times.items() if t > before.get(name, "")]
        if before:
            return min(fresh, default="")
        # The first sight of a Service is about the Service itself.
        return times[""]

    def forget(self, key: str) -> None:
        self._seen.pop(key, None)


class EndpointSliceController(Controller):
    name = "endpointslice"
    workers = 5

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._events = context.recorder("endpoint-slice-controller")
        self._services = context.informers.of(SERVICES)
        self._pods = context.informers.of(PODS)
        self._nodes = context.informers.of(NODES)
        self._slices = context.informers.of(ENDPOINTSLICES)
        self._writes = OwnWrites(self._slices)
        self._times = TriggerTimes()
        self._computed: dict[str, endpoints.Computed] = {}
        self._waiting: set[str] = set()
        self._revisions: dict[str, int] = {}
        self._services.add_handler(self.enqueue_either)
        self._pods.add_handler(self._pod_changed)
        self._nodes.add_handler(self._node_changed)
        self._slices.add_handler(self._slice_changed)

    # ---- what wakes us

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and new is not None and not matters(old, new):
            return
        for service in services_of(self._services, old, new):
            self.enqueue(service)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and new is not None and _zone(old) == _zone(new):
            return
        node = new if new is not None else old
        assert node is not None
        for pod in self._pods.by_index(NODE, node["metadata"]["name"]):
            for service in services_of(self._services, pod):
                self.enqueue(service)

    def _slice_changed(self, old: Object | None, new: Object | None) -> None:
        one = new if new is not None else old
        assert one is not None
        if not _ours(one):
            return
        meta = one["metadata"]
        key = f"{meta['namespace']}/{meta['labels'][SERVICE_NAME_LABEL]}"
        mine = self._revisions.get(meta["uid"])
        if new is None:
            self._revisions.pop(meta["uid"], None)
        own = mine is not None and int(meta["resourceVersion"]) <= mine
        if not own or key in self._waiting:
            self._waiting.discard(key)
            self.queue.add(key)

    # ---- the work

    async def sync(self, key: str) -> None:
        service = self._services.get(*split_key(key))
        if service is None or not manages(service):
            self._writes.forget(key)
            self._times.forget(key)
            self._computed.pop(key, None)
            return
        if self._writes.unseen(key):
            self._waiting.add(key)
            return
        pods = selected(self._pods, service)
        computed = self._computed.setdefault(key, endpoints.Computed())
        groups = computed.wanted(service, pods, lambda name: self._nodes.get("", name))
        slices = [s for s in self._slices.by_index(SERVICE, key) if _ours(s) and not deleting(s)]
        owned = [s for s in slices if _owned(s, service)]
        made = layout.plan(groups, endpoints.address_types(service), owned)
        # Those of a Service of that name that was before go with it; until then they would be endpoints of this one.
        made.delete += [s for s in slices if not _owned(s, service)]
        labels, trigger = _labels(service), self._times.since_last(key, service, pods)
        writes = [self._create(key, service, content, labels, trigger) for content in made.create]
        writes += [self._update(key, one, parts, labels, trigger) for one, parts in made.update]
        writes += [
            self._update(key, one, one.get("endpoints") or [], labels, "")
            for one in made.keep
            if (one["metadata"].get("labels") or {}) != labels
        ]
        writes += [self._delete(key, one) for one in made.delete]
        results = await asyncio.gather(*writes, return_exceptions=True)
        for failure in results:
            if isinstance(failure, StatusError) and failure.code not in (404, 409):
                self._events.event(
                    service,
                    "Warning",
                    "FailedToUpdateEndpointSlices",
                    f"Error updating Endpoint Slices for Service {key}: {failure.message}",
                )
            if isinstance(failure, BaseException):
                raise failure

    async def _create(
        self, key: str, service: Object, content: Object, labels: dict[str, str], trigger: str
    ) -> None:
        meta = service["metadata"]
        metadata: Object = {
            "generateName": f"{meta['name']}-",
            "namespace": meta["namespace"],
            "labels": labels,
            "ownerReferences": [owner_reference({**service, "apiVersion": "v1", "kind": "Service"})],
        }
        if trigger:
            metadata["annotations"] = {TRIGGER_TIME: trigger}
        one = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata, **content}
        try:
            self._note(key, await self._client.create(ENDPOINTSLICES, one))
        except StatusError as e:
            if not namespace_terminating(e):
                raise

    async def _update(
        self, key: str, one: Object, parts: list[Object], labels: dict[str, str], trigger: str
    ) -> None:
        changed = deep_copy(one)
        changed["endpoints"] = parts
        changed["metadata"]["labels"] = labels
        annotations = changed["metadata"].setdefault("annotations", {})
        annotations.pop(TRIGGER_TIME, None)
        if trigger:
            annotations[TRIGGER_TIME] = trigger
        if not annotations:
            del changed["metadata"]["annotations"]
        self._note(key, await self._client.update(ENDPOINTSLICES, changed))

    async def _delete(self, key: str, one: Object) -> None:
        meta = one["metadata"]
        try:
            await self._client.delete(ENDPOINTSLICES, meta["namespace"], meta["name"], uid=meta["uid"])
        except StatusError as e:
            if e.code not in (404, 409):
                raise

    def _note(self, key: str, written: Object) -> None:
        meta = written["metadata"]
        self._revisions[meta["uid"]] = int(meta["resourceVersion"])
        self._writes.note(key, written)


def manages(service: Object) -> bool:
    """Whether a Service's endpoints follow from its selector."""
    spec = service["spec"]
    return spec.get("type") != "ExternalName" and bool(spec.get("selector"))


def selected(pods: Informer, service: Object) -> list[Object]:
    """The pods that a Service selects."""
    pairs = service["spec"]["selector"]
    wanted = pairs.items()
    found = labelled(pods, service["metadata"]["namespace"], pairs)
    return [p for p in found if wanted <= (p["metadata"].get("labels") or {}).items()]


def services_of(services: Informer, *pods: Object | None) -> Iterator[Object]:
    """The Services that select any of these states of a pod."""
    seen: set[str] = set()
    for pod in pods:
        if pod is None:
            continue
        labels = pod["metadata"].get("labels") or {}
        for service in selecting(services, pod):
            key = key_of(service)
            if key not in seen and selectors.from_map(service["spec"].get("selector")).matches(labels):
                seen.add(key)
                yield service


def matters(old: Object, new: Object) -> bool:
    """Whether a pod's change can change an endpoint."""
    a, b = old["metadata"], new["metadata"]
    if a.get("labels") != b.get("labels") or deleting(old) != deleting(new):
        return True
    if old["spec"] is not new["spec"] and old["spec"].get("nodeName") != new["spec"].get("nodeName"):
        return True
    before, after = old.get("status") or {}, new.get("status") or {}
    return any(before.get(f) != after.get(f) for f in ("podIP", "podIPs", "phase")) or (
        condition(old, "Ready") != condition(new, "Ready")
    )


def _zone(node: Object) -> str | None:
    return (node["metadata"].get("labels") or {}).get(endpoints.ZONE_LABEL)


def _ours(one: Object) -> bool:
    labels = one["metadata"].get("labels") or {}
    return labels.get(MANAGED_BY_LABEL) == MANAGER and bool(labels.get(SERVICE_NAME_LABEL))


def _owned(one: Object, service: Object) -> bool:
    owners = one["metadata"].get("ownerReferences") or ()
    return any(o["uid"] == service["metadata"]["uid"] and o["kind"] == "Service" for o in owners)


def _labels(service: Object) -> dict[str, str]:
    labels = {k: v for k, v in (service["metadata"].get("labels") or {}).items() if k not in _RESERVED}
    if service["spec"].get("clusterIP") == "None":
        labels[HEADLESS_LABEL] = ""
    return {**labels, SERVICE_NAME_LABEL: service["metadata"]["name"], MANAGED_BY_LABEL: MANAGER}
