"""The pool that a cluster has from its first second: the ranges of `sampan up --lb-pool`, as an object like all others.

What an administrator changes in it stays; only other ranges given to `sampan up` are written over that, which an
annotation tells apart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from sampan.api.errors import Object, StatusError
from sampan.api.resources import IPADDRESSPOOLS
from sampan.client.types import Client, ConnectionLost

log = logging.getLogger(__name__)
NAME = "default"
GIVEN = "loadbalancer.sampan.io/lb-pool"
"""Annotation: the ranges as `sampan up` was told them."""
_PAUSE = 1.0


async def ensure(client: Client, ranges: Sequence[str]) -> None:
    """Have the pool; tried again until the API lets us."""
    while True:
        try:
            return await _ensure(client, list(ranges))
        except (StatusError, ConnectionLost) as e:
            log.warning("the pool %s of load balancer addresses: %s", NAME, e)
            await asyncio.sleep(_PAUSE)


async def _ensure(client: Client, ranges: list[str]) -> None:
    given = ",".join(ranges)
    metadata: Object = {"name": NAME, "annotations": {GIVEN: given}}
    try:
        present = await client.get(IPADDRESSPOOLS, "", NAME)
    except StatusError as e:
        if e.code != 404:
            raise
        pool = {
            "apiVersion": IPADDRESSPOOLS.api_version,
            "kind": IPADDRESSPOOLS.kind,
            "metadata": metadata,
            "spec": {"addresses": ranges},
        }
        await client.create(IPADDRESSPOOLS, pool)
        return
    if (present["metadata"].get("annotations") or {}).get(GIVEN) != given:
        patch = {"metadata": {"annotations": {GIVEN: given}}, "spec": {"addresses": ranges}}
        await client.patch(IPADDRESSPOOLS, "", NAME, patch)
