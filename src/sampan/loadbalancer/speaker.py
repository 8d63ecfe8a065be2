"""The speaker of one node: announces the load balancer addresses that fall to this node (MetalLB's, in layer 2 mode).

Every speaker knows the Services with an address, the nodes, and which of the other speakers are alive (`heartbeats`); from
that each computes by itself which node an address falls to (`election`). Where there is no address nothing runs but one
watch of Services.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Iterable, Sequence

from sampan.api.address_ranges import Address
from sampan.api.errors import Object
from sampan.api.resources import ENDPOINTSLICES, NODES, SERVICES
from sampan.client.events import Recorder
from sampan.client.informer import Informer, key_of
from sampan.client.types import Client
from sampan.loadbalancer import requests
from sampan.loadbalancer.election import elect
from sampan.loadbalancer.heartbeats import Heartbeats
from sampan.loadbalancer.layer2 import Layer2
from sampan.loadbalancer.types import Announcer

log = logging.getLogger(__name__)
EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"
"""A node with this label announces nothing."""
_SERVICE_NAME = "kubernetes.io/service-name"
_AGAIN_AFTER = 1.0
"""Seconds after which an announcement that failed is tried again."""


class Speaker:
    """`address` is where the node is reached by the others, `networks` are those that its link `uplink` is in (`192.0.2.0/24`).
    The announcer is the real one, on `uplink`, unless another is given."""

    def __init__(
        self,
        client: Client,
        *,
        node_name: str,
        address: str,
        uplink: str,
        networks: Sequence[str],
        announcer: Announcer | None = None,
    ) -> None:
        self._client = client
        self._node = node_name
        self._networks = tuple(ipaddress.ip_network(n, strict=False) for n in networks)
        self._announcer = announcer or Layer2(uplink)
        self._services = Informer(client, SERVICES, field_selector="spec.type=LoadBalancer")
        self._nodes = Informer(client, NODES)
        self._slices = Informer(client, ENDPOINTSLICES, indexes={"service": _services_of})
        self._recorder = Recorder(client, "sampan-speaker", node_name)
        self._heartbeats = Heartbeats(node_name, address, self._networks, self._peers_changed)
        self._users: dict[Address, set[str]] = {}
        """The Services that have each address."""
        self._local: set[str] = set()
        """Those of them whose traffic stays on the node that it comes to."""
        self._announced: set[Address] = set()
        self._dirty: set[Address] = set()
        self._repeat = False
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled; then nothing is announced any more, and the others are told."""
        followed: set[Informer] = set()
        try:
            async with asyncio.TaskGroup() as group:
                self._services.add_handler(self._service_changed)
                group.create_task(self._services.run(), name="services with addresses")
                await self._services.synced.wait()
                while True:
                    await self._wake.wait()
                    self._wake.clear()
                    for informer in self._needed() - followed:
                        # Only now, for most clusters need none of this.
                        if not followed:
                            group.create_task(self._recorder.run(), name="events of the speaker")
                        followed.add(informer)
                        group.create_task(informer.run(), name=informer.resource.plural)
                        await informer.synced.wait()
                        changed = self._node_changed if informer is self._nodes else self._slice_changed
                        informer.add_handler(changed)
                    if self._nodes in followed:
                        self._flush()
        finally:
            self._heartbeats.close()
            self._announcer.close()

    # ---- what happens

    def _service_changed(self, old: Object | None, new: Object | None) -> None:
        key = key_of(new or old or {})
        before, after = _announced_for(old), _announced_for(new)
        for address in before - after:
            users = self._users.get(address, set())
            users.discard(key)
            if not users:
                self._users.pop(address, None)
        if after and new is not None and _is_local(new):
            self._local.add(key)
        else:
            self._local.discard(key)
        for address in after:
            self._users.setdefault(address, set()).add(key)
        self._touch(before | after)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if old is None or new is None or _facts(old) != _facts(new):
            self._touch(self._users)

    def _slice_changed(self, old: Object | None, new: Object | None) -> None:
        for obj in (old, new):
            for key in _services_of(obj) if obj is not None else ():
                if key in self._local:
                    self._touch(_announced_for(self._services.get_by_key(key)))

    def _peers_changed(self) -> None:
        # Who was cut off may have heard and said other things than those who were not: all is said again.
        self._repeat = True
        self._touch(self._users)

    def _touch(self, addresses: Iterable[Address]) -> None:
        self._dirty.update(addresses)
        self._wake.set()

    # ---- what follows from it

    def _needed(self) -> set[Informer]:
        if not self._users:
            return set()
        return {self._nodes, self._slices} if self._local else {self._nodes}

    def _flush(self) -> None:
        self._heartbeats.set_peers(self._others() if self._users else {})
        dirty, self._dirty = self._dirty, set()
        repeat, self._repeat = self._repeat, False
        for address in dirty:
            mine = address in self._users and elect(address, self._candidates(address)) == self._node
            if mine and (repeat or address not in self._announced):
                self._announce(address)
            elif not mine and address in self._announced:
                self._announced.discard(address)
                self._announcer.withdraw(address)
                log.info("%s is announced no more", address)

    def _announce(self, address: Address) -> None:
        try:
            self._announcer.announce(address)
        except OSError as e:
            log.warning("%s cannot be announced: %s", address, e)
            asyncio.get_running_loop().call_later(_AGAIN_AFTER, self._touch, {address})
            return
        if address in self._announced:
            return
        self._announced.add(address)
        log.info("%s is announced", address)
        for key in sorted(self._users[address]):
            service = self._services.get_by_key(key)
            if service is not None:
                message = f'announcing from node "{self._node}" with protocol "layer2"'
                self._recorder.event(service, "Normal", "nodeAssigned", message)

    def _others(self) -> dict[str, str]:
        found = {}
        for node in self._nodes.list():
            name, address, _ = _facts(node)
            if address and name != self._node:
                found[name] = address
        return found

    def _candidates(self, address: Address) -> set[str]:
        """The nodes that an address may be announced from: they live, are in its network, and have somewhere to send what
        comes where it may not be sent on."""
        peers = self._heartbeats.peers
        alive = {self._node, *peers}
        alive -= {n for n in alive if (node := self._nodes.get("", n)) is not None and _facts(node)[2]}
        near = {n for n in alive if (peers[n].reaches(address) if n in peers else self._reaches(address))}
        found = near or alive
        for key in self._users[address] & self._local:
            found &= self._nodes_with_endpoints(key)
        return found

    def _reaches(self, address: Address) -> bool:
        return any(address in n for n in self._networks)

    def _nodes_with_endpoints(self, key: str) -> set[str]:
        """The nodes that have a ready endpoint of a Service."""
        return {
            endpoint.get("nodeName") or ""
            for one in self._slices.by_index("service", key)
            for endpoint in one.get("endpoints") or ()
            if (endpoint.get("conditions") or {}).get("ready") is not False
        }


def _announced_for(service: Object | None) -> set[Address]:
    """The addresses that a Service has from our controller."""
    if service is None or requests.FROM_POOL not in (service["metadata"].get("annotations") or {}):
        return set()
    return set(requests.given(service))


def _is_local(service: Object) -> bool:
    return bool(service["spec"].get("externalTrafficPolicy") == "Local")


def _facts(node: Object) -> tuple[str, str, bool]:
    """Of a node its name, its address and whether it is excluded."""
    meta = node["metadata"]
    addresses = (node.get("status") or {}).get("addresses") or ()
    address = next((a["address"] for a in addresses if a.get("type") == "InternalIP"), "")
    try:
        ipaddress.ip_address(address)
    except ValueError:
        address = ""  # A node may write what it likes there; a name would be looked up at every heartbeat.
    return meta["name"], address, EXCLUDED in (meta.get("labels") or {})


def _services_of(obj: Object) -> Iterable[str]:
    meta = obj["metadata"]
    name = (meta.get("labels") or {}).get(_SERVICE_NAME)
    return (f"{meta['namespace']}/{name}",) if name else ()
