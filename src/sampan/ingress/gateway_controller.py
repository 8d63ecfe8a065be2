"""The control plane's half of Gateways: the class `sampan`, a Service and its endpoints for each Gateway, and all statuses."""

from __future__ import annotations

import time

from sampan.api import managed_fields
from sampan.api.errors import Object, StatusError
from sampan.api.objects import format_time
from sampan.api.resources import GATEWAYCLASSES, GATEWAYS, SERVICES, Resource
from sampan.client.informer import Informer
from sampan.client.types import MERGE_PATCH, Client
from sampan.ingress import gateway_status, gateways
from sampan.ingress.door_slices import DoorSlices
from sampan.ingress.gateway_following import GatewayFollowing
from sampan.ingress.gateways import GatewayState
from sampan.ingress.types import Owner

_MANAGER = "sampan-gateway"
IN_USE = "gateway-exists-finalizer.gateway.networking.k8s.io"
"""Finalizer of a GatewayClass that Gateways are of, by the specification's name."""
_NAME = "gateway.networking.k8s.io/gateway-name"
"""Label of what is made for a Gateway: its name, as far as it fits there (GEP-1762)."""


class _Taken(Exception):
    """The name of a Gateway's Service is another one's."""


class GatewayController:
    """Syncs one object at a time, as the owner's queue has it. Failures are the owner's to try again."""

    def __init__(
        self, client: Client, following: GatewayFollowing, services: Informer, slices: DoorSlices
    ) -> None:
        self._client = client
        self._following = following
        self._services = services
        self._slices = slices

    async def sync(self, owner: Owner) -> None:
        """Bring what is told of an object, and what is made for it, up to date."""
        kind, namespace, name = owner
        if kind == "GatewayClass":
            await self._sync_class(name)
        elif kind == "Gateway":
            await self._sync_gateway(namespace, name)
        else:
            await self._sync_route(owner)

    async def _sync_class(self, name: str) -> None:
        obj = self._following.classes.get("", name)
        if obj is None or obj["spec"]["controllerName"] != gateways.CONTROLLER:
            return
        if not await self._keep_while_in_use(obj):  # where it is changed here, it comes again
            await self._write(GATEWAYCLASSES, obj, gateway_status.class_status(obj, _now()))

    async def _keep_while_in_use(self, gateway_class: Object) -> bool:
        """A class that Gateways are of stays until these are gone, by a finalizer. Returns whether the class was changed."""
        meta = gateway_class["metadata"]
        have = meta.get("finalizers") or []
        used = bool(self._following.gateways.by_index("class", meta["name"]))
        if used == (IN_USE in have) or (used and meta.get("deletionTimestamp")):
            return False
        wanted = [*have, IN_USE] if used else [f for f in have if f != IN_USE]
        await self._client.patch(
            GATEWAYCLASSES,
            "",
            meta["name"],
            {"metadata": {"resourceVersion": meta["resourceVersion"], "finalizers": wanted}},
            content_type=MERGE_PATCH,
            field_manager=_MANAGER,
        )
        return True

    async def _sync_route(self, owner: Owner) -> None:
        kind, namespace, name = owner
        informer = self._following.routes[kind]
        obj = informer.get(namespace, name)
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return
        state = self._following.route_states.get(owner)
        if state is None and not obj.get("status"):
            return  # nothing was ever said about it, and nothing is to be said
        await self._write(informer.resource, obj, gateway_status.route_status(obj, state, _now()))

    async def _sync_gateway(self, namespace: str, name: str) -> None:
        obj, state = (
            self._following.gateways.get(namespace, name),
            self._following.states.get(f"{namespace}/{name}"),
        )
        if obj is None or obj["metadata"].get("deletionTimestamp"):
            return
        if state is None:
            await self._let_go(obj)
            return
        service, obstacle = None, ""
        try:
            service = await self._service(obj, state) if state.ports else None
        except _Taken as e:
            obstacle = str(e)
        serving = service is not None and await self._endpoints(obj, service)
        found = (((service or {}).get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        addresses = [i["ip"] for i in found if i.get("ip")]
        attached = self._following.attached(f"{namespace}/{name}")
        status = gateway_status.gateway_status(obj, state, attached, addresses, serving, _now(), obstacle)
        await self._write(GATEWAYS, obj, status)

    async def _let_go(self, gateway: Object) -> None:
        """Take away the Service of a Gateway that is another controller's now. One whose class is not there may be ours again."""
        meta = gateway["metadata"]
        made = self._services.get(meta["namespace"], gateways.service_name(meta["name"]))
        if made is None or not _owned(made, gateway):
            return
        if self._following.classes.get("", gateway["spec"]["gatewayClassName"]) is None:
            return
        try:
            await self._client.delete(
                SERVICES, meta["namespace"], made["metadata"]["name"], uid=made["metadata"]["uid"]
            )
        except StatusError as e:
            if e.reason != "NotFound":
                raise

    async def _service(self, gateway: Object, state: GatewayState) -> Object:
        """The Service of a Gateway, made or changed where it differs. Raises _Taken where one of that name is somebody else's, which is
        left alone."""
        wanted = service(gateway, state)
        meta = wanted["metadata"]
        there = self._services.get(meta["namespace"], meta["name"])
        if there is None:
            try:
                return await self._client.create(SERVICES, wanted, field_manager=_MANAGER)
            except StatusError as e:
                if e.reason != "AlreadyExists":
                    raise
                there = await self._client.get(SERVICES, meta["namespace"], meta["name"])
        if not _owned(there, gateway):
            raise _Taken(f"Service {meta['namespace']}/{meta['name']} is there and not this Gateway's")
        spec = there["spec"]
        address = wanted["spec"].get("loadBalancerIP")
        change = _change(there["metadata"], meta)
        if spec.get("loadBalancerIP") != address or _ports(spec) != _ports(wanted["spec"]):
            numbers = {p["port"]: p.get("nodePort") for p in spec["ports"]}
            ports = [
                {**p, "nodePort": numbers[p["port"]]} if numbers.get(p["port"]) else p
                for p in wanted["spec"]["ports"]
            ]
            change["spec"] = {"ports": ports, "loadBalancerIP": address}
        if spec.get("type") != wanted["spec"]["type"]:  # without node ports nobody would reach it any more
            kept = {k: wanted["spec"][k] for k in ("type", "externalTrafficPolicy")}
            change["spec"] = {**change.get("spec", {}), **kept}
        if not change:
            return there
        return await self._client.patch(
            SERVICES,
            meta["namespace"],
            meta["name"],
            change,
            content_type=MERGE_PATCH,
            field_manager=_MANAGER,
        )

    async def _endpoints(self, gateway: Object, made: Object) -> bool:
        """The EndpointSlices of a Gateway's Service; returns whether a node is in one."""
        ports = [(p["name"], p["nodePort"]) for p in made["spec"]["ports"] if p.get("nodePort")]
        return await self._slices.sync(made, ports, _MANAGER, _owner(gateway))

    async def _write(self, resource: Resource, obj: Object, status: Object) -> None:
        if (obj.get("status") or {}) == status:
            return
        meta = obj["metadata"]
        await self._client.patch(
            resource,
            meta.get("namespace", ""),
            meta["name"],
            # With the version that was read: whoever wrote meanwhile may have written into the same lists.
            {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": status},
            content_type=MERGE_PATCH,
            subresource="status",
            field_manager=_MANAGER,
        )


def service(gateway: Object, state: GatewayState) -> Object:
    """The Service that gives a Gateway its address and its node ports."""
    infrastructure = gateway["spec"].get("infrastructure") or {}
    spec: Object = {
        "type": "LoadBalancer",
        "ipFamilyPolicy": "PreferDualStack",
        "externalTrafficPolicy": "Local",
        "ports": [
            {"name": f"port-{port}", "port": port, "protocol": "TCP", "targetPort": port}
            for port in state.ports
        ],
    }
    if addresses := [a["value"] for a in gateway["spec"].get("addresses") or () if a.get("value")]:
        spec["loadBalancerIP"] = addresses[0]
    metadata = {
        "name": gateways.service_name(state.name),
        "namespace": state.namespace,
        "labels": {
            **(infrastructure.get("labels") or {}),
            _NAME: gateway["metadata"]["name"][:63].rstrip("-."),
        },
        "ownerReferences": [_owner(gateway)],
    }
    if infrastructure.get("annotations"):
        metadata["annotations"] = infrastructure["annotations"]
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def _ports(spec: Object) -> list[tuple[int, str]]:
    return [(p["port"], p["name"]) for p in spec["ports"]]


def _change(have: Object, wanted: Object) -> Object:
    """What makes labels and annotations (of two metadata) as wanted, as a merge patch. What we wrote, as the fields' managers
    tell, and is not wanted any more is taken away; what others wrote stays."""
    written = [managed_fields.fields(e) for e in have.get("managedFields") or () if e["manager"] == _MANAGER]
    change: Object = {}
    for kind in ("labels", "annotations"):
        there, new = have.get(kind) or {}, wanted.get(kind) or {}
        ours = {
            key.removeprefix("f:")
            for fields in written
            for key in (fields.get("f:metadata") or {}).get(f"f:{kind}") or ()
        }
        differs: Object = {k: v for k, v in new.items() if there.get(k) != v}
        differs |= dict.fromkeys(k for k in there if k in ours and k not in new)
        if differs:
            change[kind] = differs
    return {"metadata": change} if change else {}


def _owner(gateway: Object) -> Object:
    return {
        "apiVersion": GATEWAYS.api_version,
        "kind": "Gateway",
        "name": gateway["metadata"]["name"],
        "uid": gateway["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _owned(obj: Object, gateway: Object) -> bool:
    uid = gateway["metadata"]["uid"]
    return any(r.get("uid") == uid for r in obj["metadata"].get("ownerReferences") or ())


def _now() -> str:
    return format_time(time.time())
