"""Other name servers: one exchange with one, by UDP and, where the answer does not fit, by TCP.

Each question goes from a socket of its own, so with a port and a number that nobody can guess; what does not come from the
server, or is about another question, is not looked at. Sockets are made by `Network`, in the network that resolvers are
reached from: that of the host, whose resolver may be on its loopback.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import random
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sampan.client.metrics import Histogram
from sampan.dns import messages, wire
from sampan.dns.messages import Message

READ_TIMEOUT = 2.0
"""Seconds for one answer of one server."""
TIMEOUT = 5.0
"""Seconds for an answer of any."""
_FIRST_PAUSE, _MOST_PAUSE = 0.5, 10.0
_LOOK_AGAIN = 5.0
_DURATIONS = (0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192)  # fmt: skip

SocketMaker = Callable[[int, int], socket.socket]
"""From family and type to a socket in the network that resolvers are reached from."""


class NoAnswer(Exception):
    """No server answered."""


@dataclass(slots=True)
class Server:
    """One name server and how it did. One that failed often is left alone for a while, which doubles up to ten seconds."""

    address: str
    port: int
    fails: int = 0
    down_until: float = 0.0
    pause: float = _FIRST_PAUSE
    durations: dict[int, Histogram] = field(default_factory=dict)
    """By error code."""

    @property
    def text(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    def answered(self, seconds: float, rcode: int) -> None:
        self.fails, self.down_until, self.pause = 0, 0.0, _FIRST_PAUSE
        histogram = self.durations.get(rcode)
        if histogram is None:
            histogram = self.durations[rcode] = Histogram(_DURATIONS)
        histogram.observe(seconds)

    def failed(self, most: int, now: float) -> None:
        self.fails += 1
        if most and self.fails >= most:
            self.down_until = now + self.pause
            self.pause = min(self.pause * 2, _MOST_PAUSE)


async def exchange(
    server: Server,
    make: SocketMaker,
    name: bytes,
    kind: int,
    *,
    dnssec: bool,
    checking_disabled: bool,
    tcp: bool,
) -> Message:
    """Ask one server. Raises OSError, TimeoutError, messages.Malformed."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    number = int.from_bytes(os.urandom(2), "big")
    query = messages.make_query(number, name, kind, dnssec=dnssec, checking_disabled=checking_disabled)
    async with asyncio.timeout(READ_TIMEOUT):
        message = None if tcp else await _by_udp(server, make, query, number, name, kind)
        if message is None or message.flags & wire.TC:
            message = await _by_tcp(server, make, query, number, name, kind)
    server.answered(loop.time() - began, message.rcode)
    return message


def _family(server: Server) -> int:
    return socket.AF_INET6 if ":" in server.address else socket.AF_INET


async def _by_udp(
    server: Server, make: SocketMaker, query: bytes, number: int, name: bytes, kind: int
) -> Message:
    loop = asyncio.get_running_loop()
    with make(_family(server), socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((server.address, server.port))
        sock.send(query)
        while True:
            message = _matching(await loop.sock_recv(sock, 65535), number, name, kind)
            if message is not None:
                return message


async def _by_tcp(
    server: Server, make: SocketMaker, query: bytes, number: int, name: bytes, kind: int
) -> Message:
    loop = asyncio.get_running_loop()
    with make(_family(server), socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, (server.address, server.port))
        await loop.sock_sendall(sock, struct.pack("!H", len(query)) + query)
        data = b""
        while len(data) < 2 or len(data) < 2 + int.from_bytes(data[:2], "big"):
            more = await loop.sock_recv(sock, 65535)
            if not more:
                raise ConnectionResetError(f"{server.text} closed the connection before it answered")
            data += more
    message = _matching(data[2 : 2 + int.from_bytes(data[:2], "big")], number, name, kind)
    if message is None:
        raise messages.Malformed("an answer to another question")
    return message


def _matching(data: bytes, number: int, name: bytes, kind: int) -> Message | None:
    """The answer, if it is one to this question."""
    try:
        message = messages.read_message(data)
    except messages.Malformed:
        return None
    if message.id != number:
        return None
    same = message.key == name and message.type == kind
    # Some leave the question out when they cannot answer; such an answer does not get here, and the next server is asked.
    return message if same else None


class Upstreams:
    """The servers of one `forward` directive."""

    def __init__(
        self, targets: Sequence[str], make: SocketMaker, *, policy: str, max_fails: int, force_tcp: bool, own: Sequence[str]
    ) -> None:  # fmt: skip
        self._targets = targets
        self._make = make
        self._policy = policy
        self._max_fails = max_fails
        self._force_tcp = force_tcp
        self._own = frozenset(own)
        self._turn = 0
        self._servers: list[Server] = []
        self._looked = -_LOOK_AGAIN
        self.all_down = 0
        """How often all servers were left alone and one was asked all the same."""

    @property
    def known(self) -> list[Server]:
        """Those that were asked last."""
        return self._servers

    async def ask(self, name: bytes, kind: int, *, dnssec: bool, checking_disabled: bool) -> Message:
        """The answer of the first server that gives one. Raises NoAnswer."""
        loop = asyncio.get_running_loop()
        problem = "there is no name server to ask"
        try:
            async with asyncio.timeout(TIMEOUT):
                order = self._order(loop.time())
                for server in order if len(order) > 1 else order * 2:
                    try:
                        return await exchange(
                            server, self._make, name, kind,
                            dnssec=dnssec, checking_disabled=checking_disabled, tcp=self._force_tcp,
                        )  # fmt: skip
                    except (OSError, messages.Malformed) as e:  # TimeoutError is an OSError
                        problem = f"{server.text}: {str(e) or 'no answer in time'}"
                        server.failed(self._max_fails, loop.time())
        except TimeoutError:
            problem = f"{problem} (and no time for others)"
        raise NoAnswer(problem)

    def servers(self) -> list[Server]:
        """Those of the directive, and of the files that it names as these are now."""
        now = asyncio.get_running_loop().time()
        if now - self._looked < _LOOK_AGAIN:
            return self._servers
        self._looked = now
        known = {s.text: s for s in self._servers}
        wanted: list[Server] = []
        for target in self._targets:
            found = resolvers(Path(target)) if target.startswith("/") else [target]
            for text in found:
                host, _, port = text.rpartition(":")
                server = Server(host.strip("[]"), int(port))
                # A resolv.conf may name the cluster's own DNS: asking it for what it does not know would go round for ever.
                if server.address not in self._own:
                    wanted.append(known.get(server.text, server))
        self._servers = wanted
        return wanted

    def _order(self, now: float) -> list[Server]:
        servers = list(self.servers())
        if self._policy == "random":
            random.shuffle(servers)
        elif self._policy == "round_robin" and servers:
            self._turn = (self._turn + 1) % len(servers)
            servers = servers[self._turn :] + servers[: self._turn]
        well = [s for s in servers if s.down_until <= now]
        if well or not servers:
            return well
        self.all_down += 1
        return [random.choice(servers)]


def resolvers(path: Path) -> list[str]:
    """The name servers of a resolv.conf, as `address:port`."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        address = words[1]
        try:
            version = ipaddress.ip_address(address).version
        except ValueError:
            continue
        found.append(f"[{address}]:53" if version == 6 else f"{address}:53")
    return found


def searches(path: Path) -> list[str]:
    """The search domains of a resolv.conf."""
    found: list[str] = []
    try:
        for line in path.read_text(errors="replace").splitlines():
            words = line.split()
            if words and words[0] in ("search", "domain"):
                found = words[1:]
    except OSError:
        pass
    return found
