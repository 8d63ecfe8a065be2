"""Sending a pod's status with as few writes as possible, and the ones that matter at once.

While a pod is being started its status changes with every step; nobody waits for those. Such a status may wait a
moment for the next one. A pod that becomes ready, unready or done, or a container that fails, is told at once.
Upstream: `pkg/kubelet/status/status_manager.go`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from sampan.api.errors import Object, StatusError
from sampan.api.resources import PODS
from sampan.client.types import STRATEGIC_MERGE_PATCH, Client, ConnectionLost

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 0.25
FIRST_RETRY, MOST_RETRY = 0.1, 10.0


class StatusWriter:
    """The status of one pod. `run()` must be running in a task of the owner's."""

    def __init__(self, client: Client, pod: Object) -> None:
        self._client = client
        meta = pod["metadata"]
        self._namespace, self._name, self._uid = meta["namespace"], meta["name"], meta["uid"]
        self.known: Object = pod.get("status") or {}
        """The status as the API has it, as far as we know."""
        self._wanted: Object | None = None
        self._due = 0.0
        self._wakeup = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._gone = False

    def observe(self, pod: Object) -> None:
        """The API told of the pod: that is what it has now (unless a write of ours is on its way)."""
        if self._settled.is_set():
            self.known = pod.get("status") or {}

    def set(self, status: Object, *, urgent: bool) -> None:
        """Have `status` written: now, or soon."""
        if self._wanted is None and _same(self.known, status):
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + (0.0 if urgent else PATIENCE_SECONDS)
        self._due = min(self._due, due) if self._wanted is not None else due
        self._wanted = status
        self._settled.clear()
        self._wakeup.set()

    async def flush(self) -> None:
        """Wait until what was set has been written, or cannot be (the pod is gone)."""
        self._due = 0.0
        self._wakeup.set()
        await self._settled.wait()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        pause = FIRST_RETRY
        while True:
            while self._wanted is not None:
                self._wakeup.clear()
                wait = self._due - loop.time()
                if wait > 0:
                    try:
                        async with asyncio.timeout(wait):
                            await self._wakeup.wait()
                    except TimeoutError:
                        pass
                    continue
                status, self._wanted = self._wanted, None
                try:
                    await self._write(status)
                    pause = FIRST_RETRY
                except (ConnectionLost, StatusError) as e:
                    log.warning("status of pod %s/%s: %s", self._namespace, self._name, e)
                    if self._wanted is None:
                        self._wanted = status
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, MOST_RETRY)
            self._settled.set()
            self._wakeup.clear()
            await self._wakeup.wait()

    async def _write(self, status: Object) -> None:
        if self._gone or _same(self.known, status):
            return
        patch: dict[str, Any] = {"metadata": {"uid": self._uid}, "status": dict(status)}
        new_ips = {i["ip"] for i in status.get("podIPs") or ()}
        stale = [i["ip"] for i in self.known.get("podIPs") or () if i["ip"] not in new_ips]
        if stale:
            patch["status"]["podIPs"] = [
                *({"$patch": "delete", "ip": ip} for ip in stale),
                *(status.get("podIPs") or ()),
            ]
            if not new_ips:
                patch["status"]["podIP"] = None
        try:
            answer = await self._client.patch(
                PODS,
                self._namespace,
                self._name,
                patch,
                content_type=STRATEGIC_MERGE_PATCH,
                subresource="status",
            )
        except StatusError as e:
            if e.code in (404, 409, 422):
                # Gone, another pod of that name, or refused for good: nobody is left to be told.
                log.warning("status of pod %s/%s is not written: %s", self._namespace, self._name, e.message)
                self._gone = e.code in (404, 409)
                return
            raise
        self.known = answer.get("status") or {}


def _same(known: Object, status: Object) -> bool:
    """Whether everything that `status` says is known already."""
    for key, value in status.items():
        if key == "conditions":
            have = {c["type"]: c for c in known.get("conditions") or ()}
            for condition in value:
                other = have.get(condition["type"])
                if other is None or any(other.get(k) != v for k, v in condition.items()):
                    return False
        elif known.get(key) != value:
            return False
    return True
