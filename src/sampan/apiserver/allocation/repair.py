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

import msgspec

from sampan.api.errors import Object
from sampan.api.objects import parse_time
from sampan.api.resources import IPADDRESSES, SERVICES, Resource
from sampan.apiserver.allocation import ServiceAllocator
from sampan.apiserver.allocation.addresses import FAMILY_LABEL, MANAGER, MANAGER_LABEL, Address
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


class _Parent(msgspec.Struct):
    resource: str = ""
    namespace: str = ""
    name: str = ""
    group: str = ""


class _Spec(msgspec.Struct):
    parent: _Parent = msgspec.field(name="parentRef", default_factory=_Parent)


class _Metadata(msgspec.Struct):
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    created: str = msgspec.field(name="creationTimestamp", default="")


class _IPAddress(msgspec.Struct):
    """Of an IPAddress, what is looked at: a whole one takes several times as long to decode."""

    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    spec: _Spec = msgspec.field(default_factory=_Spec)


_ip_address = msgspec.json.Decoder(_IPAddress)


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
        self._with_ports: list[tuple[Record, Object]] = []
        """The Services with node ports, as they were seen a moment ago."""

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
        fitting = await self._services()
        await self._addresses(fitting)
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

    async def _services(self) -> set[str]:
        """Returns the addresses that are as they should be."""
        fitting: set[str] = set()
        self._with_ports.clear()
        async for record in self._each(SERVICES):
            service = record.glimpse()
            if ports_of(service):
                self._with_ports.append((record, service))
            for ip in addresses_of(service):
                if await self._service_address(service, ip):
                    fitting.add(ip)
        return fitting

    async def _service_address(self, service: Object, ip: str) -> bool:
        """Whether all is well with an address of a Service; mends what is not."""
        meta = service["metadata"]

        def tell(reason: str, message: str) -> None:
            log.warning("Service %s/%s: %s", meta["namespace"], meta["name"], message)
            self._addresses_recorder.event(service, "Warning", reason, message)

        try:
            address: Address = ipaddress.ip_address(ip)
        except ValueError:
            tell("ClusterIPNotValid", f"Cluster IP {ip} is not a valid IP; please recreate Service")
            return False
        name, family = str(address), f"IPv{address.version}"
        if not any(r.holds(address) for r in self._allocator.addresses.ranges()):
            tell(
                "ClusterIPOutOfRange",
                f"Cluster IP [{family}]: {name} is not within any configured Service CIDR; please recreate service",
            )
            return False
        record = self._cache.record(IPADDRESSES, "", name)
        if record is None:
            if await self._store.get(key_of(IPADDRESSES.storage_path, "", name)) is not None:
                return False  # it is only that the cache does not show it yet
            tell("ClusterIPNotAllocated", f"Cluster IP [{family}]: {name} is not allocated; repairing")
            await self._make(name, service)
            return False
        held = _ip_address.decode(record.data)
        parent = held.spec.parent
        if parent == _Parent("services", meta["namespace"], meta["name"]):
            if all(held.metadata.labels.get(k) == v for k, v in _labels(family).items()):
                return True
        else:
            other = self._holder(parent)
            if other is not None and name in addresses_of(other):
                tell(
                    "ClusterIPAlreadyAllocated",
                    f"Cluster IP [{family}]:{name} was assigned to multiple services; please recreate service",
                )
                return False
            tell(
                "ClusterIPNotAllocated",
                f"the ClusterIP [{family}]: {name} for Service {meta['namespace']}/{meta['name']} has a wrong "
                "reference; repairing",
            )
        if await self._remove(record):
            await self._make(name, service)
        return False

    def _holder(self, parent: _Parent) -> Object | None:
        """The Service that an IPAddress says it is of."""
        if parent.group or parent.resource != "services":
            return None
        record = self._cache.record(SERVICES, parent.namespace, parent.name)
        return record.glimpse() if record is not None else None

    async def _make(self, name: str, service: Object) -> None:
        try:
            await self._allocator.addresses.create(name, service)
        except KeyExists:
            log.info("address %s was taken meanwhile; looked at again the next time", name)

    async def _remove(self, record: Record) -> bool:
        try:
            await self._store.delete(record.key, record.revision)
        except Conflict:
            return False  # changed meanwhile: looked at again the next time
        return True

    # ---- every address has its Service

    async def _addresses(self, fitting: set[str]) -> None:
        async for record in self._each(IPADDRESSES):
            if record.name in fitting:
                continue
            address = _ip_address.decode(record.data)
            if address.metadata.labels.get(MANAGER_LABEL) == MANAGER:
                await self._address(record, address)

    async def _address(self, record: Record, address: _IPAddress) -> None:
        name, parent = record.name, address.spec.parent
        place = f"{parent.namespace}/{parent.name}"
        if parent.group or parent.resource != "services":
            reason = "IPAddressNotAllocated"
            what = f"{parent.resource} {place}"
            message = f"IPAddress {name} appears to have been modified, not referencing a Service {what}: cleaning up"
        elif (service := self._holder(parent)) is None:
            if self._young(address):
                return  # its Service may be on its way
            reason = "IPAddressNotAllocated"
            message = f"IPAddress: {name} for Service {place} appears to have leaked: cleaning up"
        elif name not in addresses_of(service):
            if self._young(address):
                return  # an update of the Service may be on its way
            reason = "IPAddressWrongReference"
            message = f"IPAddress: {name} for Service {place} has a wrong reference; cleaning up"
        else:
            return
        log.warning("%s", message)
        self._addresses_recorder.event(record.glimpse(), "Warning", reason, message)
        await self._remove(record)

    def _young(self, address: _IPAddress) -> bool:
        return self._clock() - parse_time(address.metadata.created) <= GRACE_SECONDS

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
        records = self._cache.shelf(SERVICES).records
        for seen, service in self._with_ports:
            present = records.get(seen.key)
            if present is not None and present is not seen:
                service = present.glimpse()
            if present is not None:
                for port in sorted(ports_of(service)):
                    yield service, port


def _place(service: Object) -> tuple[str, str]:
    return service["metadata"]["namespace"], service["metadata"]["name"]


def _labels(family: str) -> dict[str, str]:
    return {FAMILY_LABEL: family, MANAGER_LABEL: MANAGER}
