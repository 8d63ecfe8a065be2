"""Speakers watch each other: a datagram to each of the others a few times a second, as long as there is something to
announce and somebody else who could. One that is silent for `SILENCE` is taken for dead.

A heartbeat says whose it is and which networks its node's uplink is in; it counts only if it comes from the address of
that node. One that ends in good order says so, and the others need not wait.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sampan.api.address_ranges import Address

log = logging.getLogger(__name__)
PORT = 7946
"""UDP, on the address of the node; the port of MetalLB's speakers."""
INTERVAL = 0.3
SILENCE = 1.2
"""Seconds. A failure is noticed SILENCE after the last word, which leaves time to tell the neighbours within 2 s."""
_MAGIC = "sampan-speaker-1"
_ALIVE, _LEAVING = "alive", "leaving"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(slots=True)
class Peer:
    """Another node's speaker. `networks` is None until it was heard of."""

    address: str
    deadline: float
    alive: bool
    networks: tuple[Network, ...] | None = None

    def reaches(self, address: Address) -> bool:
        return self.networks is None or any(address in n for n in self.networks)


class Heartbeats:
    """`changed` is called when somebody died, left, or came (back)."""

    def __init__(
        self, node: str, address: str, networks: tuple[Network, ...], changed: Callable[[], None]
    ) -> None:
        self._node = node
        self._address = address
        self._changed = changed
        self._networks = ",".join(map(str, networks))
        self._peers: dict[str, Peer] = {}
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._until = 0.0

    @property
    def peers(self) -> Mapping[str, Peer]:
        """Those who are alive, by node; one of whom nothing is known yet is, for a while."""
        return {name: peer for name, peer in self._peers.items() if peer.alive}

    def set_peers(self, addresses: Mapping[str, str]) -> None:
        """The other nodes and their addresses from now on; none: nobody is watched and nothing sent. At the beginning all are
        taken for alive until they had time to say so; who is new later, from their first word on."""
        now = asyncio.get_running_loop().time()
        if self._timer is None:
            self._until = now + SILENCE
        self._peers = {
            name: known if (known := self._peers.get(name)) and known.address == address else Peer(address, self._until, now < self._until)
            for name, address in addresses.items()
        }  # fmt: skip
        if self._peers and self._timer is None:
            self._start()
        elif not self._peers:
            self.close()

    def close(self) -> None:
        """Say goodbye to those who listen."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._say(_LEAVING)
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _start(self) -> None:
        family = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sock.bind((self._address, PORT))
        except OSError as e:
            # Without ears all would seem dead: they are taken for alive, and addresses stay with the nodes that they fall to.
            log.warning("heartbeats of load balancers, UDP port %d of %s: %s", PORT, self._address, e)
            sock.close()
            return
        self._socket = sock
        asyncio.get_running_loop().add_reader(sock, self._read)
        self._beat()

    def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        self._read()  # A loop that was held must not take for silence what waits to be read.
        self._say(_ALIVE)
        dead = [name for name, p in self._peers.items() if p.alive and p.deadline <= loop.time()]
        for name in dead:
            self._peers[name].alive = False
            log.info("the load balancer of %s is silent", name)
        deadlines = [p.deadline for p in self._peers.values() if p.alive]
        self._timer = loop.call_at(min([loop.time() + INTERVAL, *deadlines]), self._beat)
        if dead:
            self._changed()

    def _say(self, what: str) -> None:
        assert self._socket is not None
        message = f"{_MAGIC} {what} {self._node} {self._networks}".encode()
        for peer in self._peers.values():
            try:
                self._socket.sendto(message, (peer.address, PORT))
            except OSError as e:
                log.debug("heartbeat to %s: %s", peer.address, e)

    def _read(self) -> None:
        heard = False
        while self._socket is not None:
            try:
                message, origin = self._socket.recvfrom(2048)
            except OSError:  # Nothing more to read.
                break
            heard |= self._hear(message, origin)
        if heard:
            self._changed()

    def _hear(self, message: bytes, origin: Any) -> bool:
        """Whether it changes who is there."""
        try:
            magic, what, node, networks = message.decode().split(" ")
            parsed = tuple(ipaddress.ip_network(n) for n in networks.split(",") if n)
        except ValueError:
            return False
        peer = self._peers.get(node)
        if magic != _MAGIC or peer is None or origin[0] != peer.address:
            return False
        before = (peer.alive, peer.networks)
        peer.alive, peer.networks = what == _ALIVE, parsed
        peer.deadline = asyncio.get_running_loop().time() + SILENCE
        if not before[0] and peer.alive:
            log.info("the load balancer of %s is heard", node)
        return before != (peer.alive, peer.networks)
