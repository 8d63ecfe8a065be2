"""All figures on a cluster of its own, as a table: what `make bench` runs (as root, about two minutes)."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from bench import apibench, cluster, idle, memory, null_server, podstart, storewrites, svcprog, up
from bench.figures import Figure, quantile, table
from bench.processes import control_plane
from sampan.cluster import config as configuration
from sampan.cluster.config import ClusterConfig

_MB = 1e6
_OTHERS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--store", default="sqlite", help="sqlite or etcd")
    parser.add_argument("--quick", action="store_true", help="fewer runs, shorter loads")
    o = parser.parse_args()
    figures = _start(3 if o.quick else 9)
    with cluster.empty() as config:
        figures += _idle(config, 10.0 if o.quick else idle.SECONDS)
        figures += asyncio.run(_cluster(config, 100 if o.quick else _OTHERS))
    with cluster.empty(cluster.NAME, "--store", o.store) as config:
        figures += asyncio.run(_api(config, 1 if o.quick else 3))
    figures += _store()
    print(table(figures))


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _start(runs: int) -> list[Figure]:
    _say("starting clusters")
    return [Figure("from nothing to a Ready node", quantile(up.stopwatch(runs), 0.5), "s", 1.0, "about 12 s")]


def _idle(config: ClusterConfig, seconds: float) -> list[Figure]:
    _say("looking at an idle cluster")
    time.sleep(memory.SETTLE)
    pss: dict[str, float] = {}
    for part in memory.by_part(config):  # HAProxy is two processes of one name
        pss[part.name] = pss.get(part.name, 0) + part.pss / _MB
    cpu = idle.measure(config, seconds)
    return [
        Figure("memory, one idle node, everything (PSS)", sum(pss.values()), "MB", 130, "649 MB"),
        *(Figure(f"- {name}", size, "MB") for name, size in pss.items()),
        Figure("CPU of an idle cluster", sum(cpu.values()) * 100, "% of a core", 1.0),
    ]


async def _cluster(config: ClusterConfig, others: int) -> list[Figure]:
    cluster.add_image(config)
    target = cluster.target(config)
    _say("starting pods")
    pods = await podstart.measure(target, cluster.IMAGE)
    node = config.nodes[0]
    figures = [
        Figure("one pod, create to Ready, p50", pods.p50, "s", 0.06, "0.53 s"),
        Figure(f"{pods.burst} pods at once, create to all Ready", pods.burst_ready, "s", 0.8, "3.7 s"),
    ]
    for count, kubernetes in ((0, "0.72 s"), (others, "0.88 s")):
        _say(f"making Services beside {count} others")
        made = await svcprog.measure(
            target, Path(config.node_netns(node)), config.node_address(node), others=count
        )
        what = f"new Service to first connection, {count} others, p50"
        figures.append(Figure(what, made.p50, "s", 0.01, kubernetes))
    return figures


async def _api(config: ClusterConfig, seconds: int) -> list[Figure]:
    _say("loading a server that does nothing, then the API")
    with null_server.running() as null:
        nothing = await asyncio.to_thread(apibench.wrk, null.target, [null.pid], "/", 16, seconds, "")
    api = await apibench.measure(cluster.target(config), [control_plane(config)], seconds=seconds)
    create, get, flood, paced = api.create[16], api.get[16], api.watch, api.paced_watch
    fan_out = f"{flood.watchers} watchers x {flood.events} events"
    return [
        Figure("null server, 16 connections: the same transport, no API", nothing.rate, "/s"),
        Figure("- CPU each", nothing.cpu, "ms"),
        Figure(
            "create ConfigMap, 16 connections", create.rate, "/s", 3000, "670-1590 /s", more_is_better=True
        ),
        Figure("- CPU each", create.cpu, "ms", 0.5, "1.8 ms"),
        Figure("get ConfigMap, 16 connections", get.rate, "/s", 8000, "2200-2970 /s", more_is_better=True),
        Figure("- CPU each", get.cpu, "ms", 0.15, "0.83 ms"),
        Figure(f"list {api.list_items:,} ConfigMaps", api.list.rate, "/s", 200, "10 /s", more_is_better=True),
        Figure("- CPU each", api.list.cpu, "ms", 5, "110 ms"),
        Figure(f"{fan_out}, as fast as it can", flood.rate, "/s", 40_000, "9,200 /s", more_is_better=True),
        Figure("- CPU each", flood.cpu, "ms", 0.02, "0.086 ms"),
        Figure(f"{fan_out}, one by one, lag p99", paced.lag_p99, "ms", 10, "33 ms"),
        Figure(f"API memory with {api.objects:,} ConfigMaps (PSS)", api.memory / _MB, "MB", 150, "494 MB"),
    ]


def _store() -> list[Figure]:
    _say("writing to the store")
    directory = configuration.STATE if configuration.STATE.is_dir() else None
    return [Figure(f"durable writes, {w.writers} writers", w.rate, "/s") for w in storewrites.run(directory)]


if __name__ == "__main__":
    main()
