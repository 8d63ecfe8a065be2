"""The front door of a cluster that had one and is started without: what the front door has is taken away.

Its class would else get, as the default one, Ingresses that nobody serves, and its addresses would lead nowhere. Classes that
people made are theirs and stay; what is of them was served all the same, and is served no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container

from sampan.api.errors import Object, StatusError
from sampan.api.front_doors import CLASS
from sampan.api.ingress_classes import class_of, is_ours
from sampan.api.resources import (
    ENDPOINTSLICES,
    GATEWAYCLASSES,
    GATEWAYS,
    GRPCROUTES,
    HTTPROUTES,
    INGRESSCLASSES,
    INGRESSES,
    SERVICES,
    Resource,
)
from sampan.client.informer import key_of
from sampan.client.types import MERGE_PATCH, Client
from sampan.ingress import gateways
from sampan.ingress.door_slices import MADE_BY
from sampan.ingress.endpoints import SERVICE_NAME
from sampan.ingress.gateway_controller import IN_USE
from sampan.ingress.gateway_status import route_status
from sampan.ingress.gateways import gateway_of
from sampan.ingress.own_objects import NAMESPACE, SERVICE


async def withdraw(client: Client) -> None:
    """Do it, and then nothing until cancelled. Raises StatusError, ConnectionLost."""
    for known in (await client.list(INGRESSCLASSES, field_selector=f"metadata.name={CLASS}")).items:
        if is_ours(known):
            await _Withdrawal(client).run()
    await asyncio.Event().wait()


class _Withdrawal:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def run(self) -> None:
        classes = await self._client.list(INGRESSCLASSES)
        served = {c["metadata"]["name"] for c in classes.items if is_ours(c)}
        for ingress in (await self._client.list(INGRESSES)).items:
            if class_of(ingress) in served:
                await self._untell(INGRESSES, ingress, {"loadBalancer": {"ingress": None}})
        of_gateways = await self._gateway_classes()
        found = [
            g
            for g in (await self._client.list(GATEWAYS)).items
            if g["spec"]["gatewayClassName"] in of_gateways
        ]
        for gateway in found:
            await self._untell(GATEWAYS, gateway, None)
        for resource in (HTTPROUTES, GRPCROUTES):
            for route in (await self._client.list(resource)).items:
                # What other controllers say of it stays.
                status = route_status(route, None, "")
                if status["parents"] != ((route.get("status") or {}).get("parents") or []):
                    await self._untell(resource, route, status)
        await self._take_away({key_of(g) for g in found})
        await self._let_classes_go()
        await self._delete(GATEWAYCLASSES, "", CLASS)
        # The last one: as long as it is there, there may be something to do.
        await self._delete(INGRESSCLASSES, "", CLASS)

    async def _gateway_classes(self) -> set[str]:
        """Those whose Gateways the front door served: its own, which may be gone already, and people's that name its controller."""
        known = (await self._client.list(GATEWAYCLASSES)).items
        controllers = {CLASS: gateways.CONTROLLER}
        controllers |= {c["metadata"]["name"]: c["spec"]["controllerName"] for c in known}
        return {name for name, controller in controllers.items() if controller == gateways.CONTROLLER}

    async def _take_away(self, of_gateways: Container[str]) -> None:
        """The Services and slices of the front door and of these Gateways. What a label alone says counts for nothing: anybody may write it."""
        selector = "=".join(MADE_BY)
        for slice_ in (await self._client.list(ENDPOINTSLICES, label_selector=selector)).items:
            meta = slice_["metadata"]
            of_door = (meta["namespace"], meta["labels"].get(SERVICE_NAME)) == (NAMESPACE, SERVICE)
            if of_door or gateway_of(slice_) in of_gateways:
                await self._delete(ENDPOINTSLICES, meta["namespace"], meta["name"])
        for service in (await self._client.list(SERVICES)).items:
            if gateway_of(service) in of_gateways:
                await self._delete(SERVICES, service["metadata"]["namespace"], service["metadata"]["name"])
        await self._delete(SERVICES, NAMESPACE, SERVICE)

    async def _let_classes_go(self) -> None:
        """Nobody would take the finalizer away any more."""
        for known in (await self._client.list(GATEWAYCLASSES)).items:
            meta = known["metadata"]
            have = meta.get("finalizers") or []
            if known["spec"]["controllerName"] == gateways.CONTROLLER and IN_USE in have:
                left = [f for f in have if f != IN_USE]
                change = {"metadata": {"resourceVersion": meta["resourceVersion"], "finalizers": left}}
                await self._client.patch(GATEWAYCLASSES, "", meta["name"], change, content_type=MERGE_PATCH)

    async def _untell(self, resource: Resource, obj: Object, status: Object | None) -> None:
        meta = obj["metadata"]
        try:
            await self._client.patch(
                resource,
                meta["namespace"],
                meta["name"],
                {"status": status},
                content_type=MERGE_PATCH,
                subresource="status",
            )
        except StatusError as e:
            if e.code != 404:
                raise

    async def _delete(self, resource: Resource, namespace: str, name: str) -> None:
        try:
            await self._client.delete(resource, namespace, name)
        except StatusError as e:
            if e.code != 404:
                raise
