"""Puts right what does not fit together: Services and their IPAddresses, Services and the bitmap of node ports.

A crash between two writes leaves an address or a port that nobody has, or a Service of an older release has an address
without an object. Both are looked for at start and every few minutes. What two Services claim is only told, in Events:
somebody must decide which of them is made anew.

Upstream: `pkg/registry/core/service/{ipallocator/controller/repairip.go,portallocator/controller/repair.go}`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

from sampan.api.errors import Object
from sampan.api.objects import parse_time
from sampan.api.resources import IPADDRESSES, SERVICES, Resource
from sampan.apiserver.allocation import ServiceAllocator
from sampan.apiserver.allocation.addresses import FAMILY_LABEL, MANAGER, MANAGER_LABEL, refers_to
from sampan.apiserver.allocation.families import family_of
from sampan.apiserver.allocation.node_ports import Ports
from sampan.apiserver.allocation.types import addresses_of, ports_of
from sampan.apiserver.records import Record, key_of
from sampan.apiserver.watchcache import WatchCache
from sampan.client.events import Recorder
from sampan.store.types import Conflict, KeyExists, Store

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 180.0
GRACE_SECONDS = 60.0
"""How old an address without a Service must be before it is taken for left behind: a request lives no longer."""
LEAK_ROUNDS = 3
"""How often a port must be found without a Service before it is free."""
_SLICE = 200
"""Objects looked at before others get their turn."""


@dataclass(slots=True)
class _Found:
    """What a look at the Services' ports has shown; told once it is stored."""

    told: list[tuple[Object, str, str]] = field(default_factory=list)
    leaks: dict[int, int] = field(default_factory=dict)


class Repair:
    """`addresses_recorder` and `ports_recorder` tell of what was found; they must be run by the owner."""

    def __init__(
        self,
        store: Store,
        cache: WatchCache,
        allocator: ServiceAllocator,
        addresses_recorder: Recorder,
        ports_recorder: Recorder,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._cache = cache
        self._allocator = allocator
        self._addresses_recorder = addresses_recorder
        self._ports_recorder = ports_recorder
        self._clock = clock
        self._leaks: dict[int, int] = {}

    async def run(self) -> None:
        """Every few minutes until cancelled; `once` should have run before."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            try:
                await self.once()
            except Exception:
                log.exception(
                    "addresses and node ports could not be looked after; next try in %d s", INTERVAL_SECONDS
                )

    async def once(self) -> None:
        """One look at everything."""
        await self._services()
        await self._addresses()
        await self._ports()

    async def _each(self, resource: Resource) -> AsyncIterator[Record]:
        """Every object that is still there when its turn comes."""
        shelf = self._cache.shelf(resource)
        for i, record in enumerate([shelf.records[key] for key in shelf.keys]):
            if i % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            if shelf.records.get(record.key) is record:
                yield record

    # ---- every Service has its addresses

    async def _services(self) -> None:
        async for record in self._each(SERVICES):
            service = record.glimpse()
            for ip in addresses_of(service):
                await self._service_address(service, ip)

    async def _service_address(self, service: Object, ip: str) -> None:
        meta = service["metadata"]

        def tell(reason: str, message: str) -> None:
            log.warning("Service %s/%s: %s", meta["namespace"], meta["name"], message)
            self._addresses_recorder.event(service, "Warning", reason, message)

        try:
            address, family = ipaddress.ip_address(ip), family_of(ip)
        except ValueError:
            tell("ClusterIPNotValid", f"Cluster IP {ip} is not a valid IP; please recreate Service")
            return
        name = str(address)
        if not any(r.holds(address) for r in self._allocator.addresses.ranges()):
            tell(
                "ClusterIPOutOfRange",
                f"Cluster IP [{family}]: {name} is not within any configured Service CIDR; please recreate service",
            )
            return
        record = self._cache.record(IPADDRESSES, "", name)
        if record is None:
            if await self._store.get(key_of(IPADDRESSES.storage_path, "", name)) is not None:
                return  # it is only that the cache does not show it yet
            tell("ClusterIPNotAllocated", f"Cluster IP [{family}]: {name} is not allocated; repairing")
            await self._make(name, service)
            return
        held = record.glimpse()
        if not refers_to(held, meta["namespace"], meta["name"]):
            other = self._holder(held)
            if other is not None and name in addresses_of(other):
                tell(
                    "ClusterIPAlreadyAllocated",
                    f"Cluster IP [{family}]:{name} was assigned to multiple services; please recreate service",
                )
                return
            tell(
                "ClusterIPNotAllocated",
                f"the ClusterIP [{family}]: {name} for Service {meta['namespace']}/{meta['name']} has a wrong "
                "reference; repairing",
            )
            await self._remake(record, name, service)
        elif not _labelled(held):
            await self._remake(record, name, service)

    def _holder(self, address: Object) -> Object | None:
        """The Service that an IPAddress says it is of."""
        parent = (address.get("spec") or {}).get("parentRef") or {}
        if parent.get("group") or parent.get("resource") != "services":
            return None
        record = self._cache.record(SERVICES, parent.get("namespace") or "", parent.get("name") or "")
        return record.glimpse() if record is not None else None

    async def _make(self, name: str, service: Object) -> None:
        try:
            await self._allocator.addresses.create(name, service)
        except KeyExists:
            log.info("address %s was taken meanwhile; looked at again the next time", name)

    async def _remake(self, record: Record, name: str, service: Object) -> None:
        if await self._remove(record):
            await self._make(name, service)

    async def _remove(self, record: Record) -> bool:
        try:
            await self._store.delete(record.key, record.revision)
        except Conflict:
            return False  # changed meanwhile: looked at again the next time
        return True

    # ---- every address has its Service

    async def _addresses(self) -> None:
        async for record in self._each(IPADDRESSES):
            address = record.glimpse()
            if (address["metadata"].get("labels") or {}).get(MANAGER_LABEL) == MANAGER:
                await self._address(record, address)

    async def _address(self, record: Record, address: Object) -> None:
        name = record.name
        parent = (address.get("spec") or {}).get("parentRef") or {}
        place = f"{parent.get('namespace', '')}/{parent.get('name', '')}"
        if parent.get("group") or parent.get("resource") != "services":
            reason = "IPAddressNotAllocated"
            what = f"{parent.get('resource', '')} {place}"
            message = f"IPAddress {name} appears to have been modified, not referencing a Service {what}: cleaning up"
        elif (service := self._holder(address)) is None:
            if self._clock() - parse_time(address["metadata"]["creationTimestamp"]) <= GRACE_SECONDS:
                return  # its Service may be on its way
            reason = "IPAddressNotAllocated"
            message = f"IPAddress: {name} for Service {place} appears to have leaked: cleaning up"
        elif name not in addresses_of(service):
            if self._clock() - parse_time(address["metadata"]["creationTimestamp"]) <= GRACE_SECONDS:
                return  # an update of the Service may be on its way
            reason = "IPAddressWrongReference"
            message = f"IPAddress: {name} for Service {place} has a wrong reference; cleaning up"
        else:
            return
        log.warning("%s", message)
        self._addresses_recorder.event(address, "Warning", reason, message)
        await self._remove(record)

    # ---- the bitmap says what the Services say

    async def _ports(self) -> None:
        first_time = await self._allocator.node_ports.read() is None
        found = await self._allocator.node_ports.change(self._look)
        self._leaks = found.leaks
        for service, reason, message in found.told:
            if first_time and reason == "PortNotAllocated":
                continue  # nothing was ever stored: these are Services of before
            log.warning("Service %s/%s: %s", *_place(service), message)
            self._ports_recorder.event(service, "Warning", reason, message)

    def _look(self, stored: Ports) -> _Found:
        """Bring the bitmap to what the Services have; not before `LEAK_ROUNDS` looks is a port free that no Service
        has: its Service may be on its way."""
        found = _Found()
        rebuilt = Ports(stored.first, stored.last)
        for service, port in self._node_ports():
            if not stored.first <= port <= stored.last:
                why = f"Port {port} is not within the port range {stored.first}-{stored.last}; please recreate service"
                found.told.append((service, "PortOutOfRange", why))
            elif port in rebuilt:
                why = f"Port {port} was assigned to multiple services; please recreate service"
                found.told.append((service, "PortAlreadyAllocated", why))
            else:
                rebuilt.take(port)
                if port not in stored:
                    why = f"Port {port} is not allocated; repairing"
                    found.told.append((service, "PortNotAllocated", why))
        for port in stored:
            if port in rebuilt:
                continue
            left = self._leaks.get(port, LEAK_ROUNDS - 1)
            if left:
                found.leaks[port] = left - 1
                rebuilt.take(port)
            else:
                log.warning("the node port %d appears to have leaked: cleaning up", port)
        stored.bits = rebuilt.bits
        return found

    def _node_ports(self) -> Iterator[tuple[Object, int]]:
        shelf = self._cache.shelf(SERVICES)
        for key in shelf.keys:
            service = shelf.records[key].glimpse()
            for port in sorted(ports_of(service)):
                yield service, port


def _place(service: Object) -> tuple[str, str]:
    return service["metadata"]["namespace"], service["metadata"]["name"]


def _labelled(address: Object) -> bool:
    meta = address["metadata"]
    labels = meta.get("labels") or {}
    wanted = {FAMILY_LABEL: family_of(meta["name"]), MANAGER_LABEL: MANAGER}
    return all(labels.get(k) == v for k, v in wanted.items())
