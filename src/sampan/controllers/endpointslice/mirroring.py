"""EndpointSlice mirroring: Endpoints that someone keeps by hand, for a Service without a selector, as slices.

Upstream: `pkg/controller/endpointslicemirroring`.
"""

from __future__ import annotations

import asyncio

from sampan.api.errors import Object, StatusError
from sampan.api.objects import deep_copy, owner_reference
from sampan.api.resources import ENDPOINTS, ENDPOINTSLICES, SERVICES
from sampan.controllers.controller import Context, Controller, OwnWrites, deleting, split_key
from sampan.controllers.endpointslice import layout
from sampan.controllers.endpointslice.controller import MANAGED_BY_LABEL
from sampan.controllers.endpointslice.endpoints import FAMILIES, shape_of
from sampan.controllers.informers import SERVICE, SERVICE_NAME_LABEL
from sampan.controllers.per_namespace import namespace_terminating

MANAGER = "endpointslicemirroring-controller.k8s.io"
SKIP_LABEL = "endpointslice.kubernetes.io/skip-mirror"
_LEADER = "control-plane.alpha.kubernetes.io/leader"
MOST = 1000
"""Addresses of one subset that are mirrored."""


class EndpointSliceMirroringController(Controller):
    name = "endpointslicemirroring"
    workers = 2

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._events = context.recorder("endpoint-slice-mirroring-controller")
        self._services = context.informers.of(SERVICES)
        self._endpoints = context.informers.of(ENDPOINTS)
        self._slices = context.informers.of(ENDPOINTSLICES)
        self._writes = OwnWrites(self._slices)
        self._endpoints.add_handler(self.enqueue_either)
        self._services.add_handler(self._service_changed)
        self._slices.add_handler(self._slice_changed)

    def _service_changed(self, old: Object | None, new: Object | None) -> None:
        if (
            old is None
            or new is None
            or bool(old["spec"].get("selector")) != bool(new["spec"].get("selector"))
        ):
            self.enqueue_either(old, new)

    def _slice_changed(self, old: Object | None, new: Object | None) -> None:
        one = new if new is not None else old
        assert one is not None
        if _ours(one):
            self.queue.add(f"{one['metadata']['namespace']}/{one['metadata']['labels'][SERVICE_NAME_LABEL]}")

    async def sync(self, key: str) -> None:
        if self._writes.unseen(key):
            return  # the slice's change that is under way brings us back
        namespace, name = split_key(key)
        endpoints, service = self._endpoints.get(namespace, name), self._services.get(namespace, name)
        slices = [s for s in self._slices.by_index(SERVICE, key) if _ours(s) and not deleting(s)]
        if endpoints is None or service is None or service["spec"].get("selector") or not mirrored(endpoints):
            writes = [self._delete(one) for one in slices]
        else:
            groups, left_out = groups_of(endpoints)
            if left_out:
                message = (
                    f"A max of {MOST} addresses can be mirrored to EndpointSlices per Endpoints subset. {left_out} "
                    "addresses were skipped"
                )
                self._events.event(endpoints, "Warning", "TooManyAddressesToMirror", message)
            made = layout.plan(groups, [], slices, MOST)
            wanted = _copied(endpoints)
            writes = [self._create(key, endpoints, c) for c in made.create]
            writes += [self._update(key, one, parts, wanted) for one, parts in made.update]
            writes += [
                self._update(key, one, one.get("endpoints") or [], wanted)
                for one in made.keep
                if _told(one) != wanted
            ]
            writes += [self._delete(one) for one in made.delete]
        for failure in await asyncio.gather(*writes, return_exceptions=True):
            if isinstance(failure, BaseException):
                raise failure

    async def _create(self, key: str, endpoints: Object, content: Object) -> None:
        meta = endpoints["metadata"]
        one: Object = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "generateName": f"{meta['name']}-",
                "namespace": meta["namespace"],
                **_copied(endpoints),
                "ownerReferences": [owner_reference({**endpoints, "apiVersion": "v1", "kind": "Endpoints"})],
            },
            **content,
        }
        try:
            self._writes.note(key, await self._client.create(ENDPOINTSLICES, one))
        except StatusError as e:
            if not namespace_terminating(e):
                raise

    async def _update(self, key: str, one: Object, parts: list[Object], wanted: Object) -> None:
        changed = deep_copy(one)
        changed["endpoints"] = parts
        changed["metadata"] |= wanted
        self._writes.note(key, await self._client.update(ENDPOINTSLICES, changed))

    async def _delete(self, one: Object) -> None:
        meta = one["metadata"]
        try:
            await self._client.delete(ENDPOINTSLICES, meta["namespace"], meta["name"], uid=meta["uid"])
        except StatusError as e:
            if e.code not in (404, 409):
                raise


_NOT_COPIED = frozenset(
    (
        "kubectl.kubernetes.io/last-applied-configuration",
        "endpoints.kubernetes.io/last-change-trigger-time",
    )
)


def mirrored(endpoints: Object) -> bool:
    meta = endpoints["metadata"]
    skipped = (meta.get("labels") or {}).get(SKIP_LABEL) == "true"
    return not skipped and _LEADER not in (meta.get("annotations") or {})


def _copied(endpoints: Object) -> Object:
    """What a slice has of its Endpoints' metadata, besides its own labels."""
    meta = endpoints["metadata"]
    labels = {k: v for k, v in (meta.get("labels") or {}).items() if k != SKIP_LABEL}
    annotations = {k: v for k, v in (meta.get("annotations") or {}).items() if k not in _NOT_COPIED}
    return {
        "labels": {**labels, SERVICE_NAME_LABEL: meta["name"], MANAGED_BY_LABEL: MANAGER},
        "annotations": annotations,
    }


def _told(one: Object) -> Object:
    meta = one["metadata"]
    return {"labels": meta.get("labels") or {}, "annotations": meta.get("annotations") or {}}


def groups_of(
    endpoints: Object,
) -> tuple[dict[tuple[str, str], tuple[list[Object], list[Object]]], int]:
    """The endpoints of each (address type, ports), as `layout` takes them, and how many were left out."""
    groups: dict[tuple[str, str], tuple[list[Object], list[Object]]] = {}
    left_out = 0
    for subset in endpoints.get("subsets") or ():
        ports = [_port(p) for p in subset.get("ports") or ()]
        given = [(a, True) for a in subset.get("addresses") or ()]
        given += [(a, False) for a in subset.get("notReadyAddresses") or ()]
        left_out += max(0, len(given) - MOST)
        for address, ready in given[:MOST]:
            family = FAMILIES[1] if ":" in address["ip"] else FAMILIES[0]
            group = groups.setdefault((family, shape_of(ports)), (ports, []))
            made: Object = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
            for name in ("hostname", "nodeName", "targetRef"):
                if address.get(name):
                    made[name] = address[name]
            group[1].append(made)
    return groups, left_out


def _port(given: Object) -> Object:
    made: Object = {
        "name": given.get("name") or "",
        "protocol": given.get("protocol") or "TCP",
        "port": given["port"],
    }
    if given.get("appProtocol"):
        made["appProtocol"] = given["appProtocol"]
    return made


def _ours(one: Object) -> bool:
    labels = one["metadata"].get("labels") or {}
    return labels.get(MANAGED_BY_LABEL) == MANAGER and bool(labels.get(SERVICE_NAME_LABEL))
