"""Pods as network namespaces around one node's, and a prober that tries every pod to every pod at once.

All sockets belong to this process. A packet that is let through has arrived before those that are sent after it have: what is
expected to pass is waited for, what is not has not come until then. Nothing waits for a time-out.
"""

from __future__ import annotations

import functools
import os
import selectors
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sampan.network.netlink import in_namespace

PORTS = (80, 81)
PROTOCOLS = ("TCP", "UDP")
PATIENCE = 10.0
_FIRST_PORT = 20000
_GATEWAY = "169.254.1.1"
_MAC = "ee:ee:ee:ee:ee:ee"


@dataclass(frozen=True)
class Probe:
    """From one address to another."""

    source: str
    destination: str
    protocol: str
    port: int

    def __str__(self) -> str:
        return f"{self.source} -> {self.destination} {self.protocol} {self.port}"


@dataclass
class Stand:
    """One namespace: its addresses, and what listens in it."""

    netns: str
    addresses: tuple[str, ...]
    listeners: list[socket.socket] = field(default_factory=list)

    @property
    def path(self) -> str:
        return f"/run/netns/{self.netns}"


class Prober:
    """`pods` and one that stands for what is outside the cluster, each on a link of its own to the node `netns`."""

    def __init__(self, prefix: str, pods: Iterable[tuple[str, ...]], outside: tuple[str, ...]) -> None:
        self.netns = f"{prefix}-node"
        self._stands = [Stand(f"{prefix}-{n}", a) for n, a in enumerate((*pods, outside))]
        self._at = {address: stand for stand in self._stands for address in stand.addresses}
        self._answering = selectors.DefaultSelector()
        self._runs = 0

    def build(self) -> None:
        for name in (self.netns, *(s.netns for s in self._stands)):
            subprocess.run(["ip", "netns", "add", name], check=True)
        in_namespace(f"/run/netns/{self.netns}", _make_router)
        for number, stand in enumerate(self._stands):
            self._link(number, stand)
        for stand in self._stands:
            stand.listeners = in_namespace(stand.path, _listen)
            for listener in stand.listeners:
                self._answering.register(listener, selectors.EVENT_READ)

    def remove(self) -> None:
        for stand in self._stands:
            for listener in stand.listeners:
                listener.close()
        self._answering.close()
        for name in (self.netns, *(s.netns for s in self._stands)):
            subprocess.run(["ip", "netns", "del", name], check=False)

    def run(self, probes: Iterable[Probe], expected: set[Probe]) -> set[Probe]:
        """Those of `probes` that got through, once all of `expected` have (or have not within a long time)."""
        self._runs += 1
        wanted = sorted(probes, key=lambda p: p in expected)
        sockets: dict[socket.socket, Probe] = {}
        by_stand: dict[str, list[Probe]] = {}
        for probe in wanted:
            by_stand.setdefault(self._at[probe.source].netns, []).append(probe)
        for several in by_stand.values():
            # What must pass comes last, see above.
            opened = functools.partial(_open, several, _FIRST_PORT + self._runs)
            sockets |= in_namespace(self._at[several[0].source].path, opened)
        try:
            return self._await(sockets, expected)
        finally:
            for s in sockets:
                s.close()

    def arrives(self, source: str, destination: str, protocol: int, packet: bytes) -> bool:
        """Whether a raw packet gets through: delivery is over when sending is, for no link here has a queue."""
        receiver = in_namespace(self._at[destination].path, lambda: _raw(protocol))
        sender = in_namespace(self._at[source].path, lambda: _raw(protocol))
        with receiver, sender:
            receiver.settimeout(0.2)
            sender.bind((source, 0))
            sender.sendto(packet, (destination, 0))
            try:
                while True:
                    found = receiver.recv(2048)
                    if found[12:16] == socket.inet_aton(source):
                        return True
            except TimeoutError:
                return False

    @contextmanager
    def connected(
        self, source: str, destination: str, port: int
    ) -> Iterator[tuple[socket.socket, socket.socket]]:
        """A TCP connection's two ends."""
        listener = next(
            s
            for s in self._at[destination].listeners
            if s.type & socket.SOCK_STREAM and s.getsockname()[1] == port
        )
        _accept(listener)
        client = in_namespace(
            self._at[source].path, lambda: socket.create_connection((destination, port), PATIENCE)
        )
        with client, listener.accept()[0] as server:
            server.settimeout(PATIENCE)
            yield client, server

    def _await(self, sockets: dict[socket.socket, Probe], expected: set[Probe]) -> set[Probe]:
        seen: set[Probe] = set()
        with selectors.DefaultSelector() as waiting:
            for s, probe in sockets.items():
                event = selectors.EVENT_WRITE if probe.protocol == "TCP" else selectors.EVENT_READ
                waiting.register(s, event, (probe, s))
            deadline = time.monotonic() + PATIENCE
            missing = expected & set(sockets.values())
            calm = False
            while not calm and time.monotonic() < deadline:
                self._answer()
                ready = waiting.select(0 if not missing else 0.05)
                for key, _ in ready:
                    waiting.unregister(key.fileobj)
                    probe, s = key.data
                    if not s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                        seen.add(probe)
                        missing.discard(probe)
                calm = not missing and not ready
        return seen

    def _answer(self) -> None:
        """Echo datagrams; connections are made by the kernel."""
        for key, _ in self._answering.select(0):
            s = key.fileobj
            assert isinstance(s, socket.socket)
            if s.type & socket.SOCK_DGRAM == socket.SOCK_DGRAM:
                _echo(s)
            else:
                _accept(s)

    def _link(self, number: int, stand: Stand) -> None:
        name, mac = f"pod{number}", f"02:53:00:00:01:{number:02x}"
        here = [f"link add {name} address {_MAC} type veth peer name eth0 address {mac} netns {stand.netns}"]
        here += [f"link set {name} up"]
        there = [f"addr add {a} dev eth0" + " nodad" * (":" in a) for a in stand.addresses]
        there += ["link set lo up", "link set eth0 up"]
        for address in stand.addresses:
            bits = 128 if ":" in address else 32
            here += [f"route add {address}/{bits} dev {name}", f"neigh add {address} lladdr {mac} dev {name}"]
        there += [
            f"neigh add {_GATEWAY} lladdr {_MAC} dev eth0", f"route add default via {_GATEWAY} dev eth0 onlink",
            f"neigh add fe80::1 lladdr {_MAC} dev eth0", "route add default via fe80::1 dev eth0",
        ]  # fmt: skip
        for netns, batch in ((self.netns, here), (stand.netns, there)):
            subprocess.run(
                ["ip", "-n", netns, "-batch", "-"], input="\n".join(batch), text=True, check=True, stdout=subprocess.PIPE
            )  # fmt: skip


def _make_router() -> None:
    """In the node's namespace: a thread sees the settings of its own."""
    for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        Path("/proc/sys/net", name).write_text("1")


def _listen() -> list[socket.socket]:
    found = []
    for port in PORTS:
        found.append(
            socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=256)
        )
        datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        datagrams.bind(("::", port))
        found.append(datagrams)
    for s in found:
        s.setblocking(False)
    return found


def _open(probes: list[Probe], port: int) -> dict[socket.socket, Probe]:
    """They come from `port`, which no run before used: the kernel would take them for connections of that one."""
    made = {}
    for probe in probes:
        family = socket.AF_INET6 if ":" in probe.source else socket.AF_INET
        s = socket.socket(family, socket.SOCK_STREAM if probe.protocol == "TCP" else socket.SOCK_DGRAM)
        s.setblocking(False)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((probe.source, port))
        s.connect_ex((probe.destination, probe.port))
        if probe.protocol == "UDP":
            s.send(b"?")
        made[s] = probe
    return made


def _raw(protocol: int) -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)


def _accept(s: socket.socket) -> None:
    try:
        while True:
            s.accept()[0].close()
    except BlockingIOError:
        pass


def _echo(s: socket.socket) -> None:
    try:
        while True:
            data, peer = s.recvfrom(16)
            s.sendto(data, peer)
    except BlockingIOError:
        pass


@contextmanager
def built(pods: Iterable[tuple[str, ...]], outside: tuple[str, ...]) -> Iterator[Prober]:
    prober = Prober(f"policy-{os.getpid()}", pods, outside)
    try:
        prober.build()
        yield prober
    finally:
        prober.remove()
