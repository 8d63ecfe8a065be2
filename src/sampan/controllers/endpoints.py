"""Endpoints: the older form of where a Service's pods are, one object a Service.

Upstream: `pkg/controller/endpoint`.
"""

from __future__ import annotations

from collections.abc import Iterable

from sampan.api.errors import Object, StatusError
from sampan.api.objects import condition_true, deep_copy
from sampan.api.resources import ENDPOINTS, PODS, SERVICES
from sampan.controllers import pods as facts
from sampan.controllers.controller import Context, Controller, deleting, split_key
from sampan.controllers.endpointslice.controller import (
    HEADLESS_LABEL,
    TRIGGER_TIME,
    TriggerTimes,
    manages,
    matters,
    selected,
    services_of,
)
from sampan.controllers.endpointslice.endpoints import address_of, address_types, ports_of
from sampan.controllers.per_namespace import namespace_terminating

MANAGED_BY_LABEL = "endpoints.kubernetes.io/managed-by"
MANAGER = "endpoint-controller"
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
MOST = 1000
"""Addresses in one object; more are left out, and an annotation says so."""


class EndpointsController(Controller):
    name = "endpoints"
    workers = 5

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._services = context.informers.of(SERVICES)
        self._pods = context.informers.of(PODS)
        self._endpoints = context.informers.of(ENDPOINTS)
        self._times = TriggerTimes()
        self._services.add_handler(self.enqueue_either)
        self._pods.add_handler(self._pod_changed)
        self._endpoints.add_handler(self._endpoints_changed)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if old is None or new is None or matters(old, new):
            for service in services_of(self._services, old, new):
                self.enqueue(service)

    def _endpoints_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None and old is not None:
            self.enqueue(old)

    async def sync(self, key: str) -> None:
        namespace, name = split_key(key)
        service = self._services.get(namespace, name)
        present = self._endpoints.get(namespace, name)
        if service is None:
            self._times.forget(key)
            if present is not None and _ours(present):
                await self._delete(present)
            return
        if not manages(service):
            return
        pods = selected(self._pods, service)
        found, left_out = subsets(service, pods)
        labels = {**(service["metadata"].get("labels") or {}), MANAGED_BY_LABEL: MANAGER}
        if service["spec"].get("clusterIP") == "None":
            labels[HEADLESS_LABEL] = ""
        else:
            labels.pop(HEADLESS_LABEL, None)
        trigger = self._times.since_last(key, service, pods)
        annotations = dict(((present or {}).get("metadata") or {}).get("annotations") or {})
        annotations.pop(OVER_CAPACITY, None)
        if left_out:
            annotations[OVER_CAPACITY] = "truncated"
        if (
            present is not None
            and (present.get("subsets") or []) == found
            and (present["metadata"].get("labels") or {}) == labels
            and (present["metadata"].get("annotations") or {}) == annotations
        ):
            return
        annotations.pop(TRIGGER_TIME, None)
        if trigger:
            annotations[TRIGGER_TIME] = trigger
        await self._write(service, present, found, labels, annotations)

    async def _write(
        self,
        service: Object,
        present: Object | None,
        found: list[Object],
        labels: dict[str, str],
        annotations: dict[str, str],
    ) -> None:
        meta = service["metadata"]
        made: Object = {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
        }
        if present is not None:
            made = deep_copy(present)
        made["metadata"]["labels"] = labels
        made["metadata"].pop("annotations", None)
        if annotations:
            made["metadata"]["annotations"] = annotations
        made.pop("subsets", None)
        if found:
            made["subsets"] = found
        try:
            if present is None:
                await self._client.create(ENDPOINTS, made)
            else:
                await self._client.update(ENDPOINTS, made)
        except StatusError as e:
            if not namespace_terminating(e):
                raise

    async def _delete(self, present: Object) -> None:
        meta = present["metadata"]
        try:
            await self._client.delete(ENDPOINTS, meta["namespace"], meta["name"], uid=meta["uid"])
        except StatusError as e:
            if e.code not in (404, 409):
                raise


def _ours(endpoints: Object) -> bool:
    return (endpoints["metadata"].get("labels") or {}).get(MANAGED_BY_LABEL) == MANAGER


def subsets(service: Object, pods: Iterable[Object]) -> tuple[list[Object], bool]:
    """Addresses grouped by equal ports, and whether some had to be left out."""
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    family = address_types(service)[0]
    ports_listed = service["spec"].get("ports") or ()
    groups: dict[str, tuple[list[Object], list[Object], list[Object]]] = {}
    for pod in sorted(pods, key=lambda p: str(p["metadata"]["uid"])):
        address = address_of(pod, family)
        if not address or facts.finished(pod) or (deleting(pod) and not publish):
            continue
        ports = [{k: v for k, v in p.items() if v != ""} for p in ports_of(service, pod)]
        if ports_listed and not ports:
            continue
        ports.sort(key=lambda p: (p.get("name", ""), p["port"], p["protocol"]))
        ready = publish or condition_true(pod, "Ready")
        group = groups.setdefault(repr(ports), ([], [], ports))
        group[0 if ready else 1].append(_address(service, pod, address))
    room, found, left_out = MOST, [], False
    for key in sorted(groups):
        ready_ones, unready, ports = groups[key]
        subset: Object = {}
        for field, addresses in (("addresses", ready_ones), ("notReadyAddresses", unready)):
            addresses.sort(key=lambda a: a["ip"])
            left_out = left_out or len(addresses) > room
            if addresses[:room]:
                subset[field] = addresses[:room]
                room -= len(subset[field])
        if subset:
            if ports:
                subset["ports"] = ports
            found.append(subset)
    return found, left_out


def _address(service: Object, pod: Object, ip: str) -> Object:
    meta, spec = pod["metadata"], pod["spec"]
    made: Object = {"ip": ip}
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        made["hostname"] = spec["hostname"]
    if spec.get("nodeName"):
        made["nodeName"] = spec["nodeName"]
    made["targetRef"] = {
        "kind": "Pod",
        "namespace": meta["namespace"],
        "name": meta["name"],
        "uid": meta["uid"],
    }
    return made
