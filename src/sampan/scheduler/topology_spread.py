"""Pods spread evenly over parts of the cluster, where the pod insists on it (`DoNotSchedule`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sampan.api.taints import tolerated
from sampan.scheduler import node_affinity
from sampan.scheduler.affinity import Spread
from sampan.scheduler.cache import NodeInfo, PodInfo
from sampan.scheduler.diagnosis import Rejection

POD_TOPOLOGY_SPREAD = "PodTopologySpread"

_SKEW = "node(s) didn't match pod topology spread constraints"
_UNEVEN = Rejection(POD_TOPOLOGY_SPREAD, (_SKEW,))
_NO_LABEL = Rejection(POD_TOPOLOGY_SPREAD, (f"{_SKEW} (missing required label)",), final=True)


class TopologySpread:
    """The constraints that one pod insists on, against one state of all nodes."""

    def __init__(self, pod: PodInfo, nodes: Mapping[str, NodeInfo]) -> None:
        self._constraints = [s for s in pod.spreads if s.required]
        self._counts = counts(pod, self._constraints, nodes)
        self._fewest = []
        for constraint, by_value in zip(self._constraints, self._counts, strict=True):
            enough = len(by_value) >= constraint.min_domains
            self._fewest.append(min(by_value.values(), default=0) if enough else 0)
        self._self = [int(s.selector.matches(pod.labels)) for s in self._constraints]

    def check(self, node: NodeInfo) -> Rejection | None:
        for i, constraint in enumerate(self._constraints):
            value = node.labels.get(constraint.topology_key)
            if value is None:
                return _NO_LABEL
            if self._counts[i].get(value, 0) + self._self[i] - self._fewest[i] > constraint.max_skew:
                return _UNEVEN
        return None


def counts(
    pod: PodInfo, constraints: Sequence[Spread], nodes: Mapping[str, NodeInfo]
) -> list[dict[str, int]]:
    """For each constraint the matching pods by the value of its topology key, over the nodes that it counts."""
    found: list[dict[str, int]] = [{} for _ in constraints]
    for node in nodes.values():
        if not all(c.topology_key in node.labels for c in constraints):
            continue
        for constraint, by_value in zip(constraints, found, strict=True):
            if _counts(pod, constraint, node):
                value = node.labels[constraint.topology_key]
                by_value[value] = by_value.get(value, 0) + matching(pod, constraint, node)
    return found


def matching(pod: PodInfo, constraint: Spread, node: NodeInfo) -> int:
    """How many pods of the node a constraint is about."""
    return sum(
        other.namespace == pod.namespace
        and not other.terminating
        and constraint.selector.matches(other.labels)
        for other in node.pods.values()
    )


def _counts(pod: PodInfo, constraint: Spread, node: NodeInfo) -> bool:
    if constraint.honor_node_affinity and not node_affinity.required_matches(pod, node):
        return False
    if constraint.honor_node_taints:
        tolerations = pod.spec.get("tolerations") or ()
        return all(t.get("effect") == "PreferNoSchedule" or tolerated(tolerations, t) for t in node.taints)
    return True
