"""Addresses and node ports of Services: who has which, and who gets the next.

The store says who has what: IPAddress objects (`addresses`) and the bitmap of node ports (`node_ports`), which several
API servers share. A write takes what it needs before, and gives back after it:

    async with allocator.allocated(new, old, dry_run=False):
        ...store `new`...

Leaving the block well makes it final: what `old` had and `new` has not is free. Leaving it by an error gives back what
was taken. What is left behind by a crash in between is put right by `repair`.

Upstream: `pkg/registry/core/service/{storage/alloc.go,ipallocator,portallocator}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from sampan.api import errors
from sampan.api.errors import FieldError, Object, StatusError
from sampan.api.service_fields import (
    needs_cluster_ip,
    needs_health_check_node_port,
    needs_node_port,
    type_of,
)
from sampan.apiserver.allocation import families
from sampan.apiserver.allocation.addresses import ClusterAddresses
from sampan.apiserver.allocation.node_ports import NodePorts, Ports
from sampan.apiserver.allocation.types import (
    NONE,
    Exhausted,
    Holding,
    Taken,
    addresses_of,
    canonical,
    headless,
    holding,
    ports_of,
)
from sampan.apiserver.config import Config
from sampan.apiserver.registry import Registry, translated
from sampan.store.types import StoreError

log = logging.getLogger(__name__)


class _Refused(Exception):
    """Node ports that cannot be had."""

    def __init__(self, problems: Sequence[FieldError]) -> None:
        super().__init__(problems)
        self.problems = problems


@dataclass(slots=True)
class _Assignment:
    """Which node ports a Service gets: one for each of its ports (0 for none), its health check's, and which are new."""

    ports: list[int] = field(default_factory=list)
    health: int = 0
    taken: set[int] = field(default_factory=set)


class ServiceAllocator:
    """The addresses and node ports of one cluster, as one of its API servers takes them."""

    def __init__(self, registry: Registry, config: Config) -> None:
        self._families = [f"IPv{ipaddress.ip_network(c).version}" for c in config.service_cidrs]
        self.addresses = ClusterAddresses(registry)
        self.node_ports = NodePorts(registry.store, *config.node_port_range)

    async def close(self) -> None:
        await self.node_ports.close()

    @contextlib.asynccontextmanager
    async def allocated(
        self, obj: Object, old: Object | None = None, *, dry_run: bool = False
    ) -> AsyncIterator[None]:
        """Complete `obj` (defaulted and validated, on update with what it keeps of `old`) with address families,
        addresses and node ports, which it keeps if the block succeeds. A dry run takes nothing.

        Raises StatusError 422 naming all that cannot be had, 500 when a range is full; then nothing has been taken.
        """
        taken = Holding()
        try:
            await self._complete(obj, old, taken, dry_run)
            yield
        except asyncio.CancelledError:
            # The write may yet have been stored. An address held for nobody until the repair finds it is the lesser
            # evil beside one given to two.
            raise
        except BaseException as e:
            if not (isinstance(e, StatusError) and e.code == 503):  # then, too, nobody knows what was stored
                await self._give_back(taken, obj)
            raise
        if old is not None and not dry_run:
            await self._give_back(holding(old) - holding(obj), old)

    async def release(self, obj: Object) -> None:
        """Free all that a deleted Service had."""
        await self._give_back(holding(obj), obj)

    async def _give_back(self, what: Holding, service: Object) -> None:
        steps = [self.addresses.free(a, service) for a in what.addresses]
        if what.ports:
            steps.append(self._free_ports(what.ports))
        if len(steps) == 1:
            await steps[0]
        elif steps:
            await asyncio.gather(*steps)

    async def _free_ports(self, numbers: set[int]) -> None:
        def free(ports: Ports) -> None:
            for port in numbers:
                ports.free(port)

        try:
            await self.node_ports.change(free)
        except StoreError as e:
            log.warning("node ports %s are not freed yet: %s", sorted(numbers), e)

    async def _complete(self, obj: Object, old: Object | None, taken: Holding, dry_run: bool) -> None:
        problems = families.choose(obj, old, self._families)
        # With a problem known already the rest is only looked at, so that all problems are told at once.
        looking = dry_run or bool(problems)
        ports: asyncio.Task[list[FieldError]] | None = None
        if type_of(obj) in ("NodePort", "LoadBalancer"):
            # Beside the addresses: one commit for both.
            ports = asyncio.create_task(self._take_ports(obj, old, taken, looking), name="node ports")
        try:
            if needs_cluster_ip(obj) and not problems:
                problems += await self._take_addresses(obj, old, taken, dry_run)
        finally:
            if ports is not None:
                problems += await ports
        if problems:
            raise errors.invalid("Service", obj["metadata"].get("name", ""), problems)

    # ---- addresses

    async def _take_addresses(
        self, obj: Object, old: Object | None, taken: Holding, dry_run: bool
    ) -> list[FieldError]:
        spec = obj["spec"]
        if headless(obj):
            spec["clusterIP"], spec["clusterIPs"] = NONE, [NONE]
            return []
        given = [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP") or ""] if ip]
        own = addresses_of(old) if old is not None else set()
        problems: list[FieldError] = []
        for ip in given:
            if canonical(ip) in own:
                continue
            try:
                if dry_run:
                    self.addresses.check(ip)
                else:
                    with translated():
                        taken.addresses.add(await self.addresses.take(ip, obj))
            except Taken as e:
                why = f"failed to allocate IP {ip}: {e}"
                problems.append(errors.invalid_value("spec.clusterIPs", given, why))
        if problems:
            return problems
        fresh = [await self._next(f, obj, taken, dry_run) for f in spec["ipFamilies"][len(given) :]]
        spec["clusterIPs"] = [*given, *fresh]
        spec["clusterIP"] = spec["clusterIPs"][0]
        return []

    async def _next(self, family: str, obj: Object, taken: Holding, dry_run: bool) -> str:
        """Any free address of a family. Raises StatusError 500 when there is none."""
        try:
            if dry_run:
                return await self.addresses.next_free(family)
            with translated():
                ip = await self.addresses.take_next(family, obj)
        except Exhausted as e:
            raise errors.internal(f"failed to allocate a serviceIP: {e}") from e
        taken.addresses.add(ip)
        return ip

    # ---- node ports

    async def _take_ports(
        self, obj: Object, old: Object | None, taken: Holding, looking: bool
    ) -> list[FieldError]:
        own = ports_of(old) if old is not None else set()

        def decide(ports: Ports) -> _Assignment:
            return _assign(obj, own, ports)

        try:
            if looking or _settled(obj, own):
                found = decide(await self.node_ports.read() or self.node_ports.none())
            else:
                with translated():
                    found = await self.node_ports.change(decide)
        except _Refused as e:
            return list(e.problems)
        except Exhausted as e:
            raise errors.internal(f"failed to allocate a nodePort: {e}") from e
        if not looking:
            taken.ports |= found.taken
        spec = obj["spec"]
        for port, number in zip(spec.get("ports") or (), found.ports, strict=True):
            if number:
                port["nodePort"] = number
        if found.health:
            spec["healthCheckNodePort"] = found.health
        return []


def _settled(obj: Object, own: set[int]) -> bool:
    """Whether a Service needs no node port that it has not already (the usual update)."""
    spec = obj["spec"]
    wanted = [p.get("nodePort") for p in spec.get("ports") or ()]
    if needs_health_check_node_port(obj):
        wanted.append(spec.get("healthCheckNodePort"))
    automatic = needs_node_port(obj)
    return all(w in own if w else not automatic for w in wanted)


def _assign(obj: Object, own: set[int], ports: Ports) -> _Assignment:
    """Take the node ports that a Service asks for and needs. `own` are those that it has. Raises _Refused, Exhausted."""
    spec = obj["spec"]
    made = _Assignment()
    problems: list[FieldError] = []

    def claim(port: int) -> None:
        if port not in own and port not in made.taken:
            ports.take(port)
            made.taken.add(port)

    def fresh() -> int:
        port = ports.take_next()
        made.taken.add(port)
        return port

    # One service port offered over TCP and UDP gets one node port for both.
    shared: dict[int, int] = {}
    claimed: dict[int, int] = {}
    for i, port in enumerate(spec.get("ports") or ()):
        wanted, number = port.get("nodePort"), port["port"]
        if not wanted:
            continue
        try:
            if claimed.get(wanted, number) != number and wanted in made.taken:
                raise Taken("provided port is already allocated")
            claim(wanted)
        except Taken as e:
            problems.append(errors.invalid_value(f"spec.ports[{i}].nodePort", wanted, str(e)))
        claimed.setdefault(wanted, number)
        shared.setdefault(number, wanted)
    automatic = needs_node_port(obj) and not problems
    for port in spec.get("ports") or ():
        wanted, number = port.get("nodePort") or 0, port["port"]
        if not wanted and automatic:
            if number not in shared:
                shared[number] = fresh()
            wanted = shared[number]
        made.ports.append(wanted)
    if needs_health_check_node_port(obj):
        health = spec.get("healthCheckNodePort")
        try:
            if health:
                claim(health)
            elif not problems:
                health = fresh()
        except Taken as e:
            why = f"failed to allocate requested HealthCheck NodePort {health}: {e}"
            problems.append(errors.invalid_value("spec.healthCheckNodePort", health, why))
        made.health = health or 0
    if problems:
        raise _Refused(problems)
    return made
