"""What the proxy costs, in a throw-away network namespace: a start, one changed endpoint, one new Service and their time in the
kernel beside 10, 1,000 and 10,000 Services; what the counters and the watch for foreign changes add; memory per 1,000 Services.

    python -m bench.proxy_transactions [--services 10 1000 10000] [--endpoints 2] [--changes 200]

As root. Each line is a Markdown row.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sampan.api.errors import Object
from sampan.network.netlink import in_namespace
from sampan.network.nftables_monitor import NftablesMonitor
from sampan.proxy import services
from sampan.proxy.nftables import NfTables
from sampan.proxy.rules import Rules
from sampan.proxy.services import Place
from sampan.proxy.types import Frontend, Layout, Operation, Target

_NODE = "172.29.0.2"
_LAYOUT = Layout((_NODE,), ("10.128.0.0/9",), ("10.0.0.0/10",))
_PLACE = Place("node-1", (_NODE,), (_NODE,))


class _Timed(NfTables):
    """Keeps the seconds that each transaction took, which is time in the kernel but for some packing."""

    def __init__(self, monitor: NftablesMonitor | None = None) -> None:
        super().__init__(monitor)
        self.seconds: list[float] = []

    def apply(self, operations: Sequence[Operation]) -> None:
        began = time.perf_counter()
        super().apply(operations)
        self.seconds.append(time.perf_counter() - began)


def service(number: int) -> Object:
    return {
        "metadata": {"namespace": "default", "name": f"service-{number}", "uid": f"00000000-{number}"},
        "spec": {
            "clusterIP": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
            "type": "ClusterIP",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}],
            "selector": {"app": f"service-{number}"},
        },
    }


def endpoint_slice(number: int, endpoints: int, first: int = 0) -> Object:
    addresses = [number * endpoints + n for n in range(first, first + endpoints)]
    return {
        "metadata": {"namespace": "default", "name": f"service-{number}-abcde", "uid": f"11111111-{number}"},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": [f"10.{128 + (a >> 16)}.{a >> 8 & 255}.{a & 255}"],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": "node-1",
            }
            for a in addresses
        ],
    }


def targets(number: int, endpoints: int, first: int = 0) -> dict[Frontend, Target]:
    return services.targets(service(number), [endpoint_slice(number, endpoints, first)], _PLACE)


@contextmanager
def namespace() -> Iterator[str]:
    name = f"bench-proxy-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        yield f"/run/netns/{name}"
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def measure(count: int, endpoints: int, changes: int, *, watched: bool = False) -> None:
    """Print one row; in the network namespace that the thread is in."""
    table = _Timed(NftablesMonitor() if watched else None)
    rules = Rules(table, _LAYOUT)
    state = {f"default/service-{n}": targets(n, endpoints) for n in range(count)}
    began = time.perf_counter()
    rules.start(state)
    start = time.perf_counter() - began
    began = time.perf_counter()
    Rules(table, _LAYOUT).start(state)
    again = time.perf_counter() - began

    def each(change: Callable[[int], Any]) -> tuple[float, float]:
        table.seconds.clear()
        whole = []
        for number in range(changes):
            at = time.perf_counter()
            change(number)
            whole.append(time.perf_counter() - at)
        return statistics.median(whole), statistics.median(table.seconds)

    first = dict.fromkeys(range(count), 0)

    def change_endpoint(number: int) -> None:
        n = number * 7919 % count
        first[n] ^= 1
        rules.update({f"default/service-{n}": targets(n, endpoints, first[n])})

    endpoint = each(change_endpoint)
    new = each(lambda n: rules.update({f"default/new-{n}": targets(count + n, endpoints)}))
    gone = each(lambda n: rules.update({f"default/new-{n}": {}}))
    began = time.perf_counter()
    rules.repair()
    repair = time.perf_counter() - began
    cells = [f"{count:,}{' watched' if watched else ''}", f"{start * 1e3:,.0f} ms", f"{again * 1e3:,.0f} ms", f"{repair * 1e3:,.0f} ms"]  # fmt: skip
    cells += [f"{whole * 1e3:.3f} / {kernel * 1e3:.3f} ms" for whole, kernel in (endpoint, new, gone)]
    print(f"| {' | '.join(cells)} |", flush=True)
    table.close()


def memory(count: int, endpoints: int) -> None:
    """Print what the process and the kernel need for `count` Services, per 1,000."""
    gc.collect()
    resident, slab = _resident(), _kernel()
    objects = [(service(n), endpoint_slice(n, endpoints)) for n in range(count)]
    with_objects = _resident()
    rules = Rules(NfTables(), _LAYOUT)
    rules.start({f"default/{s['metadata']['name']}": services.targets(s, [e], _PLACE) for s, e in objects})
    gc.collect()
    per = 1000 / count / 1e6
    print(
        f"memory per 1,000 Services of {endpoints} endpoints: {(with_objects - resident) * per:.2f} MB for the objects of "
        f"the API, {(_resident() - with_objects) * per:.2f} MB for the rules, {(_kernel() - slab) * per:.2f} MB in the kernel"
    )


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _kernel() -> int:
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return sum(int(fields[name].split()[0]) * 1024 for name in ("Slab", "Percpu", "VmallocUsed"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.proxy_transactions", description=__doc__)
    parser.add_argument("--services", type=int, nargs="+", default=[10, 1000, 10_000])
    parser.add_argument("--endpoints", type=int, default=2)
    parser.add_argument("--changes", type=int, default=200)
    o = parser.parse_args()
    with namespace() as path:
        in_namespace(path, lambda: memory(max(o.services), o.endpoints))
    print("| Services | start, empty kernel | start, nothing differs | repair | one endpoint: all / kernel | new Service | Service gone |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for watched in (False, True):
        for count in o.services:
            with namespace() as path:
                in_namespace(path, partial(measure, count, o.endpoints, o.changes, watched=watched))


if __name__ == "__main__":
    main()
