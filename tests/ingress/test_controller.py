"""What Ingresses are told by events and status, on a real API server core."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api.resources import EVENTS, INGRESSCLASSES, INGRESSES
from sampan.ingress.controller import IngressController
from tests.controllers.conftest import api, running
from tests.ingress.test_door_slices import until
from tests.ingress.test_following import ingress

__all__ = ["api"]
pytestmark = pytest.mark.timeout(60)


async def test_one_that_comes_in_place_of_another_of_its_name_is_told_too(api: Any) -> None:
    """As `kubectl replace --force` does it; both changes are seen before anything is done."""
    async with running(IngressController(api).run()):

        async def told(uid: str) -> set[str]:
            found = (await api.list(EVENTS, "default")).items
            return {e["reason"] for e in found if e["involvedObject"]["uid"] == uid}

        async def classes() -> bool:
            return bool((await api.list(INGRESSCLASSES)).items)

        await until(classes)
        for _ in range(2):
            made = await api.create(INGRESSES, ingress("bad", rate_limit="lots"))

            async def all_told(uid: str = made["metadata"]["uid"]) -> bool:
                return await told(uid) == {"Sync", "ServiceNotFound", "InvalidAnnotation"}

            await until(all_told)
            await api.delete(INGRESSES, "default", "bad")
