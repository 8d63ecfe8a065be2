"""The proxy of one node: follows Services and EndpointSlices, and has the kernel follow (upstream: kube-proxy).

Changes that arrive together are one transaction, and one that arrives alone is in the kernel before the next turn of
the loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import ipaddress
import logging
import time
from collections.abc import Iterable, Mapping, Sequence

from sampan.api.errors import Object
from sampan.api.resources import ENDPOINTSLICES, NODES, SERVICECIDRS, SERVICES
from sampan.client.events import Recorder
from sampan.client.informer import Informer, key_of
from sampan.client.types import Client
from sampan.network.nftables_monitor import NftablesMonitor
from sampan.proxy import health_check, requirements, services
from sampan.proxy.conntrack import Conntrack
from sampan.proxy.health_check import HealthCheck, HealthChecks
from sampan.proxy.metrics import ProxyMetrics, exposition
from sampan.proxy.nftables import NfTables
from sampan.proxy.rules import Rules, Talking
from sampan.proxy.server import Health, ProxyServer
from sampan.proxy.services import Place
from sampan.proxy.skeleton import TABLE
from sampan.proxy.types import Frontend, Layout, Table, Target

log = logging.getLogger(__name__)
_BETWEEN_REPAIRS = 0.25
_SERVICE_NAME = "kubernetes.io/service-name"
_TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
_ZONE = "topology.kubernetes.io/zone"
_OURS = "!service.kubernetes.io/service-proxy-name,!service.kubernetes.io/headless"
"""What has the first label is another proxy's; what has the second has no address."""


class Proxy:
    """`table` is the kernel's, in the network namespace of the process, unless another is given. Of each plural there is one
    a family, the primary one first; `node_port_addresses` are those of the node that NodePorts are open at, `own_pod_cidrs` its
    part of `pod_cidrs`. `monitor` tells of changes to the tables that are somebody else's: they are undone."""

    def __init__(
        self,
        client: Client,
        *,
        node_name: str,
        node_addresses: Sequence[str],
        pod_cidrs: Sequence[str],
        service_cidrs: Sequence[str],
        node_port_addresses: Sequence[str] | None = None,
        own_pod_cidrs: Sequence[str] = (),
        table: Table | None = None,
        monitor: NftablesMonitor | None = None,
    ) -> None:
        addresses = tuple(node_addresses)
        open_at = addresses if node_port_addresses is None else tuple(node_port_addresses)
        self._place = Place(
            node_name, addresses, open_at, service_ranges=tuple(map(ipaddress.ip_network, service_cidrs))
        )
        self._services = Informer(client, SERVICES, label_selector=_OURS)
        self._slices = Informer(
            client, ENDPOINTSLICES, label_selector=_OURS, indexes={"service": _service_of}
        )
        self._cidrs = Informer(client, SERVICECIDRS)
        self._node = Informer(client, NODES, field_selector=f"metadata.name={node_name}")
        self._recorder = Recorder(client, "kube-proxy", node_name)
        self._pod_cidrs = tuple(pod_cidrs)
        self._service_cidrs = tuple(service_cidrs)
        self._ranges_changed = False
        ranges = service_ranges(self._service_cidrs, ())
        layout = Layout(
            addresses, self._pod_cidrs, ranges, tuple(own_pod_cidrs), sctp=not requirements.lacks_sctp()
        )
        self._rules = Rules(table or NfTables(monitor), layout, self._clashed)
        if monitor is not None:
            for family in layout.families:
                monitor.watch(family, TABLE, self._meddled)
        self._meddlers: list[str] = []
        self._repaired = 0.0
        self._conntrack = Conntrack() if table is None else None
        self._read: dict[str, services.Read] = {}
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()
        self._health = Health()
        self._checks = HealthChecks(
            self._place.node_port_addresses, lambda: self._health.healthy, self._not_listening
        )
        self._metrics = ProxyMetrics(layout.families)
        self._server = ProxyServer(self._health, self._exposition, addresses)

    async def run(self) -> None:
        """Until cancelled; the rules stay."""
        try:
            async with asyncio.TaskGroup() as group:
                for informer in (self._services, self._slices, self._node):
                    group.create_task(informer.run(), name=informer.resource.plural)
                for informer in (self._services, self._slices, self._node):
                    await informer.synced.wait()
                self._node.add_handler(self._node_changed)
                await self._begin()
                # Further ranges are few and change seldom: what is there already works without them.
                self._cidrs.add_handler(self._cidr_changed)
                group.create_task(self._cidrs.run(), name="servicecidrs")
                group.create_task(self._recorder.run(), name="events of the proxy")
                await self._server.start()
                while True:
                    await self._wake.wait()
                    self._wake.clear()
                    if self._meddlers:
                        self._repair()
                    if self._ranges_changed:
                        self._set_ranges()
                    await self._flush()
        finally:
            await self._server.close()
            await self._checks.close()

    async def _begin(self) -> None:
        """The first time, for all Services."""
        state = {key_of(s): self._targets(key_of(s), s) for s in oldest_first(self._services.list())}
        began = time.monotonic()
        changed = self._rules.start(state)
        self._metrics.synced(time.monotonic() - began, whole=True)
        log.info("%d Services; %d elements changed at start", len(state), changed)
        self._forget(self._rules.talking())
        self._health.updated()
        self._services.add_handler(self._service_changed)
        self._slices.add_handler(self._slice_changed)
        self._dirty.clear()
        await self._checks.update(self._checks_of(state))

    async def _flush(self) -> None:
        keys, self._dirty = self._dirty, set()
        changes = {key: self._targets(key, self._services.get_by_key(key)) for key in keys}
        began = time.monotonic()
        talking = self._rules.update(changes)
        self._metrics.synced(time.monotonic() - began, whole=False)
        self._health.updated()
        self._forget(talking)
        await self._checks.update(self._checks_of(keys))

    def _meddled(self, who: str) -> None:
        self._meddlers.append(who)
        # Somebody who does it again and again gets no more of our time than this.
        late = asyncio.get_running_loop().time() - self._repaired
        asyncio.get_running_loop().call_later(max(0, _BETWEEN_REPAIRS - late), self._wake.set)

    def _repair(self) -> None:
        who, self._meddlers = ", ".join(dict.fromkeys(self._meddlers)), []
        self._repaired = asyncio.get_running_loop().time()
        began = time.monotonic()
        changed = self._rules.repair()
        self._metrics.synced(time.monotonic() - began, whole=True)
        message = (
            f"The proxy's nf_tables were changed by {who}: chains made anew, {changed} elements put right"
        )
        log.warning("%s", message)
        for node in self._node.list():
            self._recorder.event(node, "Warning", "ProxyRulesRepaired", message)

    def _forget(self, talking: Talking) -> None:
        if self._conntrack is not None and talking:
            began = time.monotonic()
            deleted = self._conntrack.clean(talking)
            self._metrics.cleaned(time.monotonic() - began, deleted)

    def _exposition(self) -> bytes:
        self._metrics.failures = self._rules.failures
        return exposition(self._metrics, self._rules.without_local(), self._health.answers)

    def _checks_of(self, keys: Iterable[str]) -> Mapping[str, HealthCheck | None]:
        found: dict[str, HealthCheck | None] = {}
        for key in keys:
            service = self._services.get_by_key(key)
            found[key] = None
            if service is not None:
                found[key] = health_check.wanted(service, functools.partial(self._local_ready, key))
        return found

    def _local_ready(self, key: str) -> Mapping[str, int]:
        return services.local_ready(self._slices.by_index("service", key), self._place.node)

    def _not_listening(self, key: str, port: int, error: OSError) -> None:
        service = self._services.get_by_key(key)
        if service is not None:
            message = f'node {self._place.node} failed to start healthcheck "{key}" on port {port}: {error}'
            self._recorder.event(service, "Warning", "FailedToStartServiceHealthcheck", message)

    def _tell_refused(self, service: Object) -> None:
        for address in sorted(services.refused_addresses(service, self._place)):
            message = f"{address} is of a range of cluster addresses: it cannot be an external address and leads nowhere"
            self._recorder.event(service, "Warning", "AddressConflict", message)

    def _clashed(self, frontend: Frontend, owner: str, key: str) -> None:
        service = self._services.get_by_key(key)
        if service is not None:
            message = f"{frontend} is Service {owner}'s on node {self._place.node}: it leads there until that gives it up"
            self._recorder.event(service, "Warning", "AddressConflict", message)

    def _set_ranges(self) -> None:
        self._ranges_changed = False
        cidrs = [c for obj in self._cidrs.list() for c in obj["spec"].get("cidrs") or ()]
        usable = [c for c in cidrs if c not in self._service_cidrs and self._usable(c)]
        ranges = tuple(map(ipaddress.ip_network, (*self._service_cidrs, *usable)))
        if ranges != self._place.service_ranges:
            self._place = dataclasses.replace(self._place, service_ranges=ranges)
            for service in self._services.list():
                if services.refused_addresses(service, self._place):
                    self._service_changed(None, service)
        try:
            self._rules.set_service_ranges(service_ranges(self._service_cidrs, usable))
        except OSError as e:
            log.warning("further ranges of Service addresses are not seen to: %s", e)

    def _usable(self, cidr: str) -> bool:
        """Whether all that is sent to a range may be rejected unless a Service has the address."""
        network = ipaddress.ip_network(cidr)
        taken = [ipaddress.ip_network(t) for t in (*self._pod_cidrs, *self._place.addresses)]
        if any(network.version == t.version and network.overlaps(t) for t in taken):
            log.warning("Service addresses of %s are those of pods or nodes, too: none is rejected", cidr)
            return False
        return True

    def _targets(self, key: str, service: Object | None) -> dict[Frontend, Target]:
        if service is None:
            self._read.pop(key, None)
            return {}
        slices = self._slices.by_index("service", key)
        # What was read of few endpoints is not worth remembering.
        read = self._read.setdefault(key, services.Read()) if len(slices) > 1 else self._read.pop(key, None)
        return services.targets(service, slices, self._place, read)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        self._health.follow_node(new)
        zone = ((new or {}).get("metadata", {}).get("labels") or {}).get(_ZONE) or ""
        if new is None or zone == self._place.zone:
            return
        self._place = dataclasses.replace(self._place, zone=zone)
        for service in self._services.list():
            if services.near_ones(self._slices.by_index("service", key_of(service))):
                self._changed(key_of(service))

    def _service_changed(self, old: Object | None, new: Object | None) -> None:
        self._metrics.queued("service")
        if new is not None:
            self._tell_refused(new)
        self._changed(key_of(new or old or {}))

    def _slice_changed(self, old: Object | None, new: Object | None) -> None:
        annotations = ((new or {}).get("metadata") or {}).get("annotations") or {}
        self._metrics.queued("endpoint", annotations.get(_TRIGGER_TIME, ""))
        for obj in (old, new):
            for key in _service_of(obj) if obj is not None else ():
                self._changed(key)

    def _cidr_changed(self, old: Object | None, new: Object | None) -> None:
        self._ranges_changed = True
        self._wake.set()

    def _changed(self, key: str) -> None:
        self._health.queued()
        self._dirty.add(key)
        self._wake.set()


def oldest_first(found: Iterable[Object]) -> list[Object]:
    """Services in the order of their creation: who claims another's address later does not get it by our start."""
    return sorted(found, key=lambda s: (s["metadata"].get("creationTimestamp") or "", key_of(s)))


def _service_of(obj: Object) -> Iterable[str]:
    meta = obj["metadata"]
    name = (meta.get("labels") or {}).get(_SERVICE_NAME)
    return (f"{meta['namespace']}/{name}",) if name else ()


def service_ranges(first: Iterable[str], further: Iterable[str]) -> tuple[str, ...]:
    """The cluster's own ranges and further ones, without overlaps."""
    networks = [ipaddress.ip_network(c) for c in (*first, *further)]
    fours = ipaddress.collapse_addresses(n for n in networks if isinstance(n, ipaddress.IPv4Network))
    sixes = ipaddress.collapse_addresses(n for n in networks if isinstance(n, ipaddress.IPv6Network))
    return (*map(str, fours), *map(str, sixes))
