"""What NetworkPolicies cost a node: one change, computed and in the kernel, with any number of pods and policies there.

    python -m bench.network_policy --pods 10 1000 10000 --policies 10 1000

As root; it works in a network namespace of its own. Each policy is about the pods of one application, and lets in those of another
and a block of addresses on a port; 100 of the pods are on this node. Times are medians of `--runs` changes, in milliseconds;
`first packets` are connections made per second between two pods of the node, the second of which is kept by its policy.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

from bench.figures import quantile
from sampan.api.errors import Object
from sampan.network.netlink import in_namespace
from sampan.networkpolicy.content import difference
from sampan.networkpolicy.desired import Desired
from sampan.networkpolicy.nftables import NfTables
from sampan.networkpolicy.reading import pod_of, policy_of, trimmed

_CLONE_NEWNET = 0x40000000
_LOCAL = 100
_NODE = "here"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.network_policy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--pods", type=int, nargs="+", default=[10, 1000, 10_000])
    parser.add_argument("--policies", type=int, nargs="+", default=[10, 1000])
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--connections", type=int, default=0, help="also make so many connections")
    o = parser.parse_args()
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
        raise SystemExit(f"cannot make a network namespace: {os.strerror(ctypes.get_errno())}")
    names = (
        "pods", "policies", "from nothing", "start again", "pod elsewhere", "pod here", "first pod of an app", "namespace of 10", "policy",
    )  # fmt: skip
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for pods in o.pods:
        for policies in o.policies:
            figures = World(pods, policies).figures(o.runs)
            print(f"| {pods} | {policies} | " + " | ".join(f"{f * 1000:.2f}" for f in figures) + " |")
    if o.connections:
        for kept in (False, True):
            print(f"first packets, {'kept' if kept else 'not kept'}: {_connect(o.connections, kept):.0f} per second")  # fmt: skip


class World:
    """`pods` in applications of ten; applications that no policy is about are free."""

    def __init__(self, pods: int, policies: int) -> None:
        self.desired = Desired()
        self.table = NfTables()
        self.table.rebuild({})
        self._pods, self._policies = pods, policies

    def figures(self, runs: int) -> Iterator[float]:
        """Seconds: all from nothing, a new start, then changes of one pod elsewhere (its label), one here (it comes and goes),
        the first of an application (with a chain of its own), a namespace of ten pods (its label), one policy."""
        yield _seconds(self._load)
        yield _seconds(self._start_again)
        far, near = self._pods - 1, 0
        yield self._median(runs, lambda n: self._set(far, f"app{n % 2}"))
        yield self._median(runs, lambda n: self._set(near, None if n % 2 else "app0"))
        self.desired.set_policy("default/own", policy_of(_policy("own", "own", "app0")))
        yield self._median(runs, lambda n: self._set(near, None if n % 2 else "own"))
        self.desired.set_policy("default/team", policy_of(_policy("team", "app0", "app1", team="a")))
        for number in range(10):
            self._set(self._pods + number, "app1", "team")
        yield self._median(runs, lambda n: self.desired.set_namespace("team", {"team": "ab"[n % 2]}))
        yield self._median(
            runs,
            lambda n: self.desired.set_policy(
                "default/one", None if n % 2 else policy_of(_policy("one", "app0", f"app{n}"))
            ),
        )

    def _load(self) -> None:
        self.desired.set_namespace("default", {})
        for number in range(self._pods):
            self._set(number, f"app{number // 10}")
        for number in range(self._policies):
            policy = policy_of(_policy(f"p{number}", f"app{number}", f"app{number + 1}"))
            self.desired.set_policy(f"default/p{number}", policy)
        self._flush()

    def _start_again(self) -> None:
        assert difference(self.table.read(), self.desired.content) == ({}, {})

    def _set(self, number: int, app: str | None, namespace: str = "default") -> None:
        uid = f"uid-{number}"
        pod = None if app is None else pod_of(trimmed(_pod(number, app, namespace)), _NODE)
        self.desired.set_pod(uid, pod)

    def _flush(self) -> None:
        self.table.apply(*self.desired.take())

    def _median(self, runs: int, change: Callable[[int], None]) -> float:
        def once(number: int) -> None:
            change(number)
            self._flush()

        once(0)
        return quantile([_seconds(lambda n=n: once(n)) for n in range(1, runs + 1)], 0.5)  # type: ignore[misc]


def _seconds(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _pod(number: int, app: str, namespace: str) -> Object:
    meta = {"name": f"p{number}", "namespace": namespace, "uid": f"uid-{number}", "labels": {"app": app}}
    spec = {
        "nodeName": _NODE if number < _LOCAL else "elsewhere",
        "containers": [{"ports": [{"name": "http", "containerPort": 80}]}],
    }
    address = f"10.{200 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
    return {"metadata": meta, "spec": spec, "status": {"phase": "Running", "podIPs": [{"ip": address}]}}


def _policy(name: str, app: str, client: str, **namespace: str) -> Object:
    peer: Object = {"podSelector": {"matchLabels": {"app": client}}}
    if namespace:
        peer["namespaceSelector"] = {"matchLabels": namespace}
    block = {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}}
    spec = {
        "podSelector": {"matchLabels": {"app": app}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [peer, block], "ports": [{"port": 8080}, {"port": "http"}]}],
    }
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


def _connect(count: int, kept: bool) -> float:
    """Connections per second from one namespace to another through this one."""
    ends = {name: f"bench-policy-{os.getpid()}-{name}" for name in ("client", "server")}
    addresses = {"client": "10.201.0.1", "server": "10.201.0.2"}
    with open("/proc/sys/net/ipv4/ip_forward", "w") as f:
        f.write("1")
    for name, netns in ends.items():
        for command in (
            f"ip netns add {netns}",
            f"ip link add {name} type veth peer name eth0 netns {netns}",
            f"ip link set {name} up",
            f"ip -n {netns} link set eth0 up",
            f"ip -n {netns} addr add {addresses[name]}/32 dev eth0",
            f"ip -n {netns} route add 10.201.0.254 dev eth0",
            f"ip -n {netns} route add default via 10.201.0.254",
            f"ip route add {addresses[name]}/32 dev {name}",
            f"sysctl -qw net.ipv4.conf.{name}.proxy_arp=1",
        ):
            subprocess.run(command.split(), check=True)
    subprocess.run(["ip", "addr", "add", "10.201.0.254/32", "dev", "lo"], check=True)
    desired, table = Desired(), NfTables()
    try:
        table.rebuild({})
        desired.set_namespace("default", {})
        for number, name in ((1, "client"), (2, "server")):
            pod = _pod(number, name, "default")
            pod["status"]["podIPs"] = [{"ip": addresses[name]}]
            desired.set_pod(name, pod_of(trimmed(pod), _NODE))
        if kept:
            desired.set_policy("default/p", policy_of(_policy("p", "server", "client")))
        table.apply(*desired.take())
        listener = in_namespace(f"/run/netns/{ends['server']}", lambda: socket.create_server(("", 8080), backlog=512))  # fmt: skip
        threading.Thread(target=_accept, args=[listener, count], daemon=True).start()

        def run() -> float:
            begun = time.perf_counter()
            for _ in range(count):
                socket.create_connection((addresses["server"], 8080), 5).close()
            return count / (time.perf_counter() - begun)

        return in_namespace(f"/run/netns/{ends['client']}", run)
    finally:
        subprocess.run(["ip", "addr", "del", "10.201.0.254/32", "dev", "lo"], check=False)
        for name, netns in ends.items():
            subprocess.run(["ip", "link", "del", name], check=False)
            subprocess.run(["ip", "netns", "del", netns], check=False)


def _accept(listener: socket.socket, count: int) -> None:
    with listener:
        for _ in range(count):
            listener.accept()[0].close()


if __name__ == "__main__":
    main()
