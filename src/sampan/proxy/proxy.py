"""The proxy of one node: follows Services and EndpointSlices, and has the kernel follow (upstream: kube-proxy).

Changes that arrive together are one transaction, and one that arrives alone is in the kernel before the next turn of
the loop.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Iterable

from sampan.api.errors import Object
from sampan.api.resources import ENDPOINTSLICES, SERVICECIDRS, SERVICES
from sampan.client.informer import Informer, key_of
from sampan.client.types import Client
from sampan.proxy import conntrack, services
from sampan.proxy.nftables import NfTables
from sampan.proxy.rules import Rules
from sampan.proxy.types import Frontend, Layout, Table, Target

log = logging.getLogger(__name__)
_SERVICE_NAME = "kubernetes.io/service-name"
_IGNORED = "service.kubernetes.io/service-proxy-name"
"""A Service with this label is another proxy's."""


class Proxy:
    """`table` is the kernel's, in the network namespace of the process, unless another is given."""

    def __init__(
        self,
        client: Client,
        *,
        node_name: str,
        node_address: str,
        pod_cidr: str,
        service_cidr: str,
        table: Table | None = None,
    ) -> None:
        self._node_name = node_name
        self._node_address = node_address
        self._services = Informer(client, SERVICES)
        self._slices = Informer(client, ENDPOINTSLICES, indexes={"service": _service_of})
        self._cidrs = Informer(client, SERVICECIDRS)
        self._pod_cidr = pod_cidr
        self._service_cidr = service_cidr
        self._ranges_changed = False
        self._rules = Rules(table or NfTables(), Layout(node_address, pod_cidr, (service_cidr,)))
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled; the rules stay."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._services.run(), name="services")
            group.create_task(self._slices.run(), name="endpointslices")
            await self._services.synced.wait()
            await self._slices.synced.wait()
            state = {key_of(s): self._targets(key_of(s), s) for s in self._services.list()}
            changed = self._rules.start(state)
            log.info("%d Services; %d elements changed at start", len(state), changed)
            self._services.add_handler(self._service_changed)
            self._slices.add_handler(self._slice_changed)
            self._dirty.clear()
            # Further ranges are few and change seldom: what is there already works without them.
            self._cidrs.add_handler(self._cidr_changed)
            group.create_task(self._cidrs.run(), name="servicecidrs")
            while True:
                await self._wake.wait()
                self._wake.clear()
                if self._ranges_changed:
                    self._set_ranges()
                self._flush(group)

    def _flush(self, group: asyncio.TaskGroup) -> None:
        keys, self._dirty = self._dirty, set()
        changes = {key: self._targets(key, self._services.get_by_key(key)) for key in keys}
        ended = self._rules.update(changes)
        stale = [(f, b) for f, b in ended if f.protocol == "UDP"]
        if stale:
            group.create_task(conntrack.forget(stale))

    def _set_ranges(self) -> None:
        self._ranges_changed = False
        cidrs = [c for obj in self._cidrs.list() for c in obj["spec"].get("cidrs") or ()]
        usable = [c for c in cidrs if c != self._service_cidr and self._usable(c)]
        try:
            self._rules.set_service_ranges(service_ranges(self._service_cidr, usable))
        except OSError as e:
            log.warning("further ranges of Service addresses are not seen to: %s", e)

    def _usable(self, cidr: str) -> bool:
        """Whether all that is sent to a range may be rejected unless a Service has the address."""
        network = ipaddress.ip_network(cidr)
        if network.version == 6:
            return False
        taken = [ipaddress.ip_network(self._pod_cidr), ipaddress.ip_network(self._node_address)]
        if any(network.overlaps(t) for t in taken):
            log.warning("Service addresses of %s are those of pods or nodes, too: none is rejected", cidr)
            return False
        return True

    def _targets(self, key: str, service: Object | None) -> dict[Frontend, Target]:
        if service is None or _IGNORED in (service["metadata"].get("labels") or {}):
            return {}
        slices = self._slices.by_index("service", key)
        return services.targets(service, slices, self._node_name, self._node_address)

    def _service_changed(self, old: Object | None, new: Object | None) -> None:
        self._changed(key_of(new or old or {}))

    def _slice_changed(self, old: Object | None, new: Object | None) -> None:
        for obj in (old, new):
            for key in _service_of(obj) if obj is not None else ():
                self._changed(key)

    def _cidr_changed(self, old: Object | None, new: Object | None) -> None:
        self._ranges_changed = True
        self._wake.set()

    def _changed(self, key: str) -> None:
        self._dirty.add(key)
        self._wake.set()


def _service_of(obj: Object) -> Iterable[str]:
    meta = obj["metadata"]
    name = (meta.get("labels") or {}).get(_SERVICE_NAME)
    return (f"{meta['namespace']}/{name}",) if name else ()


def service_ranges(first: str, further: Iterable[str]) -> tuple[str, ...]:
    """The cluster's own range and further ones, without overlaps."""
    networks = [ipaddress.IPv4Network(c) for c in (first, *further)]
    return tuple(str(n) for n in ipaddress.collapse_addresses(networks))
