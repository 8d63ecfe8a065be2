"""The allocation controller: gives Services of type LoadBalancer an address, keeps it, and takes it back.

It runs in the control plane, one at a time. What is given is in the Services' statuses, which a new start reads. Events
and rules are those of MetalLB's controller (`controller/service.go` there); the finalizer is that of upstream's service
controller.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from sampan.api.address_ranges import Address, AddressRange
from sampan.api.errors import Object, StatusError
from sampan.api.resources import IPADDRESSPOOLS, SERVICES
from sampan.client.events import Recorder
from sampan.client.informer import Informer, key_of
from sampan.client.types import MERGE_PATCH, STRATEGIC_MERGE_PATCH, Client
from sampan.client.workqueue import WorkQueue
from sampan.loadbalancer import default_pool, requests
from sampan.loadbalancer.addresses import AddressBook, Given
from sampan.loadbalancer.pools import Pool
from sampan.loadbalancer.requests import FAMILIES, FINALIZER, FROM_POOL, Refused, Request
from sampan.loadbalancer.waiting import Waiting

log = logging.getLogger(__name__)
_COUNTING_PAUSE = 0.1
"""Seconds for which changes of a pool's counts are gathered into one write."""
_MANAGER = "sampan-loadbalancer"


class LoadBalancerController:
    """`pool` are the ranges that the cluster was made with: the pool `default` gets them. Without any, no Service gets an
    address, and those that had one from here lose it. Addresses of `reserved` are never given, whatever pools have them."""

    def __init__(
        self, client: Client, pool: Sequence[str] = (), reserved: Sequence[AddressRange] = ()
    ) -> None:
        self._client = client
        self._default = tuple(pool)
        self._reserved = tuple(reserved)
        self._services = Informer(client, SERVICES)
        self._pools = Informer(client, IPADDRESSPOOLS)
        self._recorder = Recorder(client, _MANAGER)
        self._queue = WorkQueue("loadbalancer")
        self._counts = WorkQueue("loadbalancer-pools")
        self._waiting = Waiting(self._queue.add)
        self._book = AddressBook(self._waiting.freed)
        self._refused: dict[str, str] = {}
        """What those who have no address were told."""

    async def run(self) -> None:
        """Until cancelled. A failure to do one thing is logged and tried again, never raised."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._recorder.run(), name="events of the load balancer")
            if self._default:
                await default_pool.ensure(self._client, self._default)
            group.create_task(self._services.run(), name="services")
            group.create_task(self._pools.run(), name="ipaddresspools")
            await self._services.synced.wait()
            await self._pools.synced.wait()
            self._set_pools()
            self._recall()
            self._services.add_handler(self._service_changed)
            self._pools.add_handler(self._pool_changed)
            group.create_task(self._counts.run(self._write_counts), name="counts of pools")
            group.create_task(self._queue.run(self._sync), name="load balancer")

    def _is_ours(self, service: Object) -> bool:
        return bool(self._default) and requests.is_ours(service)

    # ---- what happens

    def _recall(self) -> None:
        """Take what the statuses say as given, the oldest first, before anybody gets something new."""
        for service in sorted(self._services.list(), key=_age):
            addresses = requests.given(service)
            if addresses and self._is_ours(service) and not _deleting(service):
                try:
                    self._book.assign(key_of(service), addresses, requests.request_of(service))
                except Refused:
                    continue  # It is told when its turn comes.

    def _service_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        key = key_of(obj)
        if self._is_ours(obj) or _marked(obj) or self._book.given(key) is not None or key in self._refused:
            self._queue.add(key)

    def _pool_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and new is not None and Pool.of(old) == Pool.of(new):
            return
        self._set_pools()
        for service in self._services.list():
            if self._is_ours(service):
                self._queue.add(key_of(service))

    def _set_pools(self) -> None:
        pools = []
        for obj in self._pools.list():
            try:
                pools.append(Pool.of(obj, self._reserved))
            except ValueError as e:  # pragma: no cover - validation keeps these out
                log.warning("the pool %s is passed over: %s", obj["metadata"]["name"], e)
        self._book.set_pools(pools)
        for pool in pools:
            self._counts.add_after(pool.name, _COUNTING_PAUSE)

    # ---- what is done

    async def _sync(self, key: str) -> None:
        service = self._services.get_by_key(key)
        if service is None or not self._is_ours(service) or _deleting(service):
            self._forget(key)
            if service is not None and (_marked(service) or self._is_ours(service)):
                await self._clean(service)
            return
        try:
            given, anew = self._decide(key, service)
        except Refused as refused:
            self._release(key)
            self._waiting.add(key, refused.waits_for)
            message = f'Failed to allocate IP for "{key}": {refused}'
            if self._refused.get(key) != message:
                self._refused[key] = message
                self._recorder.event(service, "Warning", "AllocationFailed", message)
            await self._show(service, ())
            return
        self._refused.pop(key, None)
        self._waiting.remove(key, given.pool)
        await self._mark(service, given.pool)
        await self._show(service, given.addresses)
        if anew:
            message = f"Assigned IP {requests.quoted(given.addresses)}"
            self._recorder.event(service, "Normal", "IPAllocated", message)

    def _decide(self, key: str, service: Object) -> tuple[Given, bool]:
        """What a Service has from now on, and whether that is new. Raises Refused."""
        request = requests.request_of(service)
        known = self._book.given(key)
        present = known.addresses if known is not None else requests.given(service)
        kept = tuple(a for a in present if FAMILIES[a.version] in request.families)
        if kept and self._suits(kept, request):
            try:
                given = self._book.assign(key, kept, request)
            except Refused as refused:
                message = f'current IP for "{key}" not allowed by config, will attempt for new IP assignment: {refused}'
                self._recorder.event(service, "Normal", "ClearAssignment", message)
            else:
                more = self._more(key, request) if len(kept) < len(request.families) else None
                if more is not None or len(kept) == len(request.families) or not request.both:
                    self._counted(given.pool)
                    return more or given, more is not None
        self._release(key)
        given = self._book.allocate(key, request)
        self._counted(given.pool)
        return given, True

    def _suits(self, addresses: tuple[Address, ...], request: Request) -> bool:
        """Whether a Service may still want what it has."""
        if request.addresses and set(request.addresses) != set(addresses):
            return False
        pools = {p.name for p in self._book.pools_of(addresses[0])}
        return not request.pool or not pools or request.pool in pools

    def _more(self, key: str, request: Request) -> Given | None:
        return None if request.addresses else self._book.add_family(key, request)

    def _forget(self, key: str) -> None:
        self._release(key)
        self._refused.pop(key, None)
        self._waiting.remove(key)

    def _release(self, key: str) -> None:
        given = self._book.release(key)
        if given is not None:
            self._counted(given.pool)

    def _counted(self, pool: str) -> None:
        self._counts.add_after(pool, _COUNTING_PAUSE)

    # ---- what is written

    async def _mark(self, service: Object, pool: str) -> None:
        meta = service["metadata"]
        noted = (meta.get("annotations") or {}).get(FROM_POOL)
        if noted == pool and FINALIZER in (meta.get("finalizers") or ()):
            return
        patch = {"metadata": {"annotations": {FROM_POOL: pool}, "finalizers": [FINALIZER]}}
        await self._patch(service, patch, STRATEGIC_MERGE_PATCH)

    async def _show(self, service: Object, addresses: tuple[Address, ...]) -> None:
        ingress = [{"ip": str(a), "ipMode": "VIP"} for a in addresses]
        present = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
        if [(p.get("ip"), p.get("ipMode", "VIP")) for p in present] != [(p["ip"], "VIP") for p in ingress]:
            patch = {"status": {"loadBalancer": {"ingress": ingress or None}}}
            await self._patch(service, patch, MERGE_PATCH, "status")

    async def _clean(self, service: Object) -> None:
        """Take away what this controller left at a Service that has no address from here any more."""
        if not _deleting(service) and requests.given(service):
            await self._show(service, ())
        meta = service["metadata"]
        if not _marked(service) and FINALIZER not in (meta.get("finalizers") or ()):
            return
        patch: Object = {"metadata": {"annotations": {FROM_POOL: None}}}
        if FINALIZER in (meta.get("finalizers") or ()):
            patch["metadata"]["$deleteFromPrimitiveList/finalizers"] = [FINALIZER]
        await self._patch(service, patch, STRATEGIC_MERGE_PATCH)

    async def _patch(self, service: Object, patch: Object, form: str, subresource: str = "") -> None:
        meta = service["metadata"]
        try:
            await self._client.patch(
                SERVICES, meta["namespace"], meta["name"], patch,
                content_type=form, subresource=subresource, field_manager=_MANAGER,
            )  # fmt: skip
        except StatusError as e:
            if e.code != 404:
                raise

    async def _write_counts(self, pool: str) -> None:
        obj = self._pools.get_by_key(pool)
        if obj is None:
            return
        counts = self._book.counts(pool)
        if (obj.get("status") or {}) != counts:
            try:
                await self._client.patch(
                    IPADDRESSPOOLS, "", pool, {"status": counts}, subresource="status", field_manager=_MANAGER
                )
            except StatusError as e:
                if e.code != 404:
                    raise


def _deleting(service: Object) -> bool:
    return bool(service["metadata"].get("deletionTimestamp"))


def _marked(service: Object) -> bool:
    """Whether this controller has written to a Service."""
    return FROM_POOL in (service["metadata"].get("annotations") or {})


def _age(service: Object) -> tuple[str, str]:
    return service["metadata"].get("creationTimestamp") or "", key_of(service)
