"""ReplicaSet: keeps as many pods of one template as its spec asks for.

Upstream: `pkg/controller/replicaset` and `pkg/controller/controller_utils.go`.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence

from sampan.api import selectors
from sampan.api.errors import Object, StatusError
from sampan.api.objects import condition, controller_of, deep_copy, now, owner_reference, parse_time
from sampan.api.resources import PODS, REPLICASETS
from sampan.client.types import ConnectionLost
from sampan.controllers import pods as facts
from sampan.controllers.controller import Context, Controller, OwnWrites, deleting, split_key
from sampan.controllers.informers import OWNER, selecting
from sampan.controllers.ownership import claim, owner_of_kind
from sampan.controllers.per_namespace import namespace_terminating

BURST = 500
"""Pods made or deleted in one go."""
_DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASE_RANK = {"Pending": 0, "Unknown": 1, "Running": 2}


class ReplicaSetController(Controller):
    name = "replicaset"
    workers = 5

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._client = context.client
        self._events = context.recorder("replicaset-controller")
        self._sets = context.informers.of(REPLICASETS)
        self._pods = context.informers.of(PODS)
        self._writes = OwnWrites(self._pods)
        self._sets.add_handler(self.enqueue_either)
        self._pods.add_handler(self._pod_changed)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        before, after = owner_of_kind(old, REPLICASETS), owner_of_kind(new, REPLICASETS)
        pod = new if new is not None else old
        assert pod is not None
        namespace = pod["metadata"]["namespace"]
        for owner in (before, after):
            if owner is not None:
                self.queue.add(f"{namespace}/{owner['name']}")
        if new is None or after is not None or controller_of(new) is not None or deleting(new):
            return
        labels = new["metadata"].get("labels")
        if old is not None and before is None and old["metadata"].get("labels") == labels:
            return
        for owner in selecting(self._sets, new):
            if selectors.from_object(owner["spec"].get("selector")).matches(labels):
                self.enqueue(owner)

    async def sync(self, key: str) -> None:
        replica_set = self._sets.get(*split_key(key))
        if replica_set is None:
            self._writes.forget(key)
            return
        if self._writes.unseen(key):
            return  # the change that is under way brings us back
        owned = await claim(self._client, replica_set, REPLICASETS, self._pods)
        active = [p for p in owned if facts.active(p)]
        failure: Exception | None = None
        if not deleting(replica_set):
            try:
                await self._manage(key, replica_set, active)
            except (StatusError, ConnectionLost) as e:
                failure = e
        await self._update_status(key, replica_set, owned, active, failure)
        if failure is not None:
            raise failure

    # ---- making and deleting pods

    async def _manage(self, key: str, replica_set: Object, active: Sequence[Object]) -> None:
        missing = _replicas(replica_set) - len(active)
        if missing > 0:
            await self._in_batches(min(missing, BURST), functools.partial(self._create, key, replica_set))
        elif missing < 0:
            surplus = self._least_wanted(replica_set, active)[: min(-missing, BURST)]
            results = await asyncio.gather(
                *(self._delete(key, replica_set, pod) for pod in surplus), return_exceptions=True
            )
            for result in results:
                if isinstance(result, BaseException):
                    raise result

    @staticmethod
    async def _in_batches(count: int, make: Callable[[], Awaitable[None]]) -> None:
        """Run `make` `count` times, in batches of 1, 2, 4, ...: what fails for all is not tried for all."""
        size = 1
        while count > 0:
            size = min(size, count)
            results = await asyncio.gather(*(make() for _ in range(size)), return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            count -= size
            size *= 2

    async def _create(self, key: str, replica_set: Object) -> None:
        meta = replica_set["metadata"]
        try:
            pod = await self._client.create(PODS, pod_of(replica_set), namespace=meta["namespace"])
        except StatusError as e:
            if namespace_terminating(e):
                return
            self._events.event(replica_set, "Warning", "FailedCreate", f"Error creating: {e.message}")
            raise
        self._writes.note(key, pod)
        self._events.event(
            replica_set, "Normal", "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}"
        )

    async def _delete(self, key: str, replica_set: Object, pod: Object) -> None:
        meta = pod["metadata"]
        try:
            gone = await self._client.delete(PODS, meta["namespace"], meta["name"], uid=meta["uid"])
        except StatusError as e:
            if e.code in (404, 409):
                return
            self._events.event(replica_set, "Warning", "FailedDelete", f"Error deleting: {e.message}")
            raise
        self._writes.note(key, gone)
        self._events.event(replica_set, "Normal", "SuccessfulDelete", f"Deleted pod: {meta['name']}")

    def _least_wanted(self, replica_set: Object, active: Sequence[Object]) -> list[Object]:
        """Pods in the order in which they are to go."""
        crowding = Counter(
            p["spec"].get("nodeName", "") for p in self._related(replica_set) if facts.active(p)
        )
        current = time.time()

        def compare(a: Object, b: Object) -> int:
            return _compare(a, b, crowding, current)

        return sorted(active, key=functools.cmp_to_key(compare))

    def _related(self, replica_set: Object) -> Iterable[Object]:
        """The pods of all ReplicaSets with the same owner."""
        owner = controller_of(replica_set)
        siblings = self._sets.by_index(OWNER, owner["uid"]) if owner is not None else [replica_set]
        for sibling in siblings:
            yield from self._pods.by_index(OWNER, sibling["metadata"]["uid"])

    # ---- status

    async def _update_status(
        self,
        key: str,
        replica_set: Object,
        owned: Sequence[Object],
        active: Sequence[Object],
        failure: Exception | None,
    ) -> None:
        status, again = _status(replica_set, owned, active, failure)
        if status != (replica_set.get("status") or {}):
            changed = deep_copy(replica_set)
            changed["status"] = status
            try:
                await self._client.update(REPLICASETS, changed, subresource="status")
            except StatusError as e:
                if e.code != 404:
                    raise
        if again is not None:
            self.queue.add_after(key, again)


def _replicas(replica_set: Object) -> int:
    replicas = replica_set["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)


def pod_of(replica_set: Object) -> Object:
    """A new pod of a ReplicaSet's template."""
    meta, template = replica_set["metadata"], replica_set["spec"]["template"]
    given = template.get("metadata") or {}
    made: Object = {
        "generateName": f"{meta['name']}-",
        "namespace": meta["namespace"],
        "ownerReferences": [owner_reference({**replica_set, "apiVersion": "apps/v1", "kind": "ReplicaSet"})],
    }
    for name in ("labels", "annotations", "finalizers"):
        if given.get(name):
            made[name] = given[name]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": template["spec"]}


def _status(
    replica_set: Object, owned: Sequence[Object], active: Sequence[Object], failure: Exception | None
) -> tuple[Object, float | None]:
    """The status, and in how many seconds it will change by itself (a ready pod becoming available)."""
    spec = replica_set["spec"]
    wanted_labels = ((spec["template"].get("metadata") or {}).get("labels") or {}).items()
    min_ready = int(spec.get("minReadySeconds") or 0)
    current = time.time()
    labeled = ready = available = 0
    again: float | None = None
    for pod in active:
        labeled += wanted_labels <= (pod["metadata"].get("labels") or {}).items()
        wait = facts.available_in(pod, min_ready, current)
        if wait is None:
            continue
        ready += 1
        if wait == 0:
            available += 1
        else:
            again = wait if again is None else min(again, wait)
    status: Object = {
        "replicas": len(active),
        "fullyLabeledReplicas": labeled,
        "readyReplicas": ready,
        "availableReplicas": available,
        "observedGeneration": replica_set["metadata"].get("generation", 0),
    }
    status = {k: v for k, v in status.items() if v or k == "replicas"}
    status["terminatingReplicas"] = sum(1 for p in owned if deleting(p) and not facts.finished(p))
    conditions = _conditions(replica_set, len(active), failure)
    if conditions:
        status["conditions"] = conditions
    return status, again


def _conditions(replica_set: Object, present: int, failure: Exception | None) -> list[Object]:
    conditions = list((replica_set.get("status") or {}).get("conditions") or ())
    found = condition(replica_set, "ReplicaFailure")
    if failure is not None and found is None:
        reason = "FailedCreate" if _replicas(replica_set) > present else "FailedDelete"
        conditions.append(
            {
                "type": "ReplicaFailure",
                "status": "True",
                "lastTransitionTime": now(),
                "reason": reason,
                "message": getattr(failure, "message", "") or str(failure),
            }
        )
    elif failure is None and found is not None:
        conditions = [c for c in conditions if c.get("type") != "ReplicaFailure"]
    return conditions


# ---- which pod goes first


def _compare(a: Object, b: Object, crowding: Counter[str], current: float) -> int:
    """Negative if `a` is to go before `b`: what has not begun, what is not ready, what stands beside others of its
    kind, what is young."""
    for read in (_assigned, _phase, _ready, _cost):
        left, right = read(a), read(b)
        if left != right:
            return -1 if left < right else 1
    left, right = (crowding[p["spec"].get("nodeName", "")] for p in (a, b))
    if left != right:
        return -1 if left > right else 1
    since_a, since_b = facts.ready_since(a), facts.ready_since(b)
    if since_a is not None and since_b is not None and since_a != since_b:
        return _by_age(a, b, since_a, since_b, current)
    left, right = facts.restarts(a), facts.restarts(b)
    if left != right:
        return -1 if left > right else 1
    created_a, created_b = (parse_time(p["metadata"]["creationTimestamp"]) for p in (a, b))
    if created_a != created_b:
        return _by_age(a, b, created_a, created_b, current)
    return 0


def _by_age(a: Object, b: Object, since_a: float, since_b: float, current: float) -> int:
    # Ages are compared by magnitude, and chosen by uid (chance) within one: else the youngest zone always loses.
    left, right = (_magnitude(current - s) for s in (since_a, since_b))
    if left != right:
        return -1 if left < right else 1
    return -1 if a["metadata"]["uid"] < b["metadata"]["uid"] else 1


def _magnitude(age: float) -> int:
    return int(math.log2(age * 1e9)) if age > 0 else -1


def _assigned(pod: Object) -> int:
    return 1 if pod["spec"].get("nodeName") else 0


def _phase(pod: Object) -> int:
    return _PHASE_RANK.get((pod.get("status") or {}).get("phase", "Pending"), 0)


def _ready(pod: Object) -> int:
    return 0 if facts.ready_since(pod) is None else 1


def _cost(pod: Object) -> int:
    try:
        return int((pod["metadata"].get("annotations") or {}).get(_DELETION_COST, "0"))
    except ValueError:
        return 0
