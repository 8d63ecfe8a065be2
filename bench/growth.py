"""How the API's figures grow with what it holds and with who watches: 1,000, 10,000 and 100,000 objects; 10, 100 and 1,000
watchers. Each line is a Markdown row; shares are of the null server's rate.

Memory is PSS of the control plane; start-up is the time of `sampan up` of a stopped cluster that holds the objects.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

from bench import cluster
from bench.api import Target, connect
from bench.apibench import Load, config_map, fan_out, wrk
from bench.null_server import running
from bench.processes import control_plane, memory
from sampan.cluster.config import ClusterConfig

_PATH = "/api/v1/namespaces/{}/configmaps"
_NAMESPACE = "growth"
_MB = 1e6


async def _count(target: Target) -> int:
    async with connect(target) as api:
        page = await api.get(_PATH.format(_NAMESPACE), limit="1")
    return len(page["items"]) + int(page["metadata"].get("remainingItemCount") or 0)


def _fill(target: Target, pids: list[int], wanted: int) -> Load | None:
    """Create objects until there are `wanted`; what the last long run of creates reached."""
    load = None
    while (missing := wanted - asyncio.run(_count(target))) > 0:
        seconds = max(1, min(20, missing // 4000))
        load = wrk(target, pids, _PATH.format(_NAMESPACE), 16, seconds, json.dumps(config_map()))
    return load


async def _name(target: Target) -> str:
    async with connect(target) as api:
        return str((await api.get(_PATH.format(_NAMESPACE), limit="1"))["items"][0]["metadata"]["name"])


async def _watched(target: Target, pids: list[int], watchers: int, events: int) -> str:
    async with connect(target) as api:
        path = _PATH.format("watched")
        flood = await fan_out(api, target, pids, path, watchers, events, at_once=16)
        paced = await fan_out(api, target, pids, path, watchers, min(events, 100), at_once=1)
    return (
        f"| {watchers:,} | {flood.rate:,.0f} /s | {flood.cpu:.4f} ms | {paced.lag_p50:.2f} ms | {paced.lag_p99:.2f} ms | "
        f"{flood.lost + paced.lost} |"
    )


async def _namespaces(target: Target) -> None:
    async with connect(target) as api:
        for name in (_NAMESPACE, "watched"):
            await api.create("/api/v1/namespaces", {"metadata": {"name": name}})


def _share(load: Load, null: Load) -> str:
    return f"{load.rate:,.0f} /s ({load.rate / null.rate:.0%})"


def run(config: ClusterConfig, home: Path, sizes: list[int], watchers: list[int], seconds: int) -> None:
    with running() as server:
        null = wrk(server.target, [server.pid], "/", 16, seconds, "")
    print(
        f"null server: {null.rate:,.0f} /s, {null.cpu:.4f} ms CPU each, p99 {null.p99:.2f} ms\n", flush=True
    )
    target = cluster.target(config)
    asyncio.run(_namespaces(target))
    empty = memory(control_plane(config))["Pss"]
    print("| objects | create | get | get p99 | list, all | list, 500 | memory | a thousand | start-up |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for size in sizes:
        pids = [control_plane(config)]
        made = _fill(target, pids, size)
        count = asyncio.run(_count(target))
        path = _PATH.format(_NAMESPACE)
        get = wrk(target, pids, f"{path}/{asyncio.run(_name(target))}", 16, seconds, "")
        whole = wrk(target, pids, f"{path}?resourceVersion=0", 1, seconds, "")
        page = wrk(target, pids, f"{path}?limit=500&resourceVersion=0", 4, seconds, "")
        used = memory(control_plane(config))["Pss"]
        cluster.sampan("stop", "--name", config.name, home=home)
        began = time.monotonic()
        cluster.sampan("up", "--name", config.name, home=home)
        started = time.monotonic() - began
        print(
            f"| {count:,} | {_share(made, null) if made else '-'} | {_share(get, null)} | {get.p99:.2f} ms | "
            f"{whole.rate:,.1f} /s | {page.rate:,.0f} /s | {used / _MB:.0f} MB | "
            f"{(used - empty) / count * 1000 / _MB:.2f} MB | {started:.2f} s |",
            flush=True,
        )
    print("\n| watchers | events delivered | CPU each | lag p50 | lag p99 | lost |")
    print("|---|---|---|---|---|---|", flush=True)
    for many in watchers:
        print(
            asyncio.run(_watched(target, [control_plane(config)], many, 300 if many < 1000 else 100)),
            flush=True,
        )
    print(
        f"\nlongest hold of the event loop since the last start: {asyncio.run(_longest(target)) * 1e3:.1f} ms"
    )


async def _longest(target: Target) -> float:
    async with connect(target) as api:
        text = (await api.get_bytes("/metrics")).decode()
    return float(text.partition("\nsampan_event_loop_lag_longest_seconds ")[2].split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    parser.add_argument("--store", default="sqlite")
    parser.add_argument("--objects", default="1000,10000,100000")
    parser.add_argument("--watchers", default="10,100,1000")
    parser.add_argument("--seconds", type=int, default=3)
    o = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="sampan-bench-") as directory,
        cluster.empty("bench-growth", "--store", o.store) as config,
    ):
        run(config, Path(directory), _numbers(o.objects), _numbers(o.watchers), o.seconds)


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",")]


if __name__ == "__main__":
    main()
