"""What an API server does and what that costs it: creates, gets, lists and watch fan-out of ConfigMaps.

Rates are per second, CPU is of the server's processes (`--pids`), in milliseconds for each operation. The load of
requests comes from `wrk`, with one thread.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.api import Api, Target, connect, options
from bench.figures import quantile
from bench.processes import cpu_seconds, memory
from bench.watchers import Watchers

_CONNECTIONS = 16
_WAIT_FOR_EVENTS = 120.0


@dataclass(frozen=True, slots=True)
class Load:
    """What `wrk` saw; times in milliseconds."""

    rate: float
    p50: float
    p99: float
    cpu: float
    failed: int


@dataclass(frozen=True, slots=True)
class FanOut:
    watchers: int
    events: int
    lost: int
    rate: float
    """Events delivered a second, all watchers together."""
    lag_p50: float
    """From before the object's creation is asked for until a watcher has read the event, in milliseconds."""
    lag_p99: float
    cpu: float


@dataclass(frozen=True, slots=True)
class ApiFigures:
    create: dict[int, Load]
    get: dict[int, Load]
    list: Load
    list_items: int
    list_bytes: int
    watch: FanOut
    paced_watch: FanOut
    """The same events created one after the other: what a watcher sees on a server that is not flooded."""
    objects: int
    """How many ConfigMaps it holds then."""
    memory: int
    """PSS of the server's processes after all but the creates, in bytes: those last for a time, not for a number of
    objects, so that a faster server would hold more."""


async def measure(
    target: Target,
    pids: Sequence[int],
    *,
    items: int = 6000,
    watchers: int = 100,
    events: int = 300,
    seconds: int = 3,
) -> ApiFigures:
    """All measures, in namespaces of their own that are deleted at the end."""
    listed, written, watched = (f"bench-{kind}-{uuid.uuid4().hex[:5]}" for kind in ("list", "write", "watch"))
    async with connect(target) as api:
        for name in (listed, written, watched):
            metadata = {"name": name}
            await api.create(
                "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
            )
        try:
            await _fill(api, _path(listed), items)
            body = await api.get_bytes(_path(listed), resourceVersion="0")
            one = str((await api.get(_path(listed), limit="1"))["items"][0]["metadata"]["name"])

            def load(path: str, connections: int, body: str = "") -> Load:
                return wrk(target, pids, path, connections, seconds, body)

            lists = await asyncio.to_thread(load, f"{_path(listed)}?resourceVersion=0", 1)
            gets = {c: await asyncio.to_thread(load, f"{_path(listed)}/{one}", c) for c in (1, _CONNECTIONS)}
            flood = await fan_out(api, target, pids, _path(watched), watchers, events, at_once=_CONNECTIONS)
            paced = await fan_out(api, target, pids, _path(watched), watchers, events, at_once=1)
            used = sum(memory(pid)["Pss"] for pid in pids)
            new = json.dumps(config_map())
            creates = {c: await asyncio.to_thread(load, _path(written), c, new) for c in (1, _CONNECTIONS)}
        finally:
            for name in (listed, written, watched):
                await api.delete(f"/api/v1/namespaces/{name}")
    return ApiFigures(
        creates, gets, lists, body.count(b'"uid"'), len(body), flood, paced, items + 2 * events, used
    )


def _path(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


async def _fill(api: Api, path: str, count: int) -> None:
    few = asyncio.Semaphore(_CONNECTIONS)

    async def make() -> None:
        async with few:
            await api.create(path, config_map())

    await asyncio.gather(*(make() for _ in range(count)))


async def fan_out(
    api: Api, target: Target, pids: Sequence[int], path: str, watchers: int, events: int, *, at_once: int
) -> FanOut:
    """`events` are created by `at_once` writers while all watch."""
    async with Watchers(target, path, await api.revision(path), watchers) as seen:
        few = asyncio.Semaphore(at_once)

        async def make() -> None:
            async with few:
                await api.create(path, config_map(t=str(time.time())))

        cpu, began = cpu_seconds(pids), time.perf_counter()
        await asyncio.gather(*(make() for _ in range(events)))
        delivered = await seen.wait_for(watchers * events, _WAIT_FOR_EVENTS)
        took, cpu = time.perf_counter() - began, cpu_seconds(pids) - cpu
    return FanOut(
        watchers,
        events,
        watchers * events - delivered,
        delivered / took,
        quantile(seen.lags, 0.5) * 1000,
        quantile(seen.lags, 0.99) * 1000,
        cpu / delivered * 1000,
    )


def wrk(target: Target, pids: Sequence[int], path: str, connections: int, seconds: int, body: str) -> Load:
    script = f'wrk.headers["Authorization"]="Bearer {target.token}"\nwrk.headers["Content-Type"]="application/json"\n'
    if body:
        script += f"wrk.method='POST'\nwrk.body=[==[{body}]==]\n"
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        cpu = cpu_seconds(pids)
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}",
            "--latency",
            "-s",
            file.name,
            target.server + path,
        ]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        cpu = cpu_seconds(pids) - cpu

    def found(pattern: str) -> str:
        match = re.search(pattern, said)
        return match[1] if match else "0"

    return Load(
        float(found(r"Requests/sec:\s+([\d.]+)")),
        _milliseconds(found(r"50%\s+([\d.]+\w+)")),
        _milliseconds(found(r"99%\s+([\d.]+\w+)")),
        cpu / max(int(found(r"(\d+) requests in")), 1) * 1000,
        int(found(r"Non-2xx or 3xx responses: (\d+)")),
    )


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)([a-z]*)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60000.0}.get(unit, 1.0)


def config_map(**data: str) -> dict[str, Any]:
    data = data or {"key": "value", "other": "some longer value to make it look real"}
    metadata = {"generateName": "bench-", "labels": {"app": "bench"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--pids", required=True, help="the server's processes, separated by commas")
    parser.add_argument("--items", type=int, default=6000)
    parser.add_argument("--watchers", type=int, default=100)
    parser.add_argument("--events", type=int, default=300)
    parser.add_argument("--seconds", type=int, default=3)
    o = parser.parse_args()
    pids = [int(pid) for pid in o.pids.split(",")]
    work = measure(
        Target(o.server, o.token),
        pids,
        items=o.items,
        watchers=o.watchers,
        events=o.events,
        seconds=o.seconds,
    )
    print(json.dumps(asdict(asyncio.run(work)), indent=1))


if __name__ == "__main__":
    main()
