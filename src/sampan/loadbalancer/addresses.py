"""Who has which address: the state that the allocation controller decides by. Plain values, no I/O.

Several Services may have one address if they name the same sharing key, have no port in common, and lead to the same
pods where they keep to the node of these (as MetalLB has it). What a decision costs does not depend on how many Services
or addresses there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from sampan.api.address_ranges import Address
from sampan.loadbalancer.pools import FreeAddresses, Pool
from sampan.loadbalancer.requests import FAMILIES, Refused, Request, quoted


@dataclass(slots=True)
class _Use:
    """An address that is in use."""

    sharing: str
    backend: str
    ports: dict[tuple[str, int], str] = field(default_factory=dict)
    services: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Given:
    """What a Service has."""

    addresses: tuple[Address, ...]
    pool: str


class AddressBook:
    """Services are known by a key (`namespace/name`). `freed` is called with what may be had again: an address and the
    names of its pools."""

    def __init__(self, freed: Callable[[str], None] = lambda topic: None) -> None:
        self._freed = freed
        self._pools: dict[str, Pool] = {}
        self._free: dict[str, FreeAddresses] = {}
        self._order: list[Pool] = []
        self._uses: dict[Address, _Use] = {}
        self._given: dict[str, Given] = {}
        self._ports: dict[str, frozenset[tuple[str, int]]] = {}
        self._shared: dict[str, set[Address]] = {}
        self._counts: dict[str, dict[str, int]] = {}

    # ---- pools

    def set_pools(self, pools: Iterable[Pool]) -> None:
        """From now on these. Who has an address that is in none of them keeps it until its Service is looked at."""
        self._pools = {p.name: p for p in pools}
        self._free = {name: FreeAddresses(p, self._uses.__contains__) for name, p in self._pools.items()}
        self._order = sorted(
            self._pools.values(), key=lambda p: (not p.namespaces, p.priority or 2**31, p.name)
        )
        self._counts = {name: {"IPv4": 0, "IPv6": 0} for name in self._pools}
        for address in self._uses:
            self._count(address, 1)

    def counts(self, pool: str) -> dict[str, int]:
        """The status of a pool."""
        found: dict[str, int] = {}
        for family, used in self._counts[pool].items():
            found[f"assigned{family}"] = used
            found[f"available{family}"] = max(0, self._pools[pool].capacity(family) - used)
        return found

    def pools_of(self, address: Address) -> Iterator[Pool]:
        return (p for p in self._pools.values() if address in p)

    # ---- what Services have

    def given(self, service: str) -> Given | None:
        return self._given.get(service)

    def assign(self, service: str, addresses: tuple[Address, ...], request: Request) -> Given:
        """Give a Service these addresses instead of what it has. Raises Refused, and then nothing has changed."""
        pool = next((p for p in self._ordered(request) if all(a in p for a in addresses)), None)
        if pool is None:
            pool = next((p for p in self._order if all(a in p for a in addresses)), None)
            if pool is None:
                raise Refused(f"{quoted(addresses)} is not allowed in config")
            raise Refused(f"pool {pool.name} not compatible for ip assignment")
        if request.pool and pool.name != request.pool:
            if request.pool not in self._pools or not all(a in self._pools[request.pool] for a in addresses):
                raise Refused(
                    f"requested loadBalancer IP(s) {quoted(addresses)} is not compatible with requested address pool "
                    f"{request.pool}"
                )
            pool = self._pools[request.pool]
        for address in addresses:
            self._check(service, address, request)
        self._take(service, Given(addresses, pool.name), request)
        return self._given[service]

    def allocate(self, service: str, request: Request) -> Given:
        """Give a Service the addresses that it asks for, or free ones. Raises Refused."""
        if request.addresses:
            return self.assign(service, request.addresses, request)
        if request.pool:
            pool = self._pools.get(request.pool)
            if pool is None:
                raise Refused(f'unknown pool "{request.pool}"', (request.pool,))
            if not pool.serves(request.namespace):
                raise Refused(f"pool {pool.name} not compatible for ip assignment")
            candidates = [pool]
        else:
            candidates = [p for p in self._ordered(request) if p.auto_assign]
        some: Given | None = None
        for pool in candidates:
            found = tuple(a for f in request.families if (a := self._first(pool, f, service, request)))
            if len(found) == len(request.families):
                self._take(service, Given(found, pool.name), request)
                return self._given[service]
            if found and not request.both and (some is None or _family(found) == request.families[0]):
                some = some or Given(found, pool.name)
        if some is not None:
            self._take(service, some, request)
            return some
        raise Refused(_none_left(candidates, request), tuple(p.name for p in candidates))

    def add_family(self, service: str, request: Request) -> Given | None:
        """Give a Service that has an address of one family one of the other as well, from the same pool; None where there
        is none."""
        present = self._given[service]
        missing = [f for f in request.families if f not in {FAMILIES[a.version] for a in present.addresses}]
        pool = self._pools.get(present.pool)
        if pool is None or not missing:
            return None
        further = self._first(pool, missing[0], service, request)
        if further is None:
            return None
        both = sorted(
            (*present.addresses, further), key=lambda a: request.families.index(FAMILIES[a.version])
        )
        return self.assign(service, tuple(both), request)

    def release(self, service: str) -> Given | None:
        """Take away what a Service has."""
        given = self._given.pop(service, None)
        if given is None:
            return None
        ports = self._ports.pop(service)
        for address in given.addresses:
            use = self._uses[address]
            use.services.discard(service)
            for port in ports:
                if use.ports.get(port) == service:
                    del use.ports[port]
            if not use.services:
                self._end(address, use)
            self._freed(str(address))
        return given

    def _ordered(self, request: Request) -> Iterator[Pool]:
        return (p for p in self._order if p.serves(request.namespace))

    def _first(self, pool: Pool, family: str, service: str, request: Request) -> Address | None:
        """One that may be shared comes before a free one."""
        for address in sorted(self._shared.get(request.sharing, ()), key=int) if request.sharing else ():
            if FAMILIES[address.version] == family and address in pool:
                try:
                    self._check(service, address, request)
                except Refused:
                    continue
                return address
        return self._free[pool.name].first(family)

    def _check(self, service: str, address: Address, request: Request) -> None:
        use = self._uses.get(address)
        if use is None:
            return
        others = sorted(use.services - {service})
        if others and (use.sharing != request.sharing or use.backend != request.backend or not use.sharing):
            raise Refused(
                f'can\'t change sharing key for "{service}", address also in use by {",".join(others)}',
                (str(address),),
            )
        for protocol, number in sorted(request.ports):
            if use.ports.get((protocol, number), service) != service:
                raise Refused(f'port {protocol}/{number} is already in use on "{address}"', (str(address),))

    def _take(self, service: str, given: Given, request: Request) -> None:
        before = self._given.get(service)
        if before is not None and before.addresses != given.addresses:
            self.release(service)
            before = None
        old_ports = self._ports.get(service, frozenset())
        for address in given.addresses:
            use = self._uses.get(address)
            if use is None:
                use = self._uses[address] = _Use(request.sharing, request.backend)
                self._count(address, 1)
            elif (use.sharing, use.backend) != (request.sharing, request.backend):
                self._unshare(address, use)
                use.sharing, use.backend = request.sharing, request.backend
            for port in old_ports - request.ports:
                use.ports.pop(port, None)
            use.services.add(service)
            use.ports.update(dict.fromkeys(request.ports, service))
            if request.sharing:
                self._shared.setdefault(request.sharing, set()).add(address)
        changed = before is not None and old_ports != request.ports
        self._given[service], self._ports[service] = given, request.ports
        if changed:
            for address in given.addresses:
                self._freed(str(address))

    def _end(self, address: Address, use: _Use) -> None:
        del self._uses[address]
        self._unshare(address, use)
        self._count(address, -1)
        for pool in self.pools_of(address):
            self._free[pool.name].returned(address)
            self._freed(pool.name)

    def _unshare(self, address: Address, use: _Use) -> None:
        sharing = self._shared.get(use.sharing)
        if sharing is not None:
            sharing.discard(address)
            if not sharing:
                del self._shared[use.sharing]

    def _count(self, address: Address, by: int) -> None:
        for pool in self.pools_of(address):
            self._counts[pool.name][FAMILIES[address.version]] += by


def _family(addresses: tuple[Address, ...]) -> str:
    return FAMILIES[addresses[0].version]


def _none_left(candidates: list[Pool], request: Request) -> str:
    if not candidates:
        return "no available IPs: there is no pool for this Service"
    families = " and ".join(request.families)
    return f"no available IPs: no {families} address is free in {', '.join(map(str, candidates))}"
