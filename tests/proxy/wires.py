"""A node with two pods, another node's pod and an outsider, as network namespaces joined by veths: sockets are made inside them,
so that one test process is all of them."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sampan.network.netlink import in_namespace
from sampan.network.nftables_monitor import NftablesMonitor
from sampan.proxy.conntrack import Conntrack
from sampan.proxy.nftables import NfTables
from sampan.proxy.types import Elements, Layout, Operation

T = TypeVar("T")
NODE, NODE6 = "172.29.0.2", "fd00:29::2"
OUTSIDER, OUTSIDER6 = "172.29.0.1", "fd00:29::1"
PODS = {"a": ("10.244.0.2", "fd00:244::2"), "b": ("10.244.0.3", "fd00:244::3"), "far": ("10.244.1.2", "fd00:244:0:1::2")}  # fmt: skip
"""`far` is a pod of another node, which the outsider's namespace is, too."""
LAYOUT = Layout(
    (NODE, NODE6),
    ("10.244.0.0/16", "fd00:244::/56"),
    ("10.96.0.0/16", "fd00:96::/112"),
    ("10.244.0.0/24", "fd00:244::/64"),
)


class KernelTable:
    """The tables of a network namespace, for a process outside of it."""

    def __init__(self, path: str, monitor: NftablesMonitor | None = None) -> None:
        self._path = path
        self._table = in_namespace(path, lambda: NfTables(monitor))

    def prepare(self, layout: Layout) -> None:
        in_namespace(self._path, lambda: self._table.prepare(layout))

    def distrust(self) -> None:
        self._table.distrust()

    def read(self) -> Elements:
        return self._table.read()

    def apply(self, operations: Any) -> None:
        found: list[Operation] = list(operations)
        self._table.apply(found)

    def close(self) -> None:
        self._table.close()


class Wires:
    def __init__(self, name: str) -> None:
        self.name = name

    def path(self, who: str) -> str:
        return f"/run/netns/{self.name}-{who}"

    def inside(self, who: str, call: Callable[[], T]) -> T:
        return in_namespace(self.path(who), call)

    def table(self, monitor: NftablesMonitor | None = None) -> KernelTable:
        return KernelTable(self.path("node"), monitor)

    def monitor(self) -> NftablesMonitor:
        return self.inside("node", NftablesMonitor)

    def conntrack(self) -> Conntrack:
        return self.inside("node", Conntrack)

    def run(self, who: str, *command: str, stdin: str = "") -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", f"{self.name}-{who}", *command], input=stdin, text=True, capture_output=True, check=False
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def listen(self, who: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket on all addresses of both families."""

        def make() -> socket.socket:
            s = socket.socket(socket.AF_INET6, kind)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            s.bind(("::", port))
            if kind == socket.SOCK_STREAM:
                s.listen(64)
            s.settimeout(2)
            return s

        return self.inside(who, make)

    def connect(self, who: str, address: str, port: int, timeout: float = 2) -> socket.socket:
        return self.inside(who, lambda: socket.create_connection((address, port), timeout))

    def udp(self, who: str, address: str, port: int) -> socket.socket:
        def make() -> socket.socket:
            s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
            s.settimeout(2)
            s.connect((address, port))
            return s

        return self.inside(who, make)


@contextmanager
def wires(name: str) -> Iterator[Wires]:
    made = Wires(f"{name}-{os.getpid()}")
    namespaces = ["node", "outsider", "a", "b"]
    try:
        for who in namespaces:
            _do(f"netns add {made.name}-{who}")
            _do(f"-n {made.name}-{who} link set lo up")
        _join(made, "outsider", NODE, OUTSIDER, NODE6, OUTSIDER6)
        # The other node's pod, as seen from here: an address behind the outsider.
        for address in PODS["far"]:
            _do(
                f"-n {made.name}-outsider addr add {address}/{'128 nodad' if ':' in address else '32'} dev lo"
            )
        for destination, via in (("default", OUTSIDER), ("default", OUTSIDER6)):
            _do(f"-n {made.name}-node route add {destination} via {via}")
        for destination, via in (("10.96.0.0/16", NODE), ("fd00:96::/112", NODE6), ("10.244.0.0/24", NODE), ("fd00:244::/64", NODE6), ("198.51.100.0/24", NODE), ("fd00:51::/64", NODE6)):  # fmt: skip
            _do(f"-n {made.name}-outsider route add {destination} via {via}")
        for who in ("a", "b"):
            _join(made, who, "169.254.1.1", PODS[who][0], "fe80::1", PODS[who][1])
        made.run(
            "node",
            "sysctl",
            "-qw",
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
            "net.ipv4.icmp_ratelimit=0",
        )
        yield made
    finally:
        for who in namespaces:
            subprocess.run(["ip", "netns", "del", f"{made.name}-{who}"], check=False)


def _join(made: Wires, who: str, here: str, there: str, here6: str, there6: str) -> None:
    node, other = f"{made.name}-node", f"{made.name}-{who}"
    _do(f"-n {node} link add to-{who} type veth peer name eth0 netns {other}")
    pod = who != "outsider"
    for ns, link, four, six in ((node, f"to-{who}", here, here6), (other, "eth0", there, there6)):
        _do(f"-n {ns} link set {link} up")
        host = pod and ns == other
        _do(f"-n {ns} addr add {four}/{32 if pod else 24} dev {link}")
        _do(f"-n {ns} addr add {six}/{128 if host else 64} dev {link} nodad")
    if pod:
        _do(f"-n {node} route add {there}/32 dev to-{who}")
        _do(f"-n {node} route add {there6}/128 dev to-{who}")
        _do(f"-n {other} route add {here}/32 dev eth0")
        _do(f"-n {other} route add default via {here} dev eth0")
        _do(f"-n {other} route add default via {here6} dev eth0")


def _do(words: str) -> None:
    done = subprocess.run(["ip", *words.split()], text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"ip {words}: {done.stderr}"
