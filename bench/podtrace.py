"""Where the time of one pod start goes, as a watcher of the API sees it: what each change of the pod brought, and when.

Times are in milliseconds from the request to create it. Several pods are started in turn; the median of each step is
told.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from bench.api import Target, connect, options
from bench.figures import quantile
from bench.podstart import pod

Step = tuple[str, float]


async def trace(target: Target, image: str, runs: int = 10, namespace: str = "default") -> list[Step]:
    """Every step with the median of its time, in the order in which they happened."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    at: dict[str, list[float]] = defaultdict(list)
    async with connect(target) as api:
        for _ in range(runs):
            name = f"trace-{uuid.uuid4().hex[:5]}"
            async with api.watch(path, await api.revision(path)) as lines:
                began = time.perf_counter()
                creation = asyncio.create_task(api.create(path, pod(name, image)))
                seen: set[str] = set()
                async for line in lines:
                    now = (time.perf_counter() - began) * 1000
                    event = json.loads(line)
                    if event["object"]["metadata"]["name"] != name:
                        continue
                    for step in _steps(event["object"]):
                        if step not in seen:
                            seen.add(step)
                            at[step].append(now)
                    if "Ready" in seen:
                        break
                await creation
            await api.delete(f"{path}/{name}", gracePeriodSeconds=0)
    return sorted(((step, quantile(times, 0.5)) for step, times in at.items()), key=lambda s: s[1])


def _steps(shown: dict[str, Any]) -> Iterator[str]:
    """What is true of a pod, in the order of its life."""
    yield "created"
    if shown["spec"].get("nodeName"):
        yield "bound to a node"
    status = shown["status"]
    if status.get("startTime"):
        yield "accepted by the node"
    for condition in status.get("conditions", ()):
        if condition["status"] == "True":
            yield condition["type"]
    for container in status.get("containerStatuses", ()):
        if "running" in container.get("state", {}):
            yield "container runs"


def main() -> None:
    parser = options(__doc__ or "")
    parser.add_argument("--image", default="localhost/busybox:1")
    parser.add_argument("--runs", type=int, default=10)
    o = parser.parse_args()
    for step, at in asyncio.run(trace(Target(o.server, o.token), o.image, o.runs)):
        print(f"{at:6.1f} ms  {step}")


if __name__ == "__main__":
    main()
