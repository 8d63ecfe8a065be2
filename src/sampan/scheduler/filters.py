"""Which nodes a pod may go to: every filter, in upstream's order. The first that objects speaks for the node."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sampan.api.taints import tolerated
from sampan.scheduler import node_affinity
from sampan.scheduler.affinity import NamespaceLabels
from sampan.scheduler.cache import NodeInfo, PodInfo
from sampan.scheduler.diagnosis import Rejection
from sampan.scheduler.inter_pod_affinity import INTER_POD_AFFINITY, InterPodAffinity
from sampan.scheduler.topology_spread import POD_TOPOLOGY_SPREAD, TopologySpread

NODE_UNSCHEDULABLE = "NodeUnschedulable"
NODE_NAME = "NodeName"
TAINT_TOLERATION = "TaintToleration"
NODE_AFFINITY = "NodeAffinity"
NODE_PORTS = "NodePorts"
NODE_RESOURCES_FIT = "NodeResourcesFit"

__all__ = [
    "INTER_POD_AFFINITY",
    "NODE_AFFINITY",
    "NODE_NAME",
    "NODE_PORTS",
    "NODE_RESOURCES_FIT",
    "NODE_UNSCHEDULABLE",
    "POD_TOPOLOGY_SPREAD",
    "TAINT_TOLERATION",
    "Filters",
]

_UNSCHEDULABLE_TAINT = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}


def node_unschedulable(pod: PodInfo, node: NodeInfo) -> Rejection | None:
    if node.unschedulable and not tolerated(pod.spec.get("tolerations") or (), _UNSCHEDULABLE_TAINT):
        return Rejection(NODE_UNSCHEDULABLE, ("node(s) were unschedulable",), final=True)
    return None


def node_name(pod: PodInfo, node: NodeInfo) -> Rejection | None:
    wanted = pod.spec.get("nodeName")
    if wanted and wanted != node.name:
        return Rejection(NODE_NAME, ("node(s) didn't match the requested node name",), final=True)
    return None


def taint_toleration(pod: PodInfo, node: NodeInfo) -> Rejection | None:
    for taint in node.taints:
        if taint.get("effect") == "PreferNoSchedule":
            continue
        if not tolerated(pod.spec.get("tolerations") or (), taint):
            return Rejection(TAINT_TOLERATION, ("node(s) had untolerated taint(s)",), final=True)
    return None


def node_affinity_filter(pod: PodInfo, node: NodeInfo) -> Rejection | None:
    if not node_affinity.required_matches(pod, node):
        return Rejection(NODE_AFFINITY, ("node(s) didn't match Pod's node affinity/selector",), final=True)
    return None


def node_ports(pod: PodInfo, node: NodeInfo) -> Rejection | None:
    for port in pod.ports:
        if any(port.conflicts(taken) for taken in node.ports.get(port.port, ())):
            return Rejection(NODE_PORTS, ("node(s) didn't have free ports for the requested pod ports",))
    return None


def node_resources_fit(pod: PodInfo, node: NodeInfo) -> Rejection | None:
    reasons, final = [], False
    allocatable, requested = node.allocatable, node.requested
    if len(node.pods) + 1 > allocatable.get("pods", 0):
        reasons.append("Too many pods")
    for name, amount in pod.requests.items():
        has = allocatable.get(name, 0)
        if amount and amount > has - requested.get(name, 0):
            reasons.append(f"Insufficient {name}")
            final = final or amount > has
    return Rejection(NODE_RESOURCES_FIT, tuple(reasons), final) if reasons else None


_OF_NODE: tuple[Callable[[PodInfo, NodeInfo], Rejection | None], ...] = (
    node_unschedulable,
    node_name,
    taint_toleration,
    node_affinity_filter,
    node_ports,
    node_resources_fit,
)


class Filters:
    """The filters for one pod against one state of all nodes."""

    def __init__(
        self,
        pod: PodInfo,
        nodes: Mapping[str, NodeInfo],
        with_terms: Mapping[str, PodInfo],
        namespace_labels: NamespaceLabels,
    ) -> None:
        self.pod = pod
        self.nodes = nodes
        self._spread = TopologySpread(pod, nodes) if any(s.required for s in pod.spreads) else None
        speaks = with_terms or pod.terms.required_affinity or pod.terms.required_anti_affinity
        self._affinity = InterPodAffinity(pod, nodes, with_terms, namespace_labels) if speaks else None

    def check(self, node: NodeInfo) -> Rejection | None:
        """Why the pod cannot go there, or None if it can."""
        for judge in _OF_NODE:
            rejection = judge(self.pod, node)
            if rejection is not None:
                return rejection
        if self._spread is not None:
            rejection = self._spread.check(node)
            if rejection is not None:
                return rejection
        if self._affinity is not None:
            return self._affinity.check(node)
        return None
