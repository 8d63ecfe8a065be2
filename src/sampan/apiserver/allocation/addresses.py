"""Cluster addresses: an address is taken while there is an IPAddress object of its name, whichever server made it.

The store decides who gets an address: creating the object fails where somebody else was quicker. The cache only says
where it is worth trying. Ranges are those of the ServiceCIDRs that are Ready and not on their way out; the oldest is
used up before the next.

Upstream: `pkg/registry/core/service/ipallocator/{ipallocator,cidrallocator}.go`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import logging
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass

from sampan.api.errors import Object
from sampan.api.objects import condition, new_uid, now
from sampan.api.resources import IPADDRESSES, SERVICECIDRS
from sampan.apiserver import preparation
from sampan.apiserver.allocation.types import Exhausted, Taken, band
from sampan.apiserver.preparation import Writing
from sampan.apiserver.records import from_json, key_of
from sampan.apiserver.registry import Registry
from sampan.apiserver.types import LOOPBACK
from sampan.store.types import Conflict, KeyExists, StoreError

log = logging.getLogger(__name__)

MANAGER = "ipallocator.k8s.io"
FAMILY_LABEL = "ipaddress.kubernetes.io/ip-family"
MANAGER_LABEL = "ipaddress.kubernetes.io/managed-by"
_TRIES = 32
_SLICE = 4096
"""Addresses looked at before others get their turn."""
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class AddressRange:
    """One range of one ServiceCIDR. Neither its network address nor, of IPv4, its broadcast address is handed out."""

    network: Network
    ready: bool

    @property
    def family(self) -> str:
        return f"IPv{self.network.version}"

    def holds(self, address: Address) -> bool:
        if address not in self.network or address == self.network.network_address:
            return False
        return self.network.version == 6 or address != self.network.broadcast_address

    def bands(self) -> list[tuple[int, int]]:
        """First and last address (as numbers, the last one excluded) of what is handed out, in the order of
        preference: the low end is left to those who ask for an address by name."""
        first = int(self.network.network_address) + 1
        end = int(self.network.broadcast_address) + (self.network.version == 6)
        middle = first + band(end - first, 16, 256)
        return [(a, b) for a, b in ((middle, end), (first, middle)) if a < b]

    def name(self, number: int) -> str:
        return str(type(self.network.network_address)(number))


def ranges_of(cidr: Object) -> list[AddressRange]:
    """The ranges of a ServiceCIDR. Without a condition it counts as Ready: its controller may not have seen it yet."""
    told = condition(cidr, "Ready")
    ready = told is None or told.get("status") == "True"
    ready = ready and not cidr["metadata"].get("deletionTimestamp")
    return [AddressRange(ipaddress.ip_network(c), ready) for c in cidr["spec"].get("cidrs") or ()]


def reference(service: Object) -> Object:
    """The `parentRef` of a Service's address."""
    meta = service["metadata"]
    return {"resource": "services", "namespace": meta.get("namespace", ""), "name": meta["name"]}


@functools.cache
def _labels(family: str) -> Object:
    return {FAMILY_LABEL: family, MANAGER_LABEL: MANAGER}


@functools.cache
def _ownership() -> Object:
    """What `managedFields` says of every IPAddress alike: found once, by the way that all objects go."""
    service = {"metadata": {"namespace": "default", "name": "any"}}
    obj: Object = {"metadata": {"labels": _labels("IPv4")}, "spec": {"parentRef": reference(service)}}
    preparation.begin_create(IPADDRESSES, obj, Writing(LOOPBACK, "kube-apiserver"))
    return dict(obj["metadata"]["managedFields"][0])


def refers_to(address: Object, namespace: str, name: str) -> bool:
    parent = (address.get("spec") or {}).get("parentRef") or {}
    place = (parent.get("group") or "", parent.get("resource"), parent.get("namespace"), parent.get("name"))
    return place == ("", "services", namespace, name)


class ClusterAddresses:
    """Takes and frees addresses for Services."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._cache = registry.cache
        self._ranges: list[AddressRange] | None = None
        self._cache.on_change(SERVICECIDRS, self._forget_ranges)

    def _forget_ranges(self, old: Object | None, new: Object | None) -> None:
        self._ranges = None

    def ranges(self) -> list[AddressRange]:
        """All ranges, those of the oldest ServiceCIDR first."""
        if self._ranges is None:
            cidrs = sorted(
                self._cache.list(SERVICECIDRS),
                key=lambda c: (c["metadata"].get("creationTimestamp") or "", c["metadata"]["name"]),
            )
            self._ranges = [r for c in cidrs for r in ranges_of(c)]
        return self._ranges

    # ---- taking

    def check(self, ip: str) -> str:
        """Whether `ip` could be had, as far as this server knows; its canonical form. Raises Taken."""
        address = ipaddress.ip_address(ip)
        if not any(r.ready and r.holds(address) for r in self.ranges()):
            raise Taken("the provided network does not match the current range")
        name = str(address)
        if self._present(name):
            raise Taken("provided IP is already allocated")
        return name

    async def take(self, ip: str, service: Object) -> str:
        """Take one address for a Service; its canonical form. Raises Taken."""
        address = ipaddress.ip_address(ip)
        if not any(r.ready and r.holds(address) for r in self.ranges()):
            raise Taken("the provided network does not match the current range")
        try:
            await self.create(str(address), service)
        except KeyExists:
            raise Taken("provided IP is already allocated") from None
        return str(address)

    async def take_next(self, family: str, service: Object) -> str:
        """Take any free address for a Service. Raises Exhausted."""
        async for name in self._free(family):
            try:
                await self.create(name, service)
            except KeyExists:
                continue  # another server was quicker, or another request of ours
            return name
        raise Exhausted("range is full")

    async def next_free(self, family: str) -> str:
        """An address that `take_next` might give. Raises Exhausted."""
        async for name in self._free(family):
            return name
        raise Exhausted("range is full")

    async def _free(self, family: str) -> AsyncIterator[str]:
        for place in self.ranges():
            if not place.ready or place.family != family:
                continue
            for first, end in place.bands():
                for _ in range(_TRIES):
                    name = place.name(random.randrange(first, end))
                    if not self._present(name):
                        yield name
                start = random.randrange(first, end)
                for i in range(end - first):
                    if i % _SLICE == _SLICE - 1:
                        await asyncio.sleep(0)
                    name = place.name(first + (start - first + i) % (end - first))
                    if not self._present(name):
                        yield name

    def _present(self, name: str) -> bool:
        return self._cache.record(IPADDRESSES, "", name) is not None

    async def create(self, name: str, service: Object) -> None:
        """Make the IPAddress of a Service. Raises KeyExists."""
        created = now()
        obj: Object = {
            "metadata": {
                "name": name,
                "uid": new_uid(),
                "creationTimestamp": created,
                "labels": _labels("IPv6" if ":" in name else "IPv4"),
                "managedFields": [{**_ownership(), "time": created}],
            },
            "spec": {"parentRef": reference(service)},
        }
        await self._registry.put_new(IPADDRESSES, obj, dry_run=False)

    # ---- freeing

    async def free(self, name: str, service: Object) -> None:
        """Remove the IPAddress of a Service, unless it is another's. What fails is left to the repair."""
        meta = service["metadata"]
        namespace, owner = meta.get("namespace", ""), meta["name"]
        record = self._cache.record(IPADDRESSES, "", name)
        try:
            if record is not None and refers_to(record.obj, namespace, owner):
                with contextlib.suppress(Conflict):
                    await self._registry.store.delete(record.key, record.revision)
                    return
            while not await self._free_stored(key_of(IPADDRESSES.storage_path, "", name), namespace, owner):
                pass
        except StoreError as e:
            log.warning("address %s of Service %s/%s is not freed yet: %s", name, namespace, owner, e)

    async def _free_stored(self, key: str, namespace: str, owner: str) -> bool:
        """The same for what the cache does not show yet: another server wrote it, or we a moment ago. False: try again."""
        store = self._registry.store
        entry = await store.get(key)
        if entry is None or not refers_to(from_json(entry.value), namespace, owner):
            return True
        try:
            await store.delete(key, entry.revision)
        except Conflict:
            return False
        return True
