"""Where pods reach the API when several servers share a store: each says that it is there, and all see to it that the
endpoints of Service default/kubernetes are those that did.

A server's word is a key that goes by itself unless it is said again. One that is the only one to write to its store has
nobody to agree with.

Upstream: `pkg/controlplane/reconcilers/lease.go`, whose keys, form and times these are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from sampan.api.errors import StatusError
from sampan.apiserver import bootstrap
from sampan.apiserver.config import Config
from sampan.apiserver.records import ROOT, to_json
from sampan.client.types import Client
from sampan.store.types import Conflict, KeyExists, Store, StoreError

log = logging.getLogger(__name__)
LEASES = ROOT + "masterleases/"
SECONDS = 10.0
TTL = 15


class EndpointReconciler:
    """One server's part."""

    def __init__(self, store: Store, client: Client, config: Config) -> None:
        self._store = store
        self._client = client
        self._config = config
        self._key = LEASES + config.advertise_address

    async def addresses(self) -> list[str]:
        """Say that this server is there; all that are. Raises StoreError."""
        own = self._config.advertise_address
        if not self._store.shared:
            return [own]
        ports = [{"port": self._config.advertise_port}]
        subsets = [{"addresses": [{"ip": own}], "ports": ports}]
        value = to_json({"kind": "Endpoints", "apiVersion": "v1", "metadata": {}, "subsets": subsets})
        # Whoever else is at this address says the same.
        with contextlib.suppress(Conflict, KeyExists):
            present = await self._store.get(self._key)
            if present is None:
                await self._store.create(self._key, value, ttl=TTL)
            else:
                await self._store.update(self._key, value, present.revision, ttl=TTL)
        entries = (await self._store.list(LEASES)).entries
        return sorted({own, *(e.key.removeprefix(LEASES) for e in entries)})

    async def run(self) -> None:
        """Until cancelled; for a store that is shared."""
        while True:
            await asyncio.sleep(SECONDS)
            try:
                await bootstrap.ensure_endpoints(self._client, self._config, await self.addresses())
            except (StoreError, StatusError) as e:
                log.warning("the endpoints of the API were not looked after: %s", e)

    async def close(self) -> None:
        """Say no more that this server is there. (Another at the same address says so again in a moment, and always
        counts itself.)"""
        if self._store.shared:
            with contextlib.suppress(StoreError):
                await self._store.delete(self._key)
