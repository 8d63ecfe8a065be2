"""Says in each FlowSchema's status whether the priority level that it names is there (condition `Dangling`).

Upstream: `k8s.io/apiserver/pkg/util/flowcontrol/apf_controller.go`, `syncOne`.
"""

from __future__ import annotations

import asyncio
import logging

from sampan.api.errors import Object, StatusError
from sampan.api.objects import condition, now
from sampan.api.resources import FLOWSCHEMAS, PRIORITYLEVELCONFIGURATIONS
from sampan.apiserver.flowcontrol.classification import level_of
from sampan.apiserver.types import ReadCache
from sampan.client.types import Client

log = logging.getLogger(__name__)


class Dangling:
    """Woken by changes of either kind; writes only what is not said yet."""

    def __init__(self, cache: ReadCache, client: Client) -> None:
        self._cache = cache
        self._client = client
        self._changed = asyncio.Event()
        for resource in (FLOWSCHEMAS, PRIORITYLEVELCONFIGURATIONS):
            cache.on_change(resource, lambda old, new: self._changed.set())

    async def run(self) -> None:
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            for schema in self._cache.list(FLOWSCHEMAS):
                wanted = self._wanted(schema)
                present = condition(schema, "Dangling") or {}
                if all(present.get(k) == wanted[k] for k in ("status", "reason", "message")):
                    continue
                try:
                    await self._client.patch(
                        FLOWSCHEMAS, "", schema["metadata"]["name"],
                        {"status": {"conditions": [wanted]}}, subresource="status",
                    )  # fmt: skip
                except StatusError as e:
                    if e.code != 404:
                        log.warning(
                            "FlowSchema %s: its status cannot be written: %s", schema["metadata"]["name"], e
                        )

    def _wanted(self, schema: Object) -> Object:
        level = level_of(schema)
        there = self._cache.get(PRIORITYLEVELCONFIGURATIONS, "", level) is not None
        what = f'references the PriorityLevelConfiguration object named "{level}"'
        return {
            "type": "Dangling",
            "status": "False" if there else "True",
            "lastTransitionTime": now(),
            "reason": "Found" if there else "NotFound",
            "message": f"This FlowSchema {what} and it exists"
            if there
            else f"This FlowSchema {what} but there is no such object",
        }
