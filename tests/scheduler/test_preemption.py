"""Who has to go."""

from __future__ import annotations

from collections.abc import Mapping

from sampan.api.errors import Object
from sampan.scheduler import preemption
from sampan.scheduler.cache import Cache, NodeInfo, PodInfo
from sampan.scheduler.diagnosis import Diagnosis
from sampan.scheduler.filters import Filters
from tests.scheduler.objects import cache, info, node, pod


def plan(state: Cache, incoming: PodInfo) -> preemption.Plan | str:
    def fits(where: NodeInfo, nodes: Mapping[str, NodeInfo]) -> bool:
        return Filters(incoming, nodes, {}, lambda _: {}).check(where) is None

    filters = Filters(incoming, state.nodes, {}, lambda _: {})
    diagnosis = Diagnosis({name: r for name, n in state.nodes.items() if (r := filters.check(n)) is not None})
    assert len(diagnosis.rejections) == len(state.nodes)
    return preemption.plan(incoming, state.nodes, diagnosis, fits)


def one(name: str, cpu: str, priority: int = 0) -> Object:
    return pod(name, requests={"cpu": cpu}, priority=priority)


def victims(found: preemption.Plan | str) -> tuple[str, list[str]]:
    assert isinstance(found, preemption.Plan), found
    return found.node, [v.key.removeprefix("default/") for v in found.victims]


def test_only_as_many_as_needed_and_the_least_important() -> None:
    state = cache(node(), pods={"n1": [one("a", "1", 5), one("b", "1", 1), one("c", "2", 3)]})
    assert victims(plan(state, info(requests={"cpu": "1"}, priority=10))) == ("n1", ["b"])
    assert victims(plan(state, info(requests={"cpu": "2"}, priority=10))) == ("n1", ["c"])
    assert victims(plan(state, info(requests={"cpu": "3"}, priority=10))) == ("n1", ["c", "b"])


def test_the_node_where_it_hurts_least() -> None:
    state = cache(
        node("n1"), node("n2"), node("n3"),
        pods={"n1": [one("a", "4", 5)], "n2": [one("b", "2", 1), one("c", "2", 1)], "n3": [one("d", "4", 1)]},
    )  # fmt: skip
    assert victims(plan(state, info(requests={"cpu": "4"}, priority=10))) == ("n3", ["d"])


def test_equals_are_left_alone() -> None:
    state = cache(node(), pods={"n1": [one("a", "4", 10)]})
    assert plan(state, info(requests={"cpu": "1"}, priority=10)) == (
        "0/1 nodes are available: 1 No preemption victims found for incoming pod."
    )


def test_no_use() -> None:
    state = cache(node("n1"), node("n2", unschedulable=True), pods={"n1": [one("a", "1")]})
    assert plan(state, info(requests={"cpu": "5"}, priority=10)) == (
        "0/2 nodes are available: 2 Preemption is not helpful for scheduling."
    )


def test_pods_that_may_not() -> None:
    polite = info(preemptionPolicy="Never", priority=10)
    assert preemption.refusal(polite, {}) == "not eligible due to preemptionPolicy=Never."
    leaving = one("a", "4")
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    leaving["status"] = {
        "conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}]
    }
    waiting = info(priority=10)
    waiting.obj["status"] = {"nominatedNodeName": "n1"}
    state = cache(node(), pods={"n1": [leaving]})
    assert (
        preemption.refusal(waiting, state.nodes)
        == "not eligible due to a terminating pod on the nominated node."
    )
    assert preemption.refusal(info(priority=10), state.nodes) == ""


def test_messages() -> None:
    state = cache(node("n1"), node("n2", unschedulable=True))
    incoming = info(requests={"cpu": "5"})
    filters = Filters(incoming, state.nodes, {}, lambda _: {})
    made = Diagnosis({name: r for name, n in state.nodes.items() if (r := filters.check(n)) is not None})
    assert made.message("X.") == (
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable. "
        "no new claims to deallocate, preemption: X."
    )
    assert made.plugins == {"NodeResourcesFit", "NodeUnschedulable"}
    assert Diagnosis().message() == "no nodes available to schedule pods"
