"""The EndpointSlices of Services that lead to front doors, the cluster's own and each Gateway's: the nodes whose proxy serves, one slice a family."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from sampan.api.errors import Object, StatusError
from sampan.api.front_doors import CONDITION, EVERY_NODE, Terms
from sampan.api.objects import condition_true
from sampan.api.resources import ENDPOINTSLICES, NODES
from sampan.client.informer import Informer
from sampan.client.types import MERGE_PATCH, Client
from sampan.ingress.endpoints import SERVICE_NAME, service_of

MADE_BY = ("endpointslice.kubernetes.io/managed-by", "sampan.io-ingress")
"""Label of what is made here."""


class DoorSlices:
    """`nodes_changed` is called when other nodes serve, or by other addresses; `slice_changed` with the `namespace/name` of the Service
    whose slices somebody changed or took away. Nodes that `terms` do not choose are left out, whatever they say."""

    def __init__(
        self,
        client: Client,
        nodes_changed: Callable[[], None],
        slice_changed: Callable[[str], None],
        terms: Terms = EVERY_NODE,
    ) -> None:
        self._client = client
        self._terms = terms
        self._nodes_changed = nodes_changed
        self._slice_changed = slice_changed
        self._nodes = Informer(client, NODES)
        self._slices = Informer(client, ENDPOINTSLICES, label_selector="=".join(MADE_BY))

    async def run(self, started: Callable[[], None]) -> None:
        """Until cancelled. `started` is called once nodes and slices are known."""
        async with asyncio.TaskGroup() as group:
            for informer in (self._nodes, self._slices):
                group.create_task(informer.run(), name=informer.resource.plural)
            for informer in (self._nodes, self._slices):
                await informer.synced.wait()
            self._nodes.add_handler(self._node)
            self._slices.add_handler(self._slice)
            started()

    async def sync(
        self, service: Object, ports: Sequence[tuple[str, int]], manager: str, owner: Object | None = None
    ) -> bool:
        """Have the slices of a Service as they should be, with these names and numbers of ports; `owner` is an owner reference. Returns
        whether a node is in one. Raises StatusError, ConnectionLost."""
        namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
        serving = False
        for family in service["spec"].get("ipFamilies") or ("IPv4",):
            nodes = [n for n in self._nodes.list() if self._terms.choose(n["metadata"]["name"])]
            wanted = endpoint_slice(nodes, namespace, name, ports, family)
            if owner is not None:
                wanted["metadata"]["ownerReferences"] = [owner]
            await self._have(wanted, manager)
            serving |= bool(wanted["endpoints"])
        return serving

    async def _have(self, wanted: Object, manager: str) -> None:
        namespace, name = wanted["metadata"]["namespace"], wanted["metadata"]["name"]
        there = self._slices.get(namespace, name)
        if there is None:
            try:
                await self._client.create(ENDPOINTSLICES, wanted)
            except StatusError as e:
                if e.reason != "AlreadyExists":
                    raise
                there = await self._client.get(ENDPOINTSLICES, namespace, name)
        if there is None:
            return
        if there["addressType"] != wanted["addressType"]:  # a slice never changes it
            await self._client.delete(ENDPOINTSLICES, namespace, name, uid=there["metadata"]["uid"])
            await self._client.create(ENDPOINTSLICES, wanted)
            return
        labels = there["metadata"].get("labels") or {}
        labelled = labels.items() >= wanted["metadata"]["labels"].items()
        if not labelled or any(there.get(k) != wanted[k] for k in ("endpoints", "ports")):
            change = {k: wanted[k] for k in ("endpoints", "ports")}
            change["metadata"] = {"labels": wanted["metadata"]["labels"]}
            await self._client.patch(
                ENDPOINTSLICES, namespace, name, change, content_type=MERGE_PATCH, field_manager=manager
            )

    def _node(self, old: Object | None, new: Object | None) -> None:
        if (old and _door(old)) != (new and _door(new)):
            self._nodes_changed()

    def _slice(self, old: Object | None, new: Object | None) -> None:
        for obj in (old, new):
            for key in service_of(obj) if obj is not None else ():
                self._slice_changed(key)


def endpoint_slice(
    nodes: Sequence[Object], namespace: str, service: str, ports: Sequence[tuple[str, int]], family: str
) -> Object:
    """Of the nodes whose front door is open: their addresses of a family (`IPv4` or `IPv6`)."""
    endpoints = []
    for node in sorted(nodes, key=lambda n: str(n["metadata"]["name"])):
        address = next((a for a in _door(node) if (":" in a) == (family == "IPv6")), None)
        if address is None:
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


def _door(node: Object) -> tuple[str, ...]:
    """Where the front door of a node is reached; () while it is shut."""
    if not (condition_true(node, CONDITION) and condition_true(node, "Ready")):
        return ()
    addresses = (node.get("status") or {}).get("addresses") or ()
    return tuple(a["address"] for a in addresses if a["type"] == "InternalIP")
