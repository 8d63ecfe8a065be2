"""Node lifecycle: notices that a node has fallen silent, and says in taints what its conditions mean for pods.

A node is heard through its Lease (and its status). Each node has one timer, at the moment at which its silence would be
too long; a Lease only moves a number. The clock is ours, never the node's: what counts is when we saw the Lease change.

Upstream: `pkg/controller/nodelifecycle`. (Its rate limit on evictions is not here; its rule that a cluster without any
ready node evicts nobody is.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from sampan.api.errors import Object, StatusError
from sampan.api.objects import condition, deep_copy, now
from sampan.api.resources import LEASES, NODES, PODS
from sampan.client.types import STRATEGIC_MERGE_PATCH
from sampan.controllers import pods as facts
from sampan.controllers.controller import Context, Controller
from sampan.controllers.informers import NODE

GRACE_SECONDS = 50.0
"""How long a node may be silent, unless the manager is told otherwise."""
STARTUP_SECONDS = 60.0
"""How long a node may take until it first tells its status."""
LEASE_NAMESPACE = "kube-node-lease"

_PREFIX = "node.kubernetes.io/"
NOT_READY, UNREACHABLE = f"{_PREFIX}not-ready", f"{_PREFIX}unreachable"
UNSCHEDULABLE = f"{_PREFIX}unschedulable"
_BY_CONDITION = {
    ("Ready", "False"): NOT_READY,
    ("Ready", "Unknown"): UNREACHABLE,
    ("MemoryPressure", "True"): f"{_PREFIX}memory-pressure",
    ("DiskPressure", "True"): f"{_PREFIX}disk-pressure",
    ("PIDPressure", "True"): f"{_PREFIX}pid-pressure",
    ("NetworkUnavailable", "True"): f"{_PREFIX}network-unavailable",
}
_OURS = {*_BY_CONDITION.values(), UNSCHEDULABLE}
_TOLD = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
_NEVER = ("NodeStatusNeverUpdated", "Kubelet never posted node status.")
_STOPPED = ("NodeStatusUnknown", "Kubelet stopped posting node status.")


class _Heard:
    """When a node was last heard of, and its timer."""

    def __init__(self, when: float) -> None:
        self.when = when
        self.timer: asyncio.TimerHandle | None = None
        self.ready: bool | None = None


class NodeLifecycleController(Controller):
    name = "node-lifecycle"
    workers = 4

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._events = context.recorder("node-controller")
        self._nodes = context.informers.of(NODES)
        self._pods = context.informers.of(PODS)
        self._grace_seconds = context.node_monitor_grace_period or GRACE_SECONDS
        self._heard: dict[str, _Heard] = {}
        self._ready: set[str] = set()
        self._nodes.add_handler(self._node_changed)
        context.informers.of(LEASES).add_handler(self._lease_changed)

    # ---- what wakes us

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        node = new if new is not None else old
        assert node is not None
        name = node["metadata"]["name"]
        if new is None:
            self._told(node, "RemovingNode", f"Node {name} event: Removing Node {name} from Controller")
            heard = self._heard.pop(name, None)
            if heard is not None and heard.timer is not None:
                heard.timer.cancel()
            self._set_ready(name, False)
        else:
            if old is None:
                self._told(node, "RegisteredNode", f"Node {name} event: Registered Node {name} in Controller")
            if old is None or _spoke(old, new):
                self._hear(name)
            self._set_ready(name, _ready_status(new) == "True")
            self.queue.add(name)

    def _set_ready(self, name: str, ready: bool) -> None:
        some = bool(self._ready)
        (self._ready.add if ready else self._ready.discard)(name)
        if bool(self._ready) != some:
            # Whether anybody may be evicted depends on whether any node is well.
            for other in self._heard:
                self.queue.add(other)

    def _lease_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None or new["metadata"]["namespace"] != LEASE_NAMESPACE:
            return
        renewed = (new.get("spec") or {}).get("renewTime")
        if old is None or (old.get("spec") or {}).get("renewTime") != renewed:
            name = new["metadata"]["name"]
            if name in self._heard:
                self._hear(name)

    def _hear(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        heard = self._heard.get(name)
        if heard is None:
            heard = self._heard[name] = _Heard(loop.time())
        heard.when = loop.time()
        if heard.timer is None:
            heard.timer = loop.call_at(heard.when + self._grace_seconds, self._due, name)

    def _due(self, name: str) -> None:
        heard = self._heard.get(name)
        if heard is None:
            return
        loop = asyncio.get_running_loop()
        heard.timer = None
        until = heard.when + self._grace(name)
        if until > loop.time():
            heard.timer = loop.call_at(until, self._due, name)
        else:
            self.queue.add(name)

    def _grace(self, name: str) -> float:
        node = self._nodes.get("", name)
        return STARTUP_SECONDS if node is None or not _ready_status(node) else self._grace_seconds

    def _silent(self, name: str) -> bool:
        heard = self._heard.get(name)
        if heard is None:
            return False
        return asyncio.get_running_loop().time() >= heard.when + self._grace(name)

    # ---- the work

    async def sync(self, key: str) -> None:
        node = self._nodes.get("", key)
        if node is None:
            return
        if self._silent(key) and any(_status_of(node, c) != "Unknown" for c in _TOLD):
            node = await self._client.update(NODES, _fallen_silent(node), subresource="status")
            self._set_ready(key, False)
        await self._taint(node)
        await self._tell_pods(key, node)

    async def _taint(self, node: Object) -> None:
        present = node["spec"].get("taints") or []
        wanted = _taints(node, evicting=bool(self._ready))
        kept = [t for t in present if not _managed(t) or _identity(t) in wanted]
        missing = [t for t in wanted if t not in {_identity(k) for k in kept}]
        if not missing and len(kept) == len(present):
            return
        stamped = [
            {"key": k, "effect": e, **({"timeAdded": now()} if e == "NoExecute" else {})} for k, e in missing
        ]
        changed = deep_copy(node)
        if taints := kept + stamped:
            changed["spec"]["taints"] = taints
        else:
            del changed["spec"]["taints"]
        await self._client.update(NODES, changed)

    async def _tell_pods(self, name: str, node: Object) -> None:
        """The pods of a node that is not ready any more are not ready either."""
        heard = self._heard.get(name)
        if heard is None:
            return
        ready, before = _ready_status(node) == "True", heard.ready
        if not ready and before is not False:
            if before:
                self._told(node, "NodeNotReady", f"Node {name} status is now: NodeNotReady")
            stopped = [p for p in self._pods.by_index(NODE, name) if facts.ready_since(p) is not None]
            if _ready_status(node):
                await asyncio.gather(*(self._mark_not_ready(p) for p in stopped))
        heard.ready = ready

    async def _mark_not_ready(self, pod: Object) -> None:
        meta = pod["metadata"]
        patch = {
            "metadata": {"uid": meta["uid"]},
            "status": {"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": now()}]},
        }
        self._events.event(pod, "Warning", "NodeNotReady", "Node is not ready")
        try:
            await self._client.patch(
                PODS,
                meta["namespace"],
                meta["name"],
                patch,
                content_type=STRATEGIC_MERGE_PATCH,
                subresource="status",
            )
        except StatusError as e:
            if e.code not in (404, 409):
                raise

    def _told(self, node: Object, reason: str, message: str) -> None:
        self._events.event({"apiVersion": "v1", "kind": "Node", **node}, "Normal", reason, message)

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            for heard in self._heard.values():
                if heard.timer is not None:
                    heard.timer.cancel()


def _ready_status(node: Object) -> str:
    """`True`, `False`, `Unknown`, or "" for a node that has not told."""
    return _status_of(node, "Ready")


def _status_of(node: Object, type_: str) -> str:
    found = condition(node, type_)
    return str(found.get("status") or "") if found is not None else ""


def _spoke(old: Object, new: Object) -> bool:
    """Whether the node itself wrote its conditions: what became Unknown is our own doing, and no sign of life."""
    before: Iterable[Object] = (old.get("status") or {}).get("conditions") or ()
    after: Iterable[Object] = (new.get("status") or {}).get("conditions") or ()
    if before is after:
        return False
    known = {c["type"]: c for c in before}
    return any(c.get("status") != "Unknown" and c != known.get(c["type"]) for c in after)


def _fallen_silent(node: Object) -> Object:
    """The node with what it does not tell any more set to Unknown."""
    changed = deep_copy(node)
    status = changed.setdefault("status", {})
    conditions = status.setdefault("conditions", [])
    for type_ in _TOLD:
        found = next((c for c in conditions if c["type"] == type_), None)
        if found is not None and found.get("status") == "Unknown":
            continue
        reason, message = _STOPPED if found is not None else _NEVER
        if found is None:
            found = {"type": type_, "lastHeartbeatTime": node["metadata"]["creationTimestamp"]}
            conditions.append(found)
        found.update(status="Unknown", reason=reason, message=message, lastTransitionTime=now())
    return changed


def _taints(node: Object, *, evicting: bool) -> list[tuple[str, str]]:
    """The taints (key, effect) that follow from conditions and cordon."""
    wanted: list[tuple[str, str]] = []
    for found in (node.get("status") or {}).get("conditions") or ():
        key = _BY_CONDITION.get((found["type"], found.get("status", "")))
        if key is not None:
            wanted.append((key, "NoSchedule"))
            if key in (NOT_READY, UNREACHABLE) and evicting:
                wanted.append((key, "NoExecute"))
    if not _ready_status(node):
        wanted.append((NOT_READY, "NoSchedule"))
    if node["spec"].get("unschedulable"):
        wanted.append((UNSCHEDULABLE, "NoSchedule"))
    return wanted


def _identity(taint: Object) -> tuple[str, str]:
    return taint.get("key", ""), taint.get("effect", "")


def _managed(taint: Object) -> bool:
    key, effect = _identity(taint)
    return (effect == "NoSchedule" and key in _OURS) or (
        effect == "NoExecute" and key in (NOT_READY, UNREACHABLE)
    )
