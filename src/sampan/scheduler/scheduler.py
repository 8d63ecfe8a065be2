"""The scheduler: takes pods from the queue one by one, finds each a node, and binds it there.

Finding a node never waits for anything, so that no change can slip in between; only then does the pod take its place
(assumed) and its binding goes on in the background while the next pod is looked at.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from sampan.api.errors import Object, StatusError
from sampan.api.objects import condition, now
from sampan.api.resources import NAMESPACES, NODES, PODS, SERVICES
from sampan.api.selectors import from_map
from sampan.client.events import Recorder
from sampan.client.informer import Informer, key_of
from sampan.client.types import STRATEGIC_MERGE_PATCH, Client, ConnectionLost
from sampan.scheduler import preemption, scores
from sampan.scheduler.cache import Cache, NodeInfo, PodInfo, pod_info
from sampan.scheduler.changes import of_node, of_placed_pod
from sampan.scheduler.diagnosis import Diagnosis
from sampan.scheduler.filters import INTER_POD_AFFINITY, Filters
from sampan.scheduler.nominations import Nominations
from sampan.scheduler.queue import QueuedPod, SchedulingQueue

log = logging.getLogger(__name__)

NAME = "default-scheduler"
_NO_LABELS: Mapping[str, str] = {}


class Scheduler:
    """Places the pods whose `schedulerName` is `default-scheduler`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._recorder = Recorder(client, NAME)
        self._pods = Informer(client, PODS)
        self._nodes = Informer(client, NODES)
        self._services = Informer(client, SERVICES)
        self._namespaces = Informer(client, NAMESPACES)
        self._cache = Cache()
        self._nominations = Nominations()

    async def run(self) -> None:
        """Schedule until cancelled. What fails for one pod is logged and tried again, never raised."""
        self._queue = SchedulingQueue()
        informers = (self._nodes, self._namespaces, self._services, self._pods)
        self._nodes.add_handler(self._node_changed)
        self._namespaces.add_handler(self._namespace_changed)
        self._pods.add_handler(self._pod_changed)
        try:
            async with asyncio.TaskGroup() as group:
                for informer in informers:
                    group.create_task(informer.run(), name=f"scheduler {informer.resource.plural}")
                group.create_task(self._recorder.run(), name="scheduler events")
                for informer in informers:
                    await informer.synced.wait()
                while True:
                    pod = await self._queue.pop()
                    try:
                        work = self._schedule(pod)
                    except Exception as e:  # whatever it is: one pod must not hold up all others
                        log.exception("%s could not be scheduled", pod.info.key)
                        work = self._failed(pod, str(e))
                    if work is not None:
                        group.create_task(self._supervise(pod, work), name=f"place {pod.info.key}")
        finally:
            self._queue.close()

    def _schedule(self, queued: QueuedPod) -> Coroutine[Any, Any, None] | None:
        """Find a node and take the place; what is left is to tell the API."""
        pod = queued.info
        diagnosis = Diagnosis()
        node = self._find(pod, diagnosis)
        if node is not None:
            self._nominations.remove(pod.key)
            self._cache.assume(pod, node.name)
            self._queue.move(of_placed_pod(pod, None))
            return self._bind(queued, pod, node.name)
        self._queue.add_unschedulable(queued, diagnosis.plugins)
        if not diagnosis.rejections:
            return self._tell_unschedulable(pod, diagnosis.message(), None)
        why = preemption.refusal(pod, self._cache.nodes)
        if why:
            return self._tell_unschedulable(pod, diagnosis.message(why), None)
        planned = preemption.plan(pod, self._cache.nodes, diagnosis, self._fits_in(pod))
        if isinstance(planned, str):
            # A place that was promised and is of no use any more is given back.
            self._nominations.remove(pod.key)
            return self._tell_unschedulable(pod, diagnosis.message(planned), "")
        self._nominations.add(pod, planned.node)
        return self._preempt(pod, planned, diagnosis.message())

    def _find(self, pod: PodInfo, diagnosis: Diagnosis) -> NodeInfo | None:
        """The best node for a pod; where there is none, why each was refused."""
        nodes = self._cache.nodes
        filters = Filters(pod, nodes, self._cache.with_terms, self._namespace_labels)
        possible = []
        for node in nodes.values():
            rejection = filters.check(node)
            if rejection is None:
                promised = self._nominations.on(node, pod)
                # Pods that were promised room here may come or not: it must fit both ways.
                rejection = filters.check(promised) if promised is not None else None
            if rejection is None:
                possible.append(node)
            else:
                diagnosis.rejections[node.name] = rejection
        if len(possible) < 2:
            return possible[0] if possible else None
        return scores.best(
            pod, possible, nodes, self._cache.with_terms, self._namespace_labels, self._alike(pod)
        )

    def _fits_in(self, pod: PodInfo) -> preemption.Fits:
        def fits(node: NodeInfo, state: Mapping[str, NodeInfo]) -> bool:
            with_terms = self._cache.with_terms
            if with_terms:
                with_terms = {k: p for n in state.values() for k, p in n.with_terms.items()}
            filters = Filters(pod, state, with_terms, self._namespace_labels)
            judged = self._nominations.on(node, pod) or node
            return filters.check(judged) is None

        return fits

    def _alike(self, pod: PodInfo) -> Callable[[PodInfo], bool]:
        """Which pods count as the same as this one: of the same owner, or behind the same Service."""
        selectors = []
        for service in self._services.list(pod.namespace):
            selector = service["spec"].get("selector")
            if selector and (made := from_map(selector)).matches(pod.labels):
                selectors.append(made)

        def alike(other: PodInfo) -> bool:
            if other.namespace != pod.namespace:
                return False
            if pod.owner and other.owner == pod.owner:
                return True
            return any(s.matches(other.labels) for s in selectors)

        return alike

    async def _supervise(self, queued: QueuedPod, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:  # as above: the group would end with it
            log.exception("scheduling %s", queued.info.key)

    async def _bind(self, queued: QueuedPod, pod: PodInfo, node: str) -> None:
        meta = pod.obj["metadata"]
        name = meta["name"]
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": pod.namespace, "uid": pod.uid},
            "target": {"kind": "Node", "name": node},
        }
        try:
            await self._client.create(
                PODS, binding, namespace=pod.namespace, name=name, subresource="binding"
            )
        except (StatusError, ConnectionLost) as e:
            if not self._cache.forget(pod):
                return
            self._queue.move(of_placed_pod(None, pod))
            await self._failed(queued, str(e))
            return
        self._recorder.event(pod.obj, "Normal", "Scheduled", f"Successfully assigned {pod.key} to {node}")

    async def _failed(self, queued: QueuedPod, why: str) -> None:
        """An error kept a pod from its node: it comes again after its pause, if it is still there and without one."""
        current = self._pods.get_by_key(queued.info.key)
        if current is None or not _waits(current) or current["metadata"]["uid"] != queued.info.uid:
            return
        log.warning("%s: %s", queued.info.key, why)
        queued.info = pod_info(current)
        self._queue.add_failed(queued)
        self._recorder.event(current, "Warning", "FailedScheduling", why)
        await self._set_condition(queued.info, "SchedulerError", why, None)

    async def _tell_unschedulable(self, pod: PodInfo, message: str, nominated: str | None) -> None:
        self._recorder.event(pod.obj, "Warning", "FailedScheduling", message)
        await self._set_condition(pod, "Unschedulable", message, nominated)

    async def _preempt(self, pod: PodInfo, planned: preemption.Plan, message: str) -> None:
        await self._tell_unschedulable(pod, message, planned.node)
        for other in self._nominations.lower(planned.node, pod.priority):
            # They were promised room that is now another's.
            self._nominations.remove(other.key)
            self._queue.wake(other.key)
            await self._patch_status(other, {"nominatedNodeName": None})
        for victim in planned.victims:
            if not victim.terminating:
                await self._evict(victim, pod, planned.node)

    async def _evict(self, victim: PodInfo, pod: PodInfo, node: str) -> None:
        name = victim.obj["metadata"]["name"]
        told = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": preemption.REASON,
            "message": f"{NAME}: preempting to accommodate a higher priority pod",
            "lastTransitionTime": now(),
        }
        try:
            await self._patch_status(victim, {"conditions": [told]})
            await self._client.delete(PODS, victim.namespace, name, uid=victim.uid)
        except (StatusError, ConnectionLost) as e:
            if getattr(e, "code", 0) != 404:
                log.warning("preempting %s: %s", victim.key, e)
            return
        self._recorder.event(victim.obj, "Normal", "Preempted", f"Preempted by pod {pod.uid} on node {node}")

    async def _set_condition(self, pod: PodInfo, reason: str, message: str, nominated: str | None) -> None:
        """Tell in the pod's status why it has no node. `nominated` is the node that it is promised, "" that it is
        promised none, None that this did not change."""
        present = condition(pod.obj, "PodScheduled") or {}
        made: Object = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
        generation = pod.obj["metadata"].get("generation")
        if generation:
            made["observedGeneration"] = generation
        status: Object = {}
        if any(present.get(name) != value for name, value in made.items()):
            changed = present.get("status") != "False"
            made["lastTransitionTime"] = now() if changed else present.get("lastTransitionTime") or now()
            made["lastProbeTime"] = None
            status["conditions"] = [made]
        promised = (pod.obj.get("status") or {}).get("nominatedNodeName") or ""
        if nominated is not None and nominated != promised:
            status["nominatedNodeName"] = nominated or None
        if status:
            await self._patch_status(pod, status)

    async def _patch_status(self, pod: PodInfo, status: Object) -> None:
        patch = {"metadata": {"uid": pod.uid}, "status": status}
        try:
            await self._client.patch(
                PODS,
                pod.namespace,
                pod.obj["metadata"]["name"],
                patch,
                content_type=STRATEGIC_MERGE_PATCH,
                subresource="status",
            )
        except (StatusError, ConnectionLost) as e:
            if getattr(e, "code", 0) not in (404, 409):
                log.warning("status of %s: %s", pod.key, e)

    def _namespace_labels(self, name: str) -> Mapping[str, str]:
        found = self._namespaces.get("", name)
        return (found["metadata"].get("labels") or _NO_LABELS) if found is not None else _NO_LABELS

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._cache.set_node(new)
        else:
            assert old is not None
            self._cache.remove_node(old["metadata"]["name"])
        self._queue.move(of_node(old, new))

    def _namespace_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and (
            old is None or old["metadata"].get("labels") != new["metadata"].get("labels")
        ):
            self._queue.move((INTER_POD_AFFINITY,))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and old is not None and old["metadata"]["uid"] != new["metadata"]["uid"]:
            # One gone and another of its name come, between two looks.
            self._pod_changed(old, None)
            old = None
        obj = new if new is not None else old
        assert obj is not None
        if obj["spec"].get("nodeName"):
            self._queue.remove(key_of(obj))
            self._placed_changed(obj, gone=new is None or _finished(obj))
        elif new is None or not _waits(obj):
            self._waiting_gone(key_of(obj))
        elif not self._cache.is_assumed(key_of(obj)):
            self._waiting_changed(obj)

    def _placed_changed(self, obj: Object, *, gone: bool) -> None:
        key = key_of(obj)
        self._nominations.remove(key)
        before = self._cache.placed(key)
        if gone:
            if self._cache.remove_pod(key) is not None:
                self._queue.move(of_placed_pod(None, before))
            return
        was_terminating = before is not None and before.terminating
        self._cache.set_pod(obj)
        after = self._cache.placed(key)
        if before is not after or (after is not None and after.terminating != was_terminating):
            self._queue.move(of_placed_pod(after, before))

    def _waiting_gone(self, key: str) -> None:
        self._queue.remove(key)
        removed = self._cache.remove_pod(key)
        if self._nominations.remove(key) or removed is not None:
            self._queue.move(of_placed_pod(None, removed))

    def _waiting_changed(self, obj: Object) -> None:
        key = key_of(obj)
        queued = self._queue.get(key)
        if queued is not None and queued.info.uid == obj["metadata"]["uid"]:
            if queued.info.described_alike(obj):
                queued.info.obj = obj
            else:
                self._queue.update(pod_info(obj))
            return
        info = pod_info(obj)
        promised = (obj.get("status") or {}).get("nominatedNodeName")
        if promised:
            self._nominations.add(info, promised)
        self._queue.add(info)


def _finished(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _waits(pod: Object) -> bool:
    """Whether a pod is ours to place."""
    spec = pod["spec"]
    return (
        not spec.get("nodeName")
        and spec.get("schedulerName") == NAME
        and not pod["metadata"].get("deletionTimestamp")
        and not _finished(pod)
    )
