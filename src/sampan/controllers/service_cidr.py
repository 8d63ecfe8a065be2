"""ServiceCIDR: each gets its finalizer and its Ready condition, and stays until no address needs it.

Upstream: `pkg/controller/servicecidrs`.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator

from sampan.api.errors import Object, StatusError
from sampan.api.objects import condition, deep_copy, now, parse_time
from sampan.api.resources import IPADDRESSES, SERVICECIDRS
from sampan.client.types import STRATEGIC_MERGE_PATCH
from sampan.controllers.controller import Context, Controller, deleting

FINALIZER = "networking.k8s.io/service-cidr-finalizer"
MANAGER_LABEL, MANAGER = "ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io"
"""How the API server marks the addresses that it gives to Services."""
GRACE_SECONDS = 10.0
"""How long every API server has to learn that a range is on its way out, before it goes."""
_READY = "Kubernetes Service CIDR is ready"
_IN_USE = (
    "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"
)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(cidr: Object) -> list[Network]:
    return [ipaddress.ip_network(c) for c in cidr["spec"].get("cidrs") or ()]


def _holds(network: Network, address: Address) -> bool:
    """Whether a range gives out an address: neither its first one nor, of IPv4, its last one."""
    if address not in network or address == network.network_address:
        return False
    return network.version == 6 or address != network.broadcast_address


def _within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network):
        return isinstance(outer, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, ipaddress.IPv6Network) and inner.subnet_of(outer)


class ServiceCIDRController(Controller):
    name = "service-cidr"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._recorder = context.recorder("service-cidr-controller")
        self._cidrs = context.informers.of(SERVICECIDRS)
        self._addresses = context.informers.of(IPADDRESSES)
        self._cidrs.add_handler(self._cidr_changed)
        self._addresses.add_handler(self._address_changed)

    def _cidr_changed(self, old: Object | None, new: Object | None) -> None:
        self.enqueue_either(old, new)
        if old is None or new is None:
            # What overlaps with it may be free to go now, or no more.
            self._enqueue_leaving()

    def _address_changed(self, old: Object | None, new: Object | None) -> None:
        if old is None or new is None:
            self._enqueue_leaving()

    def _enqueue_leaving(self) -> None:
        for cidr in self._cidrs.list():
            if deleting(cidr):
                self.enqueue(cidr)

    async def sync(self, key: str) -> None:
        cidr = self._cidrs.get_by_key(key)
        if cidr is None:
            return
        if not deleting(cidr):
            await self._keep(cidr)
        elif not self._can_go(cidr):
            await self._say(cidr, "False", "Terminating", _IN_USE)
        else:
            # An API server may not know yet, and give out an address meanwhile.
            left = GRACE_SECONDS - (time.time() - parse_time(cidr["metadata"]["deletionTimestamp"]))
            if left > 0:
                self.queue.add_after(key, left)
            else:
                await self._let_go(cidr)

    async def _keep(self, cidr: Object) -> None:
        if FINALIZER not in (cidr["metadata"].get("finalizers") or ()):
            patch = {"metadata": {"finalizers": [FINALIZER]}}
            try:
                cidr = await self._patch(cidr, patch)
            except StatusError as e:
                if e.code != 404:
                    raise
                return
        ready = condition(cidr, "Ready")
        if ready is not None and ready.get("status") == "True":
            return
        try:
            await self._say(cidr, "True", "", _READY)
        except StatusError:
            why = "The ServiceCIDR Status can not be set to Ready=True"
            self._recorder.event(cidr, "Warning", "KubernetesServiceCIDRError", why)
            raise

    async def _say(self, cidr: Object, status: str, reason: str, message: str) -> None:
        told: Object = {"type": "Ready", "status": status, "reason": reason, "message": message}
        present = condition(cidr, "Ready") or {}
        if all(present.get(k, "") == v for k, v in told.items()):
            return
        told["lastTransitionTime"] = now()
        await self._patch(cidr, {"status": {"conditions": [told]}}, "status")

    async def _let_go(self, cidr: Object) -> None:
        fresh = deep_copy(cidr)
        finalizers = [f for f in fresh["metadata"].get("finalizers") or () if f != FINALIZER]
        if len(finalizers) == len(fresh["metadata"].get("finalizers") or ()):
            return
        fresh["metadata"]["finalizers"] = finalizers
        try:
            await self._client.update(SERVICECIDRS, fresh)
        except StatusError as e:
            if e.code != 404:
                raise

    async def _patch(self, cidr: Object, patch: Object, subresource: str = "") -> Object:
        return await self._client.patch(
            SERVICECIDRS,
            "",
            cidr["metadata"]["name"],
            patch,
            content_type=STRATEGIC_MERGE_PATCH,
            subresource=subresource,
            field_manager="service-cidr-controller",
        )

    def _can_go(self, cidr: Object) -> bool:
        """Whether every address of a range would still lie in another one."""
        others = list(self._others(cidr))
        own = _networks(cidr)
        if all(any(_within(n, o) for o in others) for n in own):
            return True
        return not any(
            any(_holds(n, a) for n in own) and not any(_holds(o, a) for o in others)
            for a in self._given_addresses()
        )

    def _others(self, cidr: Object) -> Iterator[Network]:
        for other in self._cidrs.list():
            if other["metadata"]["name"] != cidr["metadata"]["name"]:
                yield from _networks(other)

    def _given_addresses(self) -> Iterator[Address]:
        for obj in self._addresses.list():
            if (obj["metadata"].get("labels") or {}).get(MANAGER_LABEL) == MANAGER:
                yield ipaddress.ip_address(obj["metadata"]["name"])
