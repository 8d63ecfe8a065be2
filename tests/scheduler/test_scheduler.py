"""The scheduler on a real API server core in this process, with nodes that only their objects make."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from sampan.api.errors import Object, StatusError
from sampan.api.objects import condition
from sampan.api.resources import NODES, PODS, SERVICEACCOUNTS
from sampan.apiserver.app import App
from sampan.client.types import STRATEGIC_MERGE_PATCH
from sampan.scheduler.cache import NodeInfo
from sampan.scheduler.filters import Filters
from sampan.scheduler.scheduler import Scheduler
from sampan.store.memory import MemoryStore
from tests.apiserver.conftest import config
from tests.controllers.conftest import Cluster, running
from tests.scheduler.objects import affinity, term

NOT_HELPFUL = "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."


class Api(Cluster):
    """The API with a scheduler, and short words for what tests do to it."""

    async def add_node(self, name: str = "n1", cpu: str = "4", **labels: str) -> None:
        amounts = {"cpu": cpu, "memory": "4Gi", "pods": "110"}
        meta = {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}}
        made = await self.client.create(
            NODES, {"metadata": meta, "status": {"capacity": amounts, "allocatable": amounts}}
        )
        # Admission keeps new nodes closed until their controller has seen them ready.
        await self.change(NODES, made, lambda node: node["spec"].pop("taints", None))

    async def change_node(self, change: Callable[[Object], Any], name: str = "n1") -> None:
        await self.change(NODES, await self.client.get(NODES, "", name), change)

    async def add_pod(
        self, name: str, cpu: str = "100m", namespace: str = "default", labels: Any = None, **spec: Any
    ) -> Object:
        container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}
        return await self.client.create(
            PODS,
            {
                "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
                "spec": {"containers": [container], **spec},
            },
        )

    async def pod(self, name: str, holds: Callable[[Object], Any], namespace: str = "default") -> Object:
        """Wait until a pod is as it should be."""

        def found(pods: list[Object]) -> Object | None:
            return next((p for p in pods if p["metadata"]["name"] == name and holds(p)), None)

        present = found(await self.until(PODS, found, namespace))
        assert present is not None
        return present

    async def bound(self, name: str, namespace: str = "default") -> str:
        pod = await self.pod(name, lambda p: p["spec"].get("nodeName"), namespace)
        return str(pod["spec"]["nodeName"])

    async def unschedulable(self, name: str, why: str = "", namespace: str = "default") -> str:
        def refused(pod: Object) -> bool:
            found = condition(pod, "PodScheduled")
            return (
                found is not None
                and (found["status"], found["reason"]) == ("False", "Unschedulable")
                and why in found["message"]
            )

        found = condition(await self.pod(name, refused, namespace), "PodScheduled")
        assert found is not None
        return str(found["message"])


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    app = App(MemoryStore(), config())
    await app.start()
    client = app.client()
    for namespace in ("default", "kube-system"):
        await client.create(SERVICEACCOUNTS, {"metadata": {"name": "default", "namespace": namespace}})
    async with running(Scheduler(client).run()):
        yield Api(client)
    await app.close()


async def test_a_pod_is_bound_and_its_event_says_so(api: Api) -> None:
    await api.add_node()
    await api.add_pod("a")
    assert await api.bound("a") == "n1"
    event = await api.event("Scheduled")
    assert event["message"] == "Successfully assigned default/a to n1"
    assert (event["type"], event["source"], event["reportingComponent"]) == (
        "Normal",
        {"component": "default-scheduler"},
        "default-scheduler",
    )
    scheduled = condition(await api.client.get(PODS, "default", "a"), "PodScheduled")
    assert scheduled is not None
    assert scheduled["status"] == "True"


async def test_pods_that_are_not_ours_are_left_alone(api: Api) -> None:
    await api.add_node()
    await api.add_pod("theirs", schedulerName="other")
    await api.add_pod("ours")
    assert await api.bound("ours") == "n1"
    theirs = await api.client.get(PODS, "default", "theirs")
    assert "nodeName" not in theirs["spec"]
    assert condition(theirs, "PodScheduled") is None


async def test_without_nodes(api: Api) -> None:
    await api.add_pod("a")
    assert await api.unschedulable("a") == "no nodes available to schedule pods"
    event = await api.event("FailedScheduling")
    assert (event["type"], event["message"]) == ("Warning", "no nodes available to schedule pods")
    await api.add_node()
    assert await api.bound("a") == "n1"


async def test_cordon_and_uncordon(api: Api) -> None:
    await api.add_node()
    await api.change_node(lambda n: n["spec"].update(unschedulable=True))
    await api.add_pod("a")
    words = (
        f"0/1 nodes are available: 1 node(s) were unschedulable. no new claims to deallocate, {NOT_HELPFUL}"
    )
    assert await api.unschedulable("a") == words
    assert (await api.event("FailedScheduling"))["message"] == words
    await api.change_node(lambda n: n["spec"].pop("unschedulable"))
    assert await api.bound("a") == "n1"


async def test_taints_and_labels_that_change(api: Api) -> None:
    await api.add_node()
    await api.change_node(lambda n: n["spec"].update(taints=[{"key": "a", "effect": "NoSchedule"}]))
    await api.add_pod("a")
    await api.add_pod("b", tolerations=[{"operator": "Exists"}], nodeSelector={"disk": "ssd"})
    await api.unschedulable(
        "a", f"1 node(s) had untolerated taint(s). no new claims to deallocate, {NOT_HELPFUL}"
    )
    await api.unschedulable("b", "1 node(s) didn't match Pod's node affinity/selector.")
    await api.change_node(lambda n: n["metadata"]["labels"].update(disk="ssd"))
    assert await api.bound("b") == "n1"
    await api.change_node(lambda n: n["spec"].pop("taints"))
    assert await api.bound("a") == "n1"


async def test_room_that_becomes_free(api: Api) -> None:
    await api.add_node(cpu="1")
    await api.add_pod("a", cpu="1")
    await api.bound("a")
    await api.add_pod("b", cpu="1")
    await api.unschedulable("b", "1 Insufficient cpu.")
    await api.add_pod("c", cpu="0")
    assert await api.bound("c") == "n1"
    await api.client.delete(PODS, "default", "a", grace_period_seconds=0)
    assert await api.bound("b") == "n1"


async def test_a_finished_pod_gives_its_room_back(api: Api) -> None:
    await api.add_node(cpu="1")
    await api.add_pod("a", cpu="1")
    await api.bound("a")
    await api.add_pod("b", cpu="1")
    await api.unschedulable("b")
    await api.client.patch(
        PODS, "default", "a", {"status": {"phase": "Succeeded"}},
        content_type=STRATEGIC_MERGE_PATCH, subresource="status",
    )  # fmt: skip
    assert await api.bound("b") == "n1"


async def test_gates(api: Api) -> None:
    await api.add_node()
    await api.add_pod("a", schedulingGates=[{"name": "example.com/wait"}])
    await api.add_pod("b")
    await api.bound("b")
    gated = await api.client.get(PODS, "default", "a")
    assert "nodeName" not in gated["spec"]
    await api.change(PODS, gated, lambda pod: pod["spec"].pop("schedulingGates"))
    assert await api.bound("a") == "n1"


async def test_a_pod_that_leaves_while_it_waits(api: Api) -> None:
    await api.add_node(cpu="1")
    await api.add_pod("a", cpu="2")
    await api.unschedulable("a")
    await api.client.delete(PODS, "default", "a")
    await api.add_pod("a", cpu="1")
    assert await api.bound("a") == "n1"


async def test_no_place_is_given_twice(api: Api) -> None:
    await api.add_node("n1", cpu="10")
    await api.add_node("n2", cpu="10")
    await asyncio.gather(*(api.add_pod(f"p{i}", cpu="1") for i in range(25)))

    def settled(pods: list[Object]) -> bool:
        return len(pods) == 25 and all(
            p["spec"].get("nodeName") or condition(p, "PodScheduled") is not None for p in pods
        )

    pods = await api.until(PODS, settled)
    placed = [p["spec"].get("nodeName", "") for p in pods]
    assert (placed.count("n1"), placed.count("n2"), placed.count("")) == (10, 10, 5)


async def test_pods_of_one_service_are_spread(api: Api) -> None:
    for name in ("n1", "n2", "n3"):
        await api.add_node(name)
    await api.add_pod("big", cpu="2", nodeSelector={"kubernetes.io/hostname": "n3"})
    await api.bound("big")
    together = affinity("podAntiAffinity", term("kubernetes.io/hostname"))
    for i in range(3):
        await api.add_pod(f"p{i}", labels={"app": "web"}, affinity=together)
    assert {await api.bound(f"p{i}") for i in range(3)} == {"n1", "n2", "n3"}
    await api.add_pod("p3", labels={"app": "web"}, affinity=together)
    message = await api.unschedulable("p3")
    assert message == (
        "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules. no new claims to deallocate, "
        "preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod."
    )


async def test_important_pods_make_room(api: Api) -> None:
    await api.add_node(cpu="1")
    await api.add_pod("low", cpu="1")
    await api.bound("low")
    await api.add_pod("high", cpu="1", namespace="kube-system", priorityClassName="system-node-critical")
    waiting = await api.pod("high", lambda p: p.get("status", {}).get("nominatedNodeName"), "kube-system")
    assert waiting["status"]["nominatedNodeName"] == "n1"
    # The room is promised: nobody else may take it, even when it is free for a moment.
    await api.add_pod("other", cpu="1")
    await api.unschedulable("other", "1 Insufficient cpu.")
    leaving = await api.pod("low", lambda p: p["metadata"].get("deletionTimestamp"))
    disrupted = condition(leaving, "DisruptionTarget")
    assert disrupted is not None
    assert disrupted["reason"] == "PreemptionByScheduler"
    assert disrupted["message"] == "default-scheduler: preempting to accommodate a higher priority pod"
    event = await api.event("Preempted")
    assert event["message"] == f"Preempted by pod {waiting['metadata']['uid']} on node n1"
    await api.client.delete(PODS, "default", "low", grace_period_seconds=0)
    assert await api.bound("high", "kube-system") == "n1"
    assert "nodeName" not in (await api.client.get(PODS, "default", "other"))["spec"]


async def test_a_binding_that_fails_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sampan.scheduler.queue.FIRST_PAUSE", 0.001)
    app = App(MemoryStore(), config())
    await app.start()
    client = app.client()
    await client.create(SERVICEACCOUNTS, {"metadata": {"name": "default", "namespace": "default"}})
    failing = app.client()
    create, failures = failing.create, 2

    async def fail(resource: Any, obj: Object, **more: Any) -> Object:
        nonlocal failures
        if more.get("subresource") == "binding" and failures:
            failures -= 1
            raise StatusError(500, "InternalError", "no binding today")
        return await create(resource, obj, **more)

    monkeypatch.setattr(failing, "create", fail, raising=False)
    async with running(Scheduler(failing).run()):
        api = Api(client)
        await api.add_node(cpu="1")
        await api.add_pod("a", cpu="1")
        assert await api.bound("a") == "n1"
        assert (await api.event("FailedScheduling"))["message"] == "no binding today"
    await app.close()


async def test_one_pod_that_cannot_be_read_stops_nobody(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    check = Filters.check

    def broken(self: Filters, node: NodeInfo) -> Any:
        if self.pod.key == "default/bad":
            raise ValueError("what is this?")
        return check(self, node)

    monkeypatch.setattr(Filters, "check", broken)
    await api.add_node()
    await api.add_pod("bad")
    await api.add_pod("good")
    assert await api.bound("good") == "n1"
    assert (await api.event("FailedScheduling"))["message"] == "what is this?"
    failed = await api.pod("bad", lambda p: condition(p, "PodScheduled"))
    found = condition(failed, "PodScheduled")
    assert found is not None
    assert found["reason"] == "SchedulerError"


async def test_restarted_with_pods_in_place() -> None:
    app = App(MemoryStore(), config())
    await app.start()
    api = Api(app.client())
    await api.client.create(SERVICEACCOUNTS, {"metadata": {"name": "default", "namespace": "default"}})
    async with running(Scheduler(api.client).run()):
        await api.add_node(cpu="1")
        await api.add_pod("a", cpu="1")
        await api.bound("a")
    await api.add_pod("b", cpu="1")
    async with running(Scheduler(api.client).run()):
        await api.unschedulable("b", "1 Insufficient cpu.")
    await app.close()


async def test_placing_a_pod_is_quick_on_a_full_node(api: Api) -> None:
    """A pod has its node about a millisecond after it was made, however many pods there are."""
    await api.add_node(cpu="100")
    for i in range(100):
        await api.add_pod(f"p{i}")
    await api.until(PODS, lambda pods: all(p["spec"].get("nodeName") for p in pods))
    took = []
    for i in range(9):
        revision = (await api.client.list(PODS)).resource_version
        began = time.perf_counter()
        await api.add_pod(f"q{i}")
        async for event in api.client.watch(PODS, resource_version=revision):
            meta = event.object.get("metadata", {})
            if meta.get("name") == f"q{i}" and event.object["spec"].get("nodeName"):
                break
        took.append(time.perf_counter() - began)
    assert sorted(took)[len(took) // 2] < 0.02, took
