"""How many requests a rolling update loses: `python -m bench.rolling_update [--pods N] [--clients N] [--pre-stop SECONDS]`.

On a cluster of its own with two nodes, a Deployment is replaced pod by pod while clients ask its Service without pause, by the
NodePort of one node and by the cluster address. Every request is a connection of its own; one is lost if it is refused, reset
or not answered whole within five seconds. A pod's server ends at once when it is told to; before that its preStop hook waits
(0 leaves it out: then requests that are on their way to it are lost, as they are on any cluster). Needs root.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import cluster
from bench.figures import quantile
from sampan.cluster.config import ClusterConfig

LIMIT = 5.0
"""Seconds that an answer may take."""
_SERVER = """
mkdir -p /www && hostname > /www/index.html
trap 'kill $!; exit 0' TERM
httpd -f -p 8080 -h /www &
wait
"""


@dataclass(slots=True)
class Outcome:
    """What became of the requests to one address."""

    took: list[float] = field(default_factory=list)
    """Seconds of each that was answered."""
    lost: Counter[str] = field(default_factory=Counter)
    answered_by: set[bytes] = field(default_factory=set)

    def __str__(self) -> str:
        lost = ", ".join(f"{n} {why}" for why, n in self.lost.most_common()) or "none"
        p50, p99 = (quantile(self.took, q) * 1000 for q in (0.5, 0.99))
        return f"{len(self.took)} answered by {len(self.answered_by)} pods (p50 {p50:.1f} ms, p99 {p99:.1f} ms), lost: {lost}"


@contextlib.asynccontextmanager
async def load(
    targets: Sequence[tuple[str, int]], clients: int, host: str = "x"
) -> AsyncIterator[dict[tuple[str, int], Outcome]]:
    """Ask each of the addresses for `host` with so many clients as long as the block lasts. What is under way at its end is
    still waited for."""
    found = {target: Outcome() for target in targets}
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for (address, port), outcome in found.items():
            for _ in range(clients):
                group.create_task(_client(address, port, host, outcome, over))
        try:
            yield found
        finally:
            over.set()


async def _client(address: str, port: int, host: str, outcome: Outcome, over: asyncio.Event) -> None:
    while not over.is_set():
        began = time.perf_counter()
        try:
            async with asyncio.timeout(LIMIT):
                body = await _ask(address, port, host)
        except TimeoutError:
            outcome.lost["not answered"] += 1
        except OSError as e:
            outcome.lost[type(e).__name__] += 1
        else:
            if body is None:
                outcome.lost["cut off"] += 1
            else:
                outcome.took.append(time.perf_counter() - began)
                outcome.answered_by.add(body)


async def _ask(address: str, port: int, host: str) -> bytes | None:
    """The body of an answer, None for one that is not whole."""
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(f"GET / HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
        return body if b" 200 " in head and body else None
    finally:
        writer.close()


def manifests(pods: int, pre_stop: float) -> str:
    """A Deployment and its Service."""
    container: dict[str, Any] = {
        "name": "server",
        "image": cluster.IMAGE,
        "command": ["sh", "-c", _SERVER],
        "env": [{"name": "VERSION", "value": "1"}],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    if pre_stop:
        container["lifecycle"] = {"preStop": {"exec": {"command": ["sleep", str(pre_stop)]}}}
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "rolling"},
        "spec": {
            "replicas": pods,
            "selector": {"matchLabels": {"app": "rolling"}},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": max(1, pods // 4)}},
            "template": {
                "metadata": {"labels": {"app": "rolling"}},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 10},
            },
        },
    }
    ports = [{"port": 80, "targetPort": 8080}]
    spec = {"type": "NodePort", "selector": {"app": "rolling"}, "ports": ports}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "rolling"}, "spec": spec}
    return json.dumps(deployment) + "\n" + json.dumps(service)


async def kubectl(kubeconfig: Path, *arguments: str, stdin: str = "") -> str:
    """What it prints. Raises CalledProcessError."""
    process = await asyncio.create_subprocess_exec(
        "kubectl", *arguments, env={**os.environ, "KUBECONFIG": str(kubeconfig)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate(stdin.encode())
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, ["kubectl", *arguments])
    return out.decode()


async def make(kubeconfig: Path, *, pods: int, pre_stop: float) -> tuple[str, int]:
    """The Deployment and the Service, all pods ready; returns the Service's cluster address and its node port."""
    await kubectl(kubeconfig, "apply", "-f", "-", stdin=manifests(pods, pre_stop))
    await kubectl(kubeconfig, "rollout", "status", "deployment/rolling", "--timeout=120s")
    spec = json.loads(await kubectl(kubeconfig, "get", "service", "rolling", "-o", "json"))["spec"]
    return spec["clusterIP"], spec["ports"][0]["nodePort"]


async def measure(
    kubeconfig: Path, targets: Sequence[tuple[str, int]], *, host: str = "x", clients: int = 4
) -> tuple[float, list[Outcome]]:
    """How long the update of what `make` made took, and what became of the requests to each of the addresses, all of which
    the caller can reach. Leaves the Deployment and the Service there."""
    for target in targets:
        while True:  # the first answers may be earlier than the rule of the last pod
            with contextlib.suppress(OSError):
                if await _ask(*target, host) is not None:
                    break
    old = (await kubectl(kubeconfig, "get", "pods", "-l", "app=rolling", "-o", "name")).split()
    async with load(targets, clients, host) as found:
        began = time.perf_counter()
        await kubectl(kubeconfig, "set", "env", "deployment/rolling", "VERSION=2")
        await kubectl(kubeconfig, "rollout", "status", "deployment/rolling", "--timeout=300s")
        took = time.perf_counter() - began
        # The last of the old pods end only now.
        await kubectl(kubeconfig, "wait", "--for=delete", *old, "--timeout=60s")
    return took, [found[t] for t in targets]


async def _run(
    config: ClusterConfig, pods: int, clients: int, pre_stop: float
) -> tuple[float, list[Outcome]]:
    kubeconfig = config.directory / "kubeconfig"
    address, port = await make(kubeconfig, pods=pods, pre_stop=pre_stop)
    targets = (config.node_address(config.nodes[1]), port), (address, 80)
    return await measure(kubeconfig, targets, clients=clients)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.rolling_update", description=__doc__)
    parser.add_argument("--pods", type=int, default=20)
    parser.add_argument("--clients", type=int, default=4, help="for each of the two addresses")
    parser.add_argument("--pre-stop", type=float, default=1.0, help="seconds that the preStop hook waits")
    o = parser.parse_args()
    with cluster.empty(cluster.NAME, "--nodes", "2") as config:
        cluster.add_image(config)
        took, outcomes = asyncio.run(_run(config, o.pods, o.clients, o.pre_stop))
    print(f"rolling update of {o.pods} pods: {took:.1f} s")
    for name, outcome in zip(("NodePort", "ClusterIP"), outcomes, strict=True):
        print(f"{name:10} {outcome}")


if __name__ == "__main__":
    main()
