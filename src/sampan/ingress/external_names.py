"""The addresses behind Services of type ExternalName, by this machine's resolver.

An Ingress reaches nothing by such a name that its namespace may not reach otherwise: names of the cluster's own domain are refused,
and so are addresses of the cluster and of this machine itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)
AGAIN = 30.0
"""Seconds between two look-ups of a name: the resolver does not say how long its answers hold."""
_CLUSTER = (".cluster.local", ".svc")


def inside_cluster(name: str) -> bool:
    """Whether a name is one of the cluster's own, or this machine's."""
    plain = name.rstrip(".").lower()
    return plain == "localhost" or plain.endswith((*_CLUSTER, ".localhost"))


class ExternalNames:
    """`changed` is called with the key of a Service whose addresses are others now."""

    def __init__(self, changed: Callable[[str], None], refused: Sequence[str] = ()) -> None:
        self._changed = changed
        self._refused = [ipaddress.ip_network(n) for n in refused]
        self._names: dict[str, str] = {}
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._others: set[str] = set()
        """Services whose name is another one since `run` looked."""
        self._wake = asyncio.Event()

    def follow(self, key: str, name: str) -> None:
        """Look up `name` for a Service; "" ends it."""
        if self._names.get(key, "") == name:
            return
        self._addresses.pop(key, None)
        if name:
            self._names[key] = name
        else:
            del self._names[key]
        self._others.add(key)
        self._wake.set()

    def addresses(self, key: str) -> tuple[str, ...]:
        """What is known, sorted; () for nothing yet."""
        return self._addresses.get(key, ())

    async def run(self) -> None:
        """Until cancelled. A name that takes long to be looked up keeps no other one waiting, as long as the loop has threads left for it."""
        known: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                while self._others:
                    key = self._others.pop()
                    if (before := known.pop(key, None)) is not None:
                        before.cancel()
                    if (name := self._names.get(key)) is not None:
                        known[key] = group.create_task(self._keep_known(key, name), name=f"address of {name}")
                self._wake.clear()
                await self._wake.wait()

    async def _keep_known(self, key: str, name: str) -> None:
        while True:
            await self._look_up(key, name)
            await asyncio.sleep(AGAIN)

    async def _look_up(self, key: str, name: str) -> None:
        try:
            answers = await asyncio.get_running_loop().getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as e:  # the latter for a label of more than 63 characters
            log.warning("%s: %s cannot be resolved, what was known stays: %s", key, name, e)
            return
        given = {str(a[4][0]) for a in answers}
        usable = tuple(sorted(a for a in given if self._usable(a)))
        if len(usable) < len(given):
            log.warning("%s: addresses of %s inside of the cluster or this machine are left out", key, name)
        if self._names.get(key) == name and self._addresses.get(key, ()) != usable:
            self._addresses[key] = usable
            self._changed(key)

    def _usable(self, text: str) -> bool:
        address = ipaddress.ip_address(text.partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        special = (
            address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
        )
        return not special and not any(
            address.version == network.version and address in network for network in self._refused
        )
