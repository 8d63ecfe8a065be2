"""Emptying a node before it goes: nothing new comes to it, and its pods are evicted as their budgets allow.

As `kubectl drain --ignore-daemonsets --delete-emptydir-data`; upstream: `k8s.io/kubectl/pkg/drain`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from sampan.api.errors import Object, StatusError
from sampan.api.objects import controller_of
from sampan.api.resources import NODES, PODS
from sampan.client.informer import Informer, key_of
from sampan.cluster.errors import ClusterError

if TYPE_CHECKING:
    from sampan.client.types import Client

_MIRROR = "kubernetes.io/config.mirror"
_RETRY = 5.0
"""Seconds until an eviction that a budget forbids is tried again."""


async def drain(
    client: Client, node: str, *, force: bool, timeout: float, say: Callable[[str], None]
) -> None:
    """Return when no pod of the node is left but those of DaemonSets and of the node itself. Raises ClusterError where a pod
    that nobody makes anew is there and `force` is not given, or where pods are left after `timeout` seconds."""
    await client.patch(NODES, "", node, {"spec": {"unschedulable": True}})
    pods = Informer(client, PODS, field_selector=f"spec.nodeName={node}")
    changed = asyncio.Event()
    pods.add_handler(lambda old, new: changed.set())
    following = asyncio.create_task(pods.run())
    evictions: dict[str, asyncio.Task[None]] = {}
    try:
        async with asyncio.timeout(timeout):
            await pods.synced.wait()
            alone = [key_of(p) for p in pods.list() if _goes(p) and _alone(p)]
            if alone and not force:
                raise ClusterError(
                    f"node {node} has pods that no controller would make anew elsewhere: {', '.join(sorted(alone))}; delete"
                    " them, or use --force"
                )
            while left := [p for p in pods.list() if _goes(p)]:
                changed.clear()
                for pod in left:
                    key = key_of(pod)
                    if key not in evictions and not pod["metadata"].get("deletionTimestamp"):
                        say(f"evicting pod {key}")
                        evictions[key] = asyncio.create_task(_evict(client, pod))
                for task in [t for t in evictions.values() if t.done()]:
                    task.result()
                await changed.wait()
    except TimeoutError:
        names = sorted(key_of(p) for p in pods.list() if _goes(p))
        raise ClusterError(
            f"after {timeout:.0f} s there are still pods on node {node}: {', '.join(names)}; it stays cordoned"
        ) from None
    finally:
        tasks = [following, *evictions.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _evict(client: Client, pod: Object) -> None:
    meta = pod["metadata"]
    eviction: Object = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": meta["name"], "namespace": meta["namespace"]},
        "deleteOptions": {"preconditions": {"uid": meta["uid"]}},
    }
    while True:
        try:
            await client.create(PODS, eviction, name=meta["name"], subresource="eviction")
            return
        except StatusError as e:
            if e.code in (404, 409):  # it is gone, or another one has its name
                return
            if e.code != 429:
                raise
        await asyncio.sleep(_RETRY)


def _goes(pod: Object) -> bool:
    owner = controller_of(pod)
    daemon = owner is not None and owner["kind"] == "DaemonSet" and not _ended(pod)
    return not daemon and _MIRROR not in (pod["metadata"].get("annotations") or {})


def _alone(pod: Object) -> bool:
    return controller_of(pod) is None and not _ended(pod)


def _ended(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
