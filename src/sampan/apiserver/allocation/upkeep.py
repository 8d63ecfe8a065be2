"""What looks after addresses and node ports while a server runs: the default range, and the repair."""

from __future__ import annotations

import asyncio

from sampan.apiserver.allocation import ServiceAllocator
from sampan.apiserver.allocation.default_cidr import CONTROLLER, DefaultServiceCIDR
from sampan.apiserver.allocation.repair import Repair
from sampan.apiserver.config import Config
from sampan.apiserver.watchcache import WatchCache
from sampan.client.events import Recorder
from sampan.client.types import Client
from sampan.store.types import Store


class Upkeep:
    """`start` before the first Service is made, `run` from then on."""

    def __init__(
        self, client: Client, store: Store, cache: WatchCache, allocator: ServiceAllocator, config: Config
    ) -> None:
        names = (CONTROLLER, "ipallocator-repair-controller", "portallocator-repair-controller")
        self._recorders = [Recorder(client, name) for name in names]
        told_cidr, told_addresses, told_ports = self._recorders
        self._default = DefaultServiceCIDR(client, cache, told_cidr, config.service_cidrs)
        self._repair = Repair(store, cache, allocator, told_addresses, told_ports)

    async def start(self) -> None:
        """The default range is there, and what a crash left is put right. Raises StatusError, StoreError."""
        await self._default.ensure()
        await self._repair.once()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._default.run(), name="default ServiceCIDR")
            group.create_task(self._repair.run(), name="address repair")
            for recorder in self._recorders:
                group.create_task(recorder.run(), name="events of allocation")
