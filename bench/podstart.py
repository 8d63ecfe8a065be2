"""How long a pod takes from its creation until a watcher sees it Ready, one after the other and many at once.

The image must be on the node already. Times are in seconds.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from dataclasses import asdict, dataclass
from typing import Any

from bench.api import Api, Sightings, Target, connect, options
from bench.figures import quantile


@dataclass(frozen=True, slots=True)
class PodStart:
    p50: float
    slowest: float
    burst: int
    burst_ready: float
    """From the first creation until the last of the burst is Ready."""
    burst_deleted: float


async def measure(
    target: Target, image: str, *, one_by_one: int = 10, burst: int = 20, namespace: str = "default"
) -> PodStart:
    """Starts and deletes `one_by_one` pods in turn, then `burst` pods at once."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    tag = uuid.uuid4().hex[:5]
    ready, gone = Sightings(), Sightings()
    async with connect(target) as api, api.watch(path, await api.revision(path)) as lines:
        watcher = asyncio.create_task(_follow(lines, ready, gone))
        took = []
        for i in range(one_by_one):
            name = f"single-{tag}-{i}"
            began = time.perf_counter()
            await api.create(path, pod(name, image))
            took.append(await ready.wait(name) - began)
            await _delete(api, f"{path}/{name}")
            await gone.wait(name)
        names = [f"burst-{tag}-{i}" for i in range(burst)]
        began = time.perf_counter()
        await asyncio.gather(*(api.create(path, pod(name, image)) for name in names))
        burst_ready = await ready.wait(*names) - began
        began = time.perf_counter()
        await asyncio.gather(*(_delete(api, f"{path}/{name}") for name in names))
        burst_deleted = await gone.wait(*names) - began
        watcher.cancel()
    return PodStart(quantile(took, 0.5), max(took), burst, burst_ready, burst_deleted)


async def _follow(lines: Any, ready: Sightings, gone: Sightings) -> None:
    async for line in lines:
        event, now = json.loads(line), time.perf_counter()
        pod = event["object"]
        name = pod["metadata"]["name"]
        if event["type"] == "DELETED":
            await gone.see(name, now)
        elif any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ())):
            await ready.see(name, now)


async def _delete(api: Api, path: str) -> None:
    await api.delete(path, gracePeriodSeconds=0)


def pod(name: str, image: str) -> dict[str, Any]:
    container = {
        "name": "c",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sleep", "3600"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"bench": "podstart"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--image", default="localhost/busybox:1")
    parser.add_argument("--one-by-one", type=int, default=10)
    parser.add_argument("--burst", type=int, default=20)
    parser.add_argument("--namespace", default="default")
    o = parser.parse_args()
    target = Target(o.server, o.token)
    result = asyncio.run(
        measure(target, o.image, one_by_one=o.one_by_one, burst=o.burst, namespace=o.namespace)
    )
    print(json.dumps(asdict(result), indent=1))


if __name__ == "__main__":
    main()
