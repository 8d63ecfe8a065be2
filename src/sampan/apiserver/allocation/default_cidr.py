"""The ServiceCIDR `kubernetes`: made from the server's own settings at start, and again whenever it is gone.

Upstream: `pkg/controlplane/controller/defaultservicecidr`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from sampan.api.errors import Object, StatusError
from sampan.api.objects import condition, now
from sampan.api.resources import SERVICECIDRS
from sampan.apiserver.watchcache import WatchCache
from sampan.client.events import Recorder
from sampan.client.types import STRATEGIC_MERGE_PATCH, Client

log = logging.getLogger(__name__)

NAME = "kubernetes"
CONTROLLER = "kubernetes-service-cidr-controller"


class DefaultServiceCIDR:
    """`recorder` must be run by the owner."""

    def __init__(self, client: Client, cache: WatchCache, recorder: Recorder, cidrs: Sequence[str]) -> None:
        self._client = client
        self._cache = cache
        self._recorder = recorder
        self._own = list(cidrs)
        self._gone = asyncio.Event()
        cache.on_change(SERVICECIDRS, self._changed)

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is None and old is not None and old["metadata"]["name"] == NAME:
            self._gone.set()

    async def run(self) -> None:
        """Make it anew when it goes, until cancelled."""
        while True:
            await self._gone.wait()
            self._gone.clear()
            try:
                await self.ensure()
            except StatusError:
                log.exception("the default ServiceCIDR could not be made")

    async def ensure(self) -> None:
        """Make it where it is missing. One of other ranges stays as it is, and is told of. Raises StatusError."""
        present = self._cache.get(SERVICECIDRS, "", NAME)
        if present is None:
            wanted: Object = {
                "apiVersion": SERVICECIDRS.api_version,
                "kind": SERVICECIDRS.kind,
                "metadata": {"name": NAME},
                "spec": {"cidrs": self._own},
            }
            try:
                present = await self._client.create(SERVICECIDRS, wanted)
            except StatusError as e:
                if e.reason != "AlreadyExists":
                    raise
                present = await self._client.get(SERVICECIDRS, "", NAME)
        if present["metadata"].get("deletionTimestamp"):
            return
        cidrs = present["spec"].get("cidrs") or []
        if cidrs != self._own:
            # Upstream prints lists in Go's way.
            found, own = (f"[{' '.join(c)}]" for c in (cidrs, self._own))
            message = (
                f"The default ServiceCIDR {found} does not match the controller flag configurations {own}"
            )
            log.warning("%s", message)
            self._recorder.event(present, "Warning", "KubernetesDefaultServiceCIDRInconsistent", message)
            return
        ready = condition(present, "Ready")
        if ready is not None and ready.get("status") == "False":
            message = f"Configuration matches, but {ready.get('message', '')}"
            self._recorder.event(present, "Warning", ready.get("reason") or "NotReady", message)
        elif ready is None or ready.get("status") != "True":
            await self._set_ready()

    async def _set_ready(self) -> None:
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "",
            "message": "Kubernetes default Service CIDR is ready",
            "lastTransitionTime": now(),
        }
        await self._client.patch(
            SERVICECIDRS,
            "",
            NAME,
            {"status": {"conditions": [ready]}},
            content_type=STRATEGIC_MERGE_PATCH,
            subresource="status",
            field_manager=CONTROLLER,
        )
