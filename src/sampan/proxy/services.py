"""From API objects to targets: what a Service and its EndpointSlices mean on one node.

Who may answer is upstream's `pkg/proxy/topology.go`: ready endpoints, near ones where all of them say for whom they are;
if there is none, those that still serve while they end; policy Local keeps to the node's own. What is rejected and what is
dropped, and who is let past policy Local, is upstream's nftables proxier.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sampan.api.errors import Object
from sampan.proxy.types import Backend, Frontend, Target

DEFAULT_AFFINITY = 10800
SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
"""The annotation of before `spec.loadBalancerSourceRanges`; the field has precedence. Upstream leaves it to the cloud,
which here is the proxy."""


@dataclass(frozen=True, slots=True)
class Place:
    """The node that targets are computed for."""

    node: str
    addresses: tuple[str, ...]
    """Its own, of each family."""
    node_port_addresses: tuple[str, ...]
    """Those that NodePorts are open at."""
    zone: str = ""
    service_ranges: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    """Where the API gives cluster addresses from."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address and port of an EndpointSlice."""

    backend: Backend
    ready: bool
    serving: bool
    terminating: bool
    local: bool
    """On the node that it is computed for."""
    zones: frozenset[str] = frozenset()
    nodes: frozenset[str] = frozenset()
    """For whom it is near, by its hints."""

    @property
    def last_resort(self) -> bool:
        """It ends, and answers until then."""
        return not self.ready and self.serving and self.terminating


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Who answers on one port of a Service, for this node."""

    cluster: tuple[Backend, ...]
    local: tuple[Backend, ...]
    anywhere: bool
    """Whether any node has one."""
    serving: tuple[Backend, ...]
    """All that answer who talks to them already, on whatever node."""


class Read:
    """The endpoints of the slices of one Service, remembered: of ten slices the one that changed is read anew. Slices are
    taken to be unchanged while they are the same objects."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Object, dict[tuple[str, str, str], list[Endpoint]]]] = {}

    def of(self, one: Object, port_name: str, protocol: str, node: str) -> list[Endpoint]:
        """Those of one port of a slice."""
        known = self._known.get(id(one))
        if known is None or known[0] is not one:
            known = self._known[id(one)] = (one, {})
        ports = known[1]
        at = (port_name, protocol, node)
        if at not in ports:
            ports[at] = _read(one, port_name, protocol, node)
        return ports[at]

    def keep(self, slices: Iterable[Object]) -> None:
        """Forget all others."""
        present = {id(s) for s in slices}
        self._known = {at: known for at, known in self._known.items() if at in present}


def targets(
    service: Object, slices: Sequence[Object], place: Place, read: Read | None = None
) -> dict[Frontend, Target]:
    """Every frontend of a Service on this node. None for a headless or external one. `read` has what was read of the
    slices before."""
    if not proxied(service):
        return {}
    read = read or Read()
    read.keep(slices)
    found: dict[Frontend, Target] = {}
    spec = service["spec"]
    for address in spec.get("clusterIPs") or (spec["clusterIP"],):
        address, family = canonical(address), family_of(address)
        of_family = [s for s in slices if s.get("addressType") == family]
        for port in spec.get("ports") or ():
            endpoints = _endpoints(
                of_family, port.get("name") or "", port.get("protocol") or "TCP", place, read
            )
            found.update(_of_port(service, port, address, _categorize(endpoints, place), place))
    return found


def proxied(service: Object) -> bool:
    """Whether a Service has addresses of its own."""
    spec = service.get("spec") or {}
    return spec.get("type") != "ExternalName" and spec.get("clusterIP", "") not in ("", "None")


def local_ready(slices: Iterable[Object], node: str) -> dict[str, int]:
    """How many addresses of each family are ready on a node: what the health check port tells."""
    found: dict[str, set[str]] = {}
    for one in slices:
        for endpoint in one.get("endpoints") or () if one.get("ports") else ():
            ready = (endpoint.get("conditions") or {}).get("ready") is not False
            if ready and endpoint.get("nodeName") == node:
                found.setdefault(one["addressType"], set()).add(endpoint["addresses"][0])
    return {family: len(addresses) for family, addresses in found.items()}


def near_ones(slices: Iterable[Object]) -> bool:
    """Whether it matters to these slices in which zone a node is."""
    return any((e.get("hints") or {}).get("forZones") for s in slices for e in s.get("endpoints") or ())


def family_of(address: str) -> str:
    return "IPv6" if ":" in address else "IPv4"


def canonical(address: str) -> str:
    """An address as everybody writes it: of IPv6 there are many ways."""
    return str(ipaddress.IPv6Address(address)) if ":" in address else address


def _of_port(
    service: Object, port: Object, cluster_ip: str, those: Endpoints, place: Place
) -> dict[Frontend, Target]:
    """The frontends of one port in the family of a cluster address."""
    meta, spec, family = service["metadata"], service["spec"], family_of(cluster_ip)
    protocol, number = port.get("protocol") or "TCP", port["port"]
    name = f"{meta['namespace']}/{meta['name']}" + (f":{port['name']}" if port.get("name") else "")
    affinity = _affinity(spec)

    def policy(local: bool) -> tuple[Backend, ...]:
        return those.local if local else those.cluster

    internal_local = spec.get("internalTrafficPolicy") == "Local"
    inside = policy(internal_local)
    target = Target(name, inside, affinity, drop=internal_local and not inside and those.anywhere)
    found = {Frontend(cluster_ip, protocol, number): target}
    external_local = spec.get("externalTrafficPolicy") == "Local"
    reached = policy(external_local)
    short = those.cluster if external_local and those.cluster != reached else None
    target = Target(
        name,
        reached,
        affinity,
        keep_source=external_local,
        inside=short,
        drop=external_local and not reached and those.anywhere,
    )
    refused = refused_addresses(service, place)
    for address in _of_family(spec.get("externalIPs") or (), family):
        if address in refused:
            continue
        found[Frontend(address, protocol, number)] = target
    if port.get("nodePort") and spec.get("type") in ("NodePort", "LoadBalancer"):
        for address in _of_family(place.node_port_addresses, family):
            found[Frontend(address, protocol, port["nodePort"])] = target
    ranges = _of_family(_source_ranges(service), family)
    for address in _of_family(_virtual_addresses(service), family):
        if address in refused:
            continue
        sources = _with_own(ranges, address, place)
        found[Frontend(address, protocol, number)] = (
            dataclasses.replace(target, sources=sources) if sources else target
        )
    return {f: _with_lingering(t, those) for f, t in found.items()} if protocol == "UDP" else found


def _with_lingering(target: Target, those: Endpoints) -> Target:
    new = {*target.backends, *(target.inside or ())}
    return dataclasses.replace(target, lingering=tuple(b for b in those.serving if b not in new))


def refused_addresses(service: Object, place: Place) -> set[str]:
    """External addresses that a Service names and does not get: cluster addresses are the API's to give. Whoever may write a
    Service would else have those of the cluster's DNS, or of Services yet to come."""
    named = (*(service["spec"].get("externalIPs") or ()), *_virtual_addresses(service))
    return {
        canonical(address)
        for address in named
        if any(ipaddress.ip_address(address) in network for network in place.service_ranges)
    }


def _affinity(spec: Object) -> int:
    if spec.get("sessionAffinity") != "ClientIP":
        return 0
    config = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
    return config.get("timeoutSeconds") or DEFAULT_AFFINITY


def _of_family(values: Iterable[str], family: str) -> tuple[str, ...]:
    return tuple(canonical(v) for v in values if family_of(v) == family)


def _virtual_addresses(service: Object) -> list[str]:
    """The load balancer's addresses that packets still carry when they reach a node."""
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return [i["ip"] for i in ingress if i.get("ip") and i.get("ipMode", "VIP") == "VIP"]


def _source_ranges(service: Object) -> list[str]:
    """Who may connect through the load balancer; none: everybody."""
    given = service["spec"].get("loadBalancerSourceRanges")
    if not given:
        annotation = (service["metadata"].get("annotations") or {}).get(SOURCE_RANGES) or ""
        given = annotation.split(",") if annotation.strip() else []
    found = set()
    for value in given:
        with contextlib.suppress(ValueError):  # the API takes none such
            found.add(str(ipaddress.ip_network(value.strip(), strict=False)))
    return sorted(found)


def _with_own(ranges: tuple[str, ...], address: str, place: Place) -> tuple[str, ...]:
    """The ranges, and the load balancer's own address where the node is in one: a node that has that address itself
    connects to it from it."""
    networks = [ipaddress.ip_network(r) for r in ranges]
    if any(ipaddress.ip_address(own) in n for own in place.addresses for n in networks):
        own = f"{address}/{ipaddress.ip_address(address).max_prefixlen}"
        if not any(ipaddress.ip_address(address) in n for n in networks):
            return (*ranges, own)
    return ranges


def _endpoints(
    slices: Iterable[Object], port_name: str, protocol: str, place: Place, read: Read
) -> list[Endpoint]:
    """The endpoints of a port, each once: one that moves is for a moment in two slices."""
    found: dict[Backend, Endpoint] = {}
    for one in slices:
        for made in read.of(one, port_name, protocol, place.node):
            known = found.setdefault(made.backend, made)
            if known is not made and _better(made) > _better(known):
                found[made.backend] = made
    return list(found.values())


def _better(endpoint: Endpoint) -> tuple[bool, bool, bool]:
    return endpoint.ready, endpoint.serving, endpoint.local


def _read(one: Object, port_name: str, protocol: str, node: str) -> list[Endpoint]:
    number = next((p.get("port") for p in one.get("ports") or () if _is(p, port_name, protocol)), None)
    return [_endpoint(e, number, node) for e in one.get("endpoints") or ()] if number is not None else []


def _is(port: Object, name: str, protocol: str) -> bool:
    return (port.get("name") or "") == name and (port.get("protocol") or "TCP") == protocol


def _endpoint(given: Object, port: int, node: str) -> Endpoint:
    conditions, hints = given.get("conditions") or {}, given.get("hints") or {}
    return Endpoint(
        Backend(canonical(given["addresses"][0]), port),
        conditions.get("ready") is not False,
        conditions.get("serving") is not False,
        bool(conditions.get("terminating")),
        given.get("nodeName") == node,
        frozenset(z["name"] for z in hints.get("forZones") or ()),
        frozenset(n["name"] for n in hints.get("forNodes") or ()),
    )


def _categorize(endpoints: Sequence[Endpoint], place: Place) -> Endpoints:
    ready = [e for e in endpoints if e.ready]
    near = _nearness(ready, place)
    chosen = [e for e in ready if near(e)] or [e for e in endpoints if e.last_resort]
    own = [e for e in endpoints if e.local]
    local = [e for e in own if e.ready] or [e for e in own if e.last_resort]
    return Endpoints(
        tuple(e.backend for e in chosen),
        tuple(e.backend for e in local),
        any(e.ready or e.last_resort for e in endpoints),
        tuple(e.backend for e in endpoints if e.serving),
    )


def _nearness(ready: Sequence[Endpoint], place: Place) -> Callable[[Endpoint], bool]:
    """Which of the ready endpoints are for this node: by their hints, if each has one and one of them is for this node or,
    failing that, its zone; otherwise all."""
    if all(e.nodes for e in ready) and any(place.node in e.nodes for e in ready):
        return lambda e: place.node in e.nodes
    if all(e.zones for e in ready) and any(place.zone in e.zones for e in ready):
        return lambda e: place.zone in e.zones
    return lambda e: True
