"""The front door of a cluster that had one and is started without: what IngressController made is taken away.

Its class would else get, as the default one, Ingresses that nobody serves, and its address would lead nowhere. Classes that
people made are theirs.
"""

from __future__ import annotations

import asyncio
import contextlib

from sampan.api.errors import StatusError
from sampan.api.resources import ENDPOINTSLICES, GATEWAYCLASSES, INGRESSCLASSES, INGRESSES, SERVICES
from sampan.client.types import MERGE_PATCH, Client
from sampan.ingress.controller import CLASS, NAMESPACE, SERVICE
from sampan.ingress.ingresses import CONTROLLER, class_of


async def withdraw(client: Client) -> None:
    """Do it, and then nothing until cancelled. Raises StatusError, ConnectionLost."""
    for known in (await client.list(INGRESSCLASSES, field_selector=f"metadata.name={CLASS}")).items:
        if known["spec"].get("controller") == CONTROLLER:
            await _withdraw(client)
    await asyncio.Event().wait()


async def _withdraw(client: Client) -> None:
    for ingress in (await client.list(INGRESSES)).items:
        meta = ingress["metadata"]
        if class_of(ingress) == CLASS and (ingress.get("status") or {}).get("loadBalancer"):
            with contextlib.suppress(StatusError):  # it is gone, too
                await client.patch(
                    INGRESSES,
                    meta["namespace"],
                    meta["name"],
                    {"status": {"loadBalancer": {"ingress": None}}},
                    content_type=MERGE_PATCH,
                    subresource="status",
                )
    # The class goes last: as long as it is there, there may be something to do.
    for resource, namespace, name in (
        (ENDPOINTSLICES, NAMESPACE, SERVICE),
        (SERVICES, NAMESPACE, SERVICE),
        (GATEWAYCLASSES, "", CLASS),
        (INGRESSCLASSES, "", CLASS),
    ):
        try:
            await client.delete(resource, namespace, name)
        except StatusError as e:
            if e.code != 404:
                raise
