"""Pod garbage: pods of nodes that are gone, and pods on their way out that never had a node.

A node's absence counts once it has lasted a while and the API confirms it: nodes are deleted and registered again.

Upstream: `pkg/controller/podgc`.
"""

from __future__ import annotations

import asyncio

from sampan.api.errors import Object, StatusError
from sampan.api.resources import NODES, PODS
from sampan.controllers import pods as facts
from sampan.controllers.controller import Context, Controller, deleting, split_key
from sampan.controllers.informers import NODE

QUARANTINE_SECONDS = 40.0
_NODE, _POD = "node ", "pod "


class PodGarbageController(Controller):
    name = "pod-gc"

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._quarantine = QUARANTINE_SECONDS
        self._nodes = context.informers.of(NODES)
        self._pods = context.informers.of(PODS)
        self._nodes.add_handler(self._node_changed)
        self._pods.add_handler(self._pod_changed)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None and old is not None:
            self.queue.add_after(_NODE + old["metadata"]["name"], self._quarantine)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            return
        node = new["spec"].get("nodeName")
        if not node:
            if deleting(new):
                meta = new["metadata"]
                self.queue.add(f"{_POD}{meta['namespace']}/{meta['name']}")
        elif (old is None or not old["spec"].get("nodeName")) and self._nodes.get("", node) is None:
            self.queue.add_after(_NODE + node, self._quarantine)

    async def sync(self, key: str) -> None:
        if key.startswith(_POD):
            pod = self._pods.get(*split_key(key.removeprefix(_POD)))
            if pod is not None and deleting(pod) and not pod["spec"].get("nodeName"):
                await self._delete(pod)
            return
        name = key.removeprefix(_NODE)
        pods = self._pods.by_index(NODE, name)
        if not pods or self._nodes.get("", name) is not None:
            return
        try:
            await self._client.get(NODES, "", name)
        except StatusError as e:
            if e.code != 404:
                raise
            await asyncio.gather(*map(self._remove_orphan, pods))

    async def _remove_orphan(self, pod: Object) -> None:
        if not facts.finished(pod):
            await facts.disrupt(
                self._client, pod, "DeletionByPodGC", "PodGC: node no longer exists", fail=True
            )
        await self._delete(pod)

    async def _delete(self, pod: Object) -> None:
        meta = pod["metadata"]
        try:
            await self._client.delete(
                PODS, meta["namespace"], meta["name"], uid=meta["uid"], grace_period_seconds=0
            )
        except StatusError as e:
            if e.code not in (404, 409):
                raise
