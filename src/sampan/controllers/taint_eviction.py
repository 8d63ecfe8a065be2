"""Taint eviction: a pod leaves a node whose NoExecute taints it does not tolerate, at once or when its time is up.

Upstream: `pkg/controller/tainteviction`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from sampan.api.errors import Object, StatusError
from sampan.api.objects import parse_time
from sampan.api.resources import NODES, PODS
from sampan.api.taints import tolerates
from sampan.controllers import pods as facts
from sampan.controllers.controller import Context, Controller, deleting, split_key
from sampan.controllers.informers import NODE


class TaintEvictionController(Controller):
    name = "taint-eviction"
    workers = 4

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._events = context.recorder("taint-eviction-controller")
        self._nodes = context.informers.of(NODES)
        self._pods = context.informers.of(PODS)
        self._due: dict[str, float] = {}
        """Pods (by uid) that are to go, and when."""
        self._seen: dict[str, dict[tuple[str, str], float]] = {}
        """When each taint of a node was first seen, for those that do not tell."""
        self._nodes.add_handler(self._node_changed)
        self._pods.add_handler(self._pod_changed)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        before, after = _evicting(old), _evicting(new)
        name = (new if new is not None else old)["metadata"]["name"]  # type: ignore[index]
        if after:
            known, current = self._seen.get(name, {}), time.time()
            self._seen[name] = {i: known.get(i, current) for i in map(_identity, after)}
        else:
            self._seen.pop(name, None)
        if before != after:
            for pod in self._pods.by_index(NODE, name):
                self.enqueue(pod)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            if old is not None:
                self._due.pop(old["metadata"]["uid"], None)
            return
        node, tolerations = new["spec"].get("nodeName"), new["spec"].get("tolerations")
        if not node or (
            old is not None
            and old["spec"].get("nodeName") == node
            and old["spec"].get("tolerations") == tolerations
        ):
            return
        if node in self._seen or new["metadata"]["uid"] in self._due:
            self.enqueue(new)

    async def sync(self, key: str) -> None:
        pod = self._pods.get(*split_key(key))
        if pod is None or facts.finished(pod) or deleting(pod):
            return
        uid, node_name = pod["metadata"]["uid"], pod["spec"].get("nodeName") or ""
        taints = _evicting(self._nodes.get("", node_name))
        when = self._when(pod, node_name, taints)
        if when is None:
            if self._due.pop(uid, None) is not None:
                self._told(pod, f"Cancelling deletion of Pod {key}")
            return
        wait = when - time.time()
        if wait > 0:
            self._due[uid] = when
            self.queue.add_after(key, wait)
            return
        self._told(pod, f"Marking for deletion Pod {key}")
        await self._evict(pod)
        self._due.pop(uid, None)

    def _when(self, pod: Object, node: str, taints: Iterable[Object]) -> float | None:
        """When a pod must go: the earliest of its taints; None where it tolerates all of them for ever."""
        earliest: float | None = None
        for taint in taints:
            used = [t for t in pod["spec"].get("tolerations") or () if tolerates(t, taint)]
            if not used:
                return 0.0
            limits = [int(s) for t in used if (s := t.get("tolerationSeconds")) is not None]
            if not limits:
                continue
            added = taint.get("timeAdded")
            since = (
                parse_time(added) if added else self._seen.get(node, {}).get(_identity(taint), time.time())
            )
            when = since + max(0, min(limits))
            earliest = when if earliest is None else min(earliest, when)
        return earliest

    async def _evict(self, pod: Object) -> None:
        await facts.disrupt(
            self._client,
            pod,
            "DeletionByTaintManager",
            "Taint manager: deleting due to NoExecute taint",
        )
        meta = pod["metadata"]
        try:
            await self._client.delete(PODS, meta["namespace"], meta["name"], uid=meta["uid"])
        except StatusError as e:
            if e.code not in (404, 409):
                raise

    def _told(self, pod: Object, message: str) -> None:
        self._events.event(pod, "Normal", "TaintManagerEviction", message)


def _evicting(node: Object | None) -> list[Object]:
    """The taints of a node that drive pods away."""
    taints = node["spec"].get("taints") or () if node is not None else ()
    return [t for t in taints if t.get("effect") == "NoExecute"]


def _identity(taint: Object) -> tuple[str, str]:
    return taint.get("key", ""), taint.get("value") or ""
