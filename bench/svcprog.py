"""How long it takes from the creation of a Service and its EndpointSlice until its address accepts a connection inside
a node's network namespace, with any number of other Services there. Needs root. Times are in seconds.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench.api import Api, Target, connect, options
from bench.figures import quantile

_T = TypeVar("_T")
_PORT = 8765
_CLONE_NEWNET = 0x40000000
_BETWEEN_CONNECTS = 0.002


@dataclass(frozen=True, slots=True)
class Programming:
    others: int
    p50: float
    slowest: float
    last_other: float
    """From the creation of the last of the others until it answers."""


async def measure(
    target: Target,
    netns: Path,
    backend: str,
    *,
    others: int = 0,
    probes: int = 15,
    namespace: str = "default",
) -> Programming:
    """Makes `others` Services, then `probes` more in turn, and removes them all. `backend` is an address inside
    `netns` that a listener can be bound to."""
    tag = uuid.uuid4().hex[:5]
    services = f"/api/v1/namespaces/{namespace}/services"
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
    listener = _inside(netns, lambda: _listener(backend))
    threading.Thread(target=_accept_all, args=(listener,), daemon=True).start()
    names: list[str] = []

    async def make(api: Api, name: str) -> str:
        names.append(name)
        made = await api.create(services, _service(name))
        await api.create(slices, _endpoints(name, backend))
        return str(made["spec"]["clusterIP"])

    async def answers(address: str) -> float:
        return await asyncio.to_thread(_inside, netns, lambda: _first_answer(address))

    async with connect(target, connections=16) as api:
        try:
            addresses = await asyncio.gather(*(make(api, f"other-{tag}-{i}") for i in range(others)))
            began = time.perf_counter()
            last_other = await answers(addresses[-1]) - began if addresses else 0.0
            took = []
            for i in range(probes):
                began = time.perf_counter()
                took.append(await answers(await make(api, f"probe-{tag}-{i}")) - began)
        finally:
            for name in names:
                await api.delete(f"{services}/{name}")
                await api.delete(f"{slices}/{name}-bench")
            listener.shutdown(socket.SHUT_RDWR)  # `close` alone would not wake the thread that accepts
            listener.close()
    return Programming(others, quantile(took, 0.5), max(took), last_other)


def _inside(netns: Path, work: Callable[[], _T]) -> _T:
    """Do `work` on a thread that has entered a network namespace; the thread ends with it."""

    def enter_and_work() -> _T:
        libc = ctypes.CDLL(None, use_errno=True)
        fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.setns(fd, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter {netns}")
        finally:
            os.close(fd)
        return work()

    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(enter_and_work).result()


def _listener(address: str) -> socket.socket:
    return socket.create_server((address, _PORT), backlog=512)


def _accept_all(listener: socket.socket) -> None:
    try:
        while True:
            listener.accept()[0].close()
    except OSError:  # closed at the end
        return


def _first_answer(address: str, timeout: float = 60.0) -> float:
    """When a connection was made for the first time. Raises TimeoutError."""
    deadline = time.perf_counter() + timeout
    while time.perf_counter() < deadline:
        try:
            socket.create_connection((address, 80), timeout=0.05).close()
            return time.perf_counter()
        except OSError:
            time.sleep(_BETWEEN_CONNECTS)
    raise TimeoutError(f"{address} did not answer within {timeout:.0f} s")


def _service(name: str) -> dict[str, Any]:
    port = {"name": "p", "port": 80, "targetPort": _PORT, "protocol": "TCP"}
    metadata = {"name": name, "labels": {"bench": "svcprog"}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [port]}}


def _endpoints(service: str, address: str) -> dict[str, Any]:
    labels = {
        "kubernetes.io/service-name": service,
        "endpointslice.kubernetes.io/managed-by": "bench",
        "bench": "svcprog",
    }
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{service}-bench", "labels": labels},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": "p", "port": _PORT, "protocol": "TCP"}],
    }


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument(
        "--netns", type=Path, required=True, help="the node's namespace, such as /run/netns/NAME"
    )
    parser.add_argument("--backend", required=True, help="an address of the node, in its namespace")
    parser.add_argument("--others", type=int, default=0)
    parser.add_argument("--probes", type=int, default=15)
    parser.add_argument("--namespace", default="default")
    o = parser.parse_args()
    work = measure(
        Target(o.server, o.token), o.netns, o.backend, others=o.others, probes=o.probes, namespace=o.namespace
    )
    print(json.dumps(asdict(asyncio.run(work)), indent=1))


if __name__ == "__main__":
    main()
