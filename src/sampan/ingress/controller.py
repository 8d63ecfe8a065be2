"""The control plane's half of the front door: its class and its address, the addresses of Ingresses, and what people are told.

One at a time does this (an elected one). The Service of the front door has no selector: its endpoints are the nodes whose
HAProxy serves (their condition `IngressServing`), and with externalTrafficPolicy Local a client's address is kept.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Sequence

from sampan.api.errors import Object, StatusError
from sampan.api.objects import condition_true
from sampan.api.resources import (
    ENDPOINTSLICES,
    GATEWAYCLASSES,
    INGRESSCLASSES,
    INGRESSES,
    NODES,
    SERVICES,
    Resource,
)
from sampan.client.events import Recorder
from sampan.client.informer import Informer, key_of
from sampan.client.types import MERGE_PATCH, Client, ConnectionLost
from sampan.client.workqueue import WorkQueue
from sampan.ingress import certificates
from sampan.ingress.endpoints import SERVICE_NAME
from sampan.ingress.following import Following
from sampan.ingress.gateway_controller import GatewayController, gateway_class
from sampan.ingress.ingresses import CONTROLLER
from sampan.ingress.serving import CONDITION
from sampan.ingress.types import Problem

log = logging.getLogger(__name__)
CLASS = "sampan"
NAMESPACE, SERVICE = "kube-system", "sampan-ingress"
MADE_BY = ("endpointslice.kubernetes.io/managed-by", CONTROLLER.replace("/", "-"))
"""The label of EndpointSlices that are made here."""
_MANAGER = "sampan-ingress"
_PORTS = (("http", 80), ("https", 443))
_NODES = "nodes"
"""The queue's key for the endpoints of the front door."""


class IngressController:
    """Writes through `client`, under a name of its own."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._recorder = Recorder(client, _MANAGER)
        self._queue = WorkQueue("ingress")
        self._wake = asyncio.Event()
        self._following = Following(client, self._wake.set, backends=False)
        self._nodes = Informer(client, NODES)
        self._gateways = GatewayController(
            client, self._following.gateways, self._following.services, self._slice_of
        )
        self._slices: dict[str, Object] = {}
        """Of the front door, as they were written last, by family."""
        self._told: dict[str, frozenset[Problem]] = {}

    async def run(self) -> None:
        """Until cancelled. A failure to do one thing is logged and tried again, never raised."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._recorder.run(), name="events of ingress")
            await self._ensure(INGRESSCLASSES, ingress_class())
            await self._ensure(GATEWAYCLASSES, gateway_class())
            await self._ensure(SERVICES, front_door_service())
            started = asyncio.Event()
            group.create_task(self._following.run(started.set), name="routing")
            group.create_task(self._nodes.run(), name="nodes")
            await started.wait()
            await self._nodes.synced.wait()
            self._nodes.add_handler(self._node_changed)
            self._following.services.add_handler(self._service_changed)
            self._following.ingresses.add_handler(self._ingress_changed)
            self._following.gateways.classes.add_handler(self._gateway_class_changed)
            self._queue.add(_NODES)
            group.create_task(self._queue.run(self._sync, 4), name="ingress")
            group.create_task(self._follow(), name="problems")

    async def _follow(self) -> None:
        following = self._following
        while True:
            following.update()
            following.table.take_change()
            touched, following.touched = following.touched, set()
            for kind, namespace, name in touched:
                self._queue.add(f"{namespace}/{name}" if kind == "Ingress" else f"{kind}|{namespace}/{name}")
            await self._wake.wait()
            self._wake.clear()

    async def _ensure(self, resource: Resource, obj: Object) -> None:
        while True:
            try:
                await self._client.create(resource, obj)
            except StatusError as e:
                if e.reason != "AlreadyExists":
                    log.warning("%s %s is not made: %s", obj["kind"], obj["metadata"]["name"], e.message)
                    if e.code >= 500:
                        await asyncio.sleep(1)
                        continue
            except ConnectionLost:
                await asyncio.sleep(1)
                continue
            return

    # ---- what happens

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        self._queue.add(_NODES)
        for key in self._following.gateways.states:
            self._queue.add(f"Gateway|{key}")

    def _gateway_class_changed(self, old: Object | None, new: Object | None) -> None:
        self._queue.add(f"GatewayClass|/{(new or old or {})['metadata']['name']}")

    def _service_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new if new is not None else old
        if obj is None or key_of(obj) != f"{NAMESPACE}/{SERVICE}":
            return
        self._queue.add(_NODES)
        if old is None or new is None or old.get("status") != new.get("status"):
            for ingress in self._following.ingresses.list():
                self._queue.add(key_of(ingress))

    def _ingress_changed(self, old: Object | None, new: Object | None) -> None:
        self._queue.add(key_of(new or old or {}))

    # ---- what is done

    async def _sync(self, key: str) -> None:
        if key == _NODES:
            await self._sync_endpoints()
            return
        kind, _, name = key.rpartition("|")
        namespace, _, name = name.partition("/")
        if kind:
            await self._gateways.sync((kind, namespace, name))
            return
        ingress = self._following.ingresses.get(namespace, name)
        if ingress is None or ingress["metadata"].get("deletionTimestamp"):
            self._told.pop(key, None)
            return
        if not self._following.ours(ingress):
            self._told.pop(key, None)
            return
        self._tell(key, ingress)
        wanted = self._addresses()
        have = ((ingress.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
        if have != wanted:
            await self._client.patch(
                INGRESSES,
                namespace,
                name,
                {"status": {"loadBalancer": {"ingress": wanted or None}}},
                content_type=MERGE_PATCH,
                subresource="status",
                field_manager=_MANAGER,
            )

    def _tell(self, key: str, ingress: Object) -> None:
        """Events for what is new among an Ingress's problems; and that it is in force when it first is."""
        namespace, _, name = key.partition("/")
        owner = ("Ingress", namespace, name)
        table = self._following.table
        problems = dict.fromkeys(
            (*table.contribution(owner).problems, *table.conflicts(owner), *self._doubts(key, ingress))
        )
        before = self._told.get(key)
        for problem in problems:
            if before is None or problem not in before:
                self._recorder.event(ingress, "Warning", problem.reason, problem.message)
        if before is None or (before and not problems):
            self._recorder.event(ingress, "Normal", "Sync", "Scheduled for sync")
        self._told[key] = frozenset(problems)

    def _doubts(self, key: str, ingress: Object) -> list[Problem]:
        """What is wrong with an Ingress's certificates today; it is looked at again when one of them begins or ends."""
        if not any(certificates.secrets_of(ingress)):
            return []
        now, secret = datetime.datetime.now(datetime.UTC), self._following.secrets.get
        if (date := certificates.next_date(ingress, secret, now)) is not None:
            self._queue.add_after(key, (date - now).total_seconds() + 1)
        return list(certificates.doubts(ingress, secret, now))

    def _addresses(self) -> list[Object]:
        service = self._following.services.get(NAMESPACE, SERVICE) or {}
        found = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        return [{k: i[k] for k in ("ip", "hostname") if i.get(k)} for i in found]

    def _slice_of(self, namespace: str, name: str, ports: list[tuple[str, int]]) -> Object:
        return endpoint_slice(self._nodes.list(), namespace, name, ports)

    async def _sync_endpoints(self) -> None:
        """The EndpointSlices of the front door, one a family of its Service: the nodes that serve."""
        service = self._following.services.get(NAMESPACE, SERVICE)
        if service is None:
            return
        for family in service["spec"].get("ipFamilies") or ("IPv4",):
            await self._sync_slice(endpoint_slice(self._nodes.list(), family=family))

    async def _sync_slice(self, wanted: Object) -> None:
        name, family = wanted["metadata"]["name"], wanted["addressType"]
        if family not in self._slices:
            try:
                self._slices[family] = await self._client.create(ENDPOINTSLICES, wanted)
            except StatusError as e:
                if e.reason != "AlreadyExists":
                    raise
                self._slices[family] = await self._client.get(ENDPOINTSLICES, NAMESPACE, name)
        if any(self._slices[family].get(k) != wanted[k] for k in ("endpoints", "ports")):
            self._slices[family] = await self._client.patch(
                ENDPOINTSLICES,
                NAMESPACE,
                name,
                {"endpoints": wanted["endpoints"], "ports": wanted["ports"]},
                content_type=MERGE_PATCH,
                field_manager=_MANAGER,
            )


def endpoint_slice(
    nodes: list[Object],
    namespace: str = NAMESPACE,
    service: str = SERVICE,
    ports: Sequence[tuple[str, int]] = _PORTS,
    family: str = "IPv4",
) -> Object:
    """Of the nodes whose front door is open, for the front door's Service or a Gateway's: their addresses of a family."""
    endpoints = []
    for node in sorted(nodes, key=lambda n: str(n["metadata"]["name"])):
        address = next(
            (
                a["address"]
                for a in (node.get("status") or {}).get("addresses") or ()
                if a["type"] == "InternalIP" and (":" in a["address"]) == (family == "IPv6")
            ),
            None,
        )
        if address is None or not (condition_true(node, CONDITION) and condition_true(node, "Ready")):
            continue
        conditions = {"ready": True, "serving": True, "terminating": False}
        name = node["metadata"]["name"]
        endpoints.append({"addresses": [address], "conditions": conditions, "nodeName": name})
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": service if family == "IPv4" else f"{service}-{family.lower()}",
            "namespace": namespace,
            "labels": {SERVICE_NAME: service, MADE_BY[0]: MADE_BY[1]},
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": [{"name": name, "port": port, "protocol": "TCP"} for name, port in ports],
    }


def ingress_class() -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {
            "name": CLASS,
            "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"},
        },
        "spec": {"controller": CONTROLLER},
    }


def front_door_service() -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SERVICE, "namespace": NAMESPACE, "labels": {"app.kubernetes.io/name": SERVICE}},
        "spec": {
            "type": "LoadBalancer",
            "ipFamilyPolicy": "PreferDualStack",
            "externalTrafficPolicy": "Local",
            "ports": [
                {"name": name, "port": port, "protocol": "TCP", "targetPort": port} for name, port in _PORTS
            ],
        },
    }
