"""Addresses and node ports of Services: who has which, and who gets the next.

What is allocated is what the stored Services say: `rebuild` reads it from them at start, and each write takes and
gives back within an `Allocation` that ends with the write:

    with allocator.allocate(new, old, dry_run=False):
        ...store `new`...

Leaving the block well makes it final: what `old` had and `new` has not is free. Leaving it by an error gives back what
was taken.

Upstream: `pkg/registry/core/service/{storage/alloc.go,ipallocator,portallocator}`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeVar

from sampan.api import errors
from sampan.api.errors import FieldError, Object
from sampan.api.service_fields import (
    needs_cluster_ip,
    needs_health_check_node_port,
    needs_node_port,
    type_of,
)
from sampan.apiserver.config import Config

NONE = "None"
_TRIES = 32
Owner = Hashable
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
T = TypeVar("T", bound=Hashable)


class Taken(Exception):
    """Why a wanted address or port cannot be had."""


class Exhausted(Exception):
    """No address or port is left."""


class _Range(Generic[T]):
    """Numbered places and their owners. The first `band` places are left to those who ask for one by name, until the
    others run out."""

    def __init__(self, size: int, band: int, name: Callable[[int], T]) -> None:
        self._size = size
        self._band = band
        self._name = name
        self.owners: dict[T, Owner] = {}

    def take(self, place: T, owner: Owner) -> bool:
        """Take one place; False if `owner` has it already. Raises Taken."""
        present = self.owners.get(place)
        if present is None:
            self.owners[place] = owner
            return True
        if present != owner:
            raise Taken("already allocated")
        return False

    def take_next(self, owner: Owner) -> T:
        """Take any free place. Raises Exhausted."""
        for first, last in ((self._band, self._size), (0, self._band)):
            if first == last:
                continue
            for _ in range(_TRIES):
                place = self._name(random.randrange(first, last))
                if place not in self.owners:
                    self.owners[place] = owner
                    return place
            for number in range(first, last):
                place = self._name(number)
                if place not in self.owners:
                    self.owners[place] = owner
                    return place
        raise Exhausted("range is full")

    def free(self, place: T, owner: Owner) -> None:
        if self.owners.get(place) == owner:
            del self.owners[place]


@dataclass(frozen=True, slots=True)
class Clash:
    """Two stored Services with one address or port, found by `rebuild`; the older one keeps it."""

    namespace: str
    name: str
    uid: str
    reason: str
    """The event's reason: ClusterIPAlreadyAllocated, ClusterIPOutOfRange, PortAlreadyAllocated."""
    message: str


class ServiceAllocator:
    """The addresses and node ports of one cluster. Not shared between processes: one server writes Services."""

    def __init__(self, config: Config) -> None:
        self._network = ipaddress.ip_network(config.service_cidr)
        self._family = f"IPv{self._network.version}"
        self._first_port, self._last_port = config.node_port_range
        base = int(self._network.network_address) + 1
        make = type(self._network.network_address)
        # Neither the network's own address nor the broadcast one is handed out.
        size = max(self._network.num_addresses - 2, 0)
        ports = self._last_port - self._first_port + 1
        self._addresses: _Range[str] = _Range(size, _band(size, 16, 256), lambda n: str(make(base + n)))
        self._ports: _Range[int] = _Range(ports, _band(ports, 32, 128), lambda n: self._first_port + n)

    # ---- what the registry calls

    def rebuild(self, services: Iterable[Object]) -> list[Clash]:
        """Start anew from what is stored; returns what does not fit together, for events."""
        self._addresses.owners.clear()
        self._ports.owners.clear()
        clashes: list[Clash] = []
        for service in sorted(services, key=lambda s: s["metadata"].get("creationTimestamp") or ""):
            meta, owner = service["metadata"], _owner(service)

            def clash(reason: str, message: str, meta: Object = meta) -> None:
                found = Clash(meta.get("namespace", ""), meta["name"], meta.get("uid", ""), reason, message)
                clashes.append(found)

            for ip in _cluster_ips(service):
                if ipaddress.ip_address(ip) not in self._network:
                    text = f"Cluster IP {ip} is not within the configured Service CIDR {self._network}; please recreate service"
                    clash("ClusterIPOutOfRange", text)
                    continue
                try:
                    self._addresses.take(ip, owner)
                except Taken:
                    text = f"Cluster IP {ip} was assigned to multiple services; please recreate service"
                    clash("ClusterIPAlreadyAllocated", text)
            for port in _node_ports(service):
                try:
                    self._ports.take(port, owner)
                except Taken:
                    text = f"Node port {port} was assigned to multiple services; please recreate service"
                    clash("PortAlreadyAllocated", text)
        return clashes

    def allocate(self, obj: Object, old: Object | None = None, *, dry_run: bool = False) -> Allocation:
        """Complete `obj` (defaulted and validated, on update with what it keeps of `old`) with address families,
        addresses and node ports. Raises StatusError 422 naming all that cannot be had, 500 when a range is full; then
        nothing has been taken."""
        allocation = Allocation(self, obj, old)
        problems: list[FieldError] = []
        try:
            self._families(obj, old, problems)
            if not problems:
                self._take_addresses(obj, allocation, problems)
            self._take_ports(obj, old, allocation, problems)
            if problems:
                raise errors.invalid("Service", obj["metadata"].get("name", ""), problems)
        except BaseException:
            allocation.rollback()
            raise
        if dry_run:
            allocation.rollback()
        return allocation

    def release(self, obj: Object) -> None:
        """Free all that a deleted Service had."""
        owner = _owner(obj)
        for ip in _cluster_ips(obj):
            self._addresses.free(ip, owner)
        for port in _node_ports(obj):
            self._ports.free(port, owner)

    # ---- families

    def _families(self, obj: Object, old: Object | None, problems: list[FieldError]) -> None:
        spec = obj["spec"]
        if type_of(obj) == "ExternalName":
            return
        bare = _headless(obj) and not spec.get("selector")
        if not spec.get("ipFamilyPolicy"):
            kept = (old or {}).get("spec", {}).get("ipFamilyPolicy")
            spec["ipFamilyPolicy"] = kept or ("RequireDualStack" if bare else "SingleStack")
        policy = spec["ipFamilyPolicy"]
        families = list(spec.get("ipFamilies") or ())
        given = list(spec.get("clusterIPs") or ())
        if policy == "SingleStack":
            both = "must be 'RequireDualStack' or 'PreferDualStack' when multiple {} are specified"
            for values, what in ((given, "cluster IPs"), (families, "IP families")):
                if len(values) > 1:
                    problems.append(errors.invalid_value("spec.ipFamilyPolicy", policy, both.format(what)))
        for i, ip in enumerate(given):
            if ip == NONE or i < len(families):
                continue
            family = f"IPv{ipaddress.ip_address(ip).version}"
            if family == self._family:
                families.append(family)
            else:
                why = f"{family} is not configured on this cluster"
                problems.append(errors.invalid_value(f"spec.clusterIPs[{i}]", given, why))
        if problems:
            return
        if bare:
            # Whoever keeps its endpoints by hand may have any; the cluster's own range does not matter.
            families = families or [self._family]
            if len(families) < 2 and policy != "SingleStack":
                families.append("IPv6" if families[0] == "IPv4" else "IPv4")
            spec["ipFamilies"] = families
            return
        if policy == "RequireDualStack":
            why = "this cluster is not configured for dual-stack services"
            problems.append(errors.invalid_value("spec.ipFamilyPolicy", policy, why))
        problems.extend(
            errors.invalid_value(f"spec.ipFamilies[{i}]", family, "not configured on this cluster")
            for i, family in enumerate(families)
            if family != self._family
        )
        if not problems:
            spec["ipFamilies"] = families or [self._family]

    # ---- addresses

    def _take_addresses(self, obj: Object, allocation: Allocation, problems: list[FieldError]) -> None:
        spec = obj["spec"]
        if not needs_cluster_ip(obj):
            return
        if _headless(obj):
            spec["clusterIP"], spec["clusterIPs"] = NONE, [NONE]
            return
        given = [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP") or ""] if ip]
        if not given:
            try:
                ip = self._addresses.take_next(allocation.owner)
            except Exhausted as e:
                raise errors.internal(f"failed to allocate a serviceIP: {e}") from e
            allocation.addresses.append(ip)
            spec["clusterIP"], spec["clusterIPs"] = ip, [ip]
            return
        for ip in given:
            try:
                self._take_address(ip, allocation)
            except Taken as e:
                why = f"failed to allocate IP {ip}: {e}"
                problems.append(errors.invalid_value("spec.clusterIPs", given, why))
        spec["clusterIP"], spec["clusterIPs"] = given[0], given

    def _take_address(self, ip: str, allocation: Allocation) -> None:
        address: Address = ipaddress.ip_address(ip)
        network = self._network
        ends = (network.network_address, network.broadcast_address)
        if address not in network or address in ends:
            raise Taken(
                f"the provided IP ({ip}) is not in the valid range. The range of valid IPs is {network}"
            )
        try:
            if self._addresses.take(str(address), allocation.owner):
                allocation.addresses.append(str(address))
        except Taken as e:
            raise Taken(f"provided IP is {e}") from e

    # ---- node ports

    def _take_ports(
        self, obj: Object, old: Object | None, allocation: Allocation, problems: list[FieldError]
    ) -> None:
        spec = obj["spec"]
        if type_of(obj) in ("NodePort", "LoadBalancer"):
            self._take_service_ports(spec.get("ports") or [], needs_node_port(obj), allocation, problems)
        if not needs_health_check_node_port(obj):
            return
        wanted = spec.get("healthCheckNodePort")
        if not wanted:
            spec["healthCheckNodePort"] = self._next_port(allocation)
            return
        try:
            self._take_port(wanted, allocation)
        except Taken as e:
            why = f"failed to allocate requested HealthCheck NodePort {wanted}: {e}"
            problems.append(errors.invalid_value("spec.healthCheckNodePort", wanted, why))

    def _take_service_ports(
        self, ports: list[Object], automatic: bool, allocation: Allocation, problems: list[FieldError]
    ) -> None:
        # One service port offered over TCP and UDP gets one node port for both.
        shared: dict[int, int] = {}
        claimed: dict[int, int] = {}
        for i, port in enumerate(ports):
            wanted, number = port.get("nodePort"), port["port"]
            if not wanted:
                continue
            path = f"spec.ports[{i}].nodePort"
            try:
                if claimed.get(wanted, number) != number and wanted in allocation.ports:
                    raise Taken("provided port is already allocated")
                self._take_port(wanted, allocation)
            except Taken as e:
                problems.append(errors.invalid_value(path, wanted, str(e)))
            claimed.setdefault(wanted, number)
            shared.setdefault(number, wanted)
        if not automatic or problems:
            return
        for port in ports:
            if not port.get("nodePort"):
                number = port["port"]
                if number not in shared:
                    shared[number] = self._next_port(allocation)
                port["nodePort"] = shared[number]

    def _next_port(self, allocation: Allocation) -> int:
        try:
            port = self._ports.take_next(allocation.owner)
        except Exhausted as e:
            raise errors.internal(f"failed to allocate a nodePort: {e}") from e
        allocation.ports.append(port)
        return port

    def _take_port(self, port: int, allocation: Allocation) -> None:
        if not self._first_port <= port <= self._last_port:
            valid = f"{self._first_port}-{self._last_port}"
            raise Taken(f"provided port is not in the valid range. The range of valid ports is {valid}")
        try:
            if self._ports.take(port, allocation.owner):
                allocation.ports.append(port)
        except Taken as e:
            raise Taken(f"provided port is {e}") from e

    # ---- the ends of an allocation

    def _give_back(self, allocation: Allocation) -> None:
        for ip in allocation.addresses:
            self._addresses.free(ip, allocation.owner)
        for port in allocation.ports:
            self._ports.free(port, allocation.owner)

    def _let_go(self, old: Object, new: Object) -> None:
        owner = _owner(old)
        for ip in _cluster_ips(old) - _cluster_ips(new):
            self._addresses.free(ip, owner)
        for port in _node_ports(old) - _node_ports(new):
            self._ports.free(port, owner)


class Allocation:
    """What one write has taken. Ends once, by `commit` or `rollback`; a second end does nothing."""

    def __init__(self, allocator: ServiceAllocator, obj: Object, old: Object | None) -> None:
        self._allocator = allocator
        self._obj = obj
        self._old = old
        self._ended = False
        self.owner = _owner(old if old is not None else obj)
        self.addresses: list[str] = []
        """Newly taken, as `ports`."""
        self.ports: list[int] = []

    def commit(self) -> None:
        """The write has succeeded: free what `old` had and the new object has not."""
        if not self._ended and self._old is not None:
            self._allocator._let_go(self._old, self._obj)
        self._ended = True

    def rollback(self) -> None:
        """The write has failed: give back what was taken for it."""
        if not self._ended:
            self._allocator._give_back(self)
        self._ended = True

    def __enter__(self) -> Allocation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        elif not issubclass(kind, asyncio.CancelledError):
            self.rollback()
        # A cancelled write may yet have been stored. An address held for nobody until the next start is the lesser
        # evil beside one given to two.


def _owner(service: Object) -> Owner:
    meta = service["metadata"]
    return meta.get("uid") or (meta.get("namespace", ""), meta.get("name", ""))


def _headless(service: Object) -> bool:
    spec = service["spec"]
    return spec.get("clusterIP") == NONE or NONE in (spec.get("clusterIPs") or ())


def _cluster_ips(service: Object) -> set[str]:
    spec = service["spec"]
    given = spec.get("clusterIPs") or [spec.get("clusterIP") or ""]
    return {ip for ip in given if ip and ip != NONE} if needs_cluster_ip(service) else set()


def _node_ports(service: Object) -> set[int]:
    spec = service["spec"]
    if type_of(service) not in ("NodePort", "LoadBalancer"):
        return set()
    ports = {p["nodePort"] for p in spec.get("ports") or () if p.get("nodePort")}
    if needs_health_check_node_port(service) and spec.get("healthCheckNodePort"):
        ports.add(spec["healthCheckNodePort"])
    return ports


def _band(size: int, step: int, most: int) -> int:
    """How many places at the low end are kept for explicit wishes: a share of the whole, 16 at least and `most` at
    most; none in a range too small for it."""
    return 0 if size <= 16 else min(max(16, size // step), most)
