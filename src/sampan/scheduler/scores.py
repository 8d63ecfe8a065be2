"""Which of the possible nodes is best: upstream's scores, each 0 to 100, by upstream's weights."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence

from sampan.api.taints import tolerated
from sampan.scheduler import node_affinity, topology_spread
from sampan.scheduler.affinity import NamespaceLabels, Term
from sampan.scheduler.cache import NodeInfo, PodInfo

MOST = 100.0
_HARD_WEIGHT = 1
"""What a placed pod's required affinity weighs in favour of its own company."""

Scores = list[float]


def least_allocated(pod: PodInfo, nodes: Sequence[NodeInfo]) -> Scores:
    """The share of CPU and memory that stays free."""
    return [MOST * sum(1 - f for f in fractions) / 2 for fractions in _fractions(pod, nodes)]


def balanced_allocation(pod: PodInfo, nodes: Sequence[NodeInfo]) -> Scores:
    """How alike CPU and memory are used."""
    return [MOST * (1 - abs(cpu - memory) / 2) for cpu, memory in _fractions(pod, nodes)]


def _fractions(pod: PodInfo, nodes: Sequence[NodeInfo]) -> list[tuple[float, float]]:
    def fraction(node: NodeInfo, name: str) -> float:
        has = node.allocatable.get(name, 0)
        taken = node.compared.get(name, 0) + pod.compared.get(name, 0)
        return min(1.0, taken / has) if has else 1.0

    return [(fraction(n, "cpu"), fraction(n, "memory")) for n in nodes]


def preferred_taints(pod: PodInfo, nodes: Sequence[NodeInfo]) -> Scores:
    """The fewer PreferNoSchedule taints that the pod does not tolerate, the better."""
    tolerations = pod.spec.get("tolerations") or ()
    return _reversed(
        [
            sum(t.get("effect") == "PreferNoSchedule" and not tolerated(tolerations, t) for t in n.taints)
            for n in nodes
        ]
    )


def preferred_node_affinity(pod: PodInfo, nodes: Sequence[NodeInfo]) -> Scores:
    """The weights of the preferences that a node fulfils."""
    weights = [node_affinity.preferred_weight(pod, n) for n in nodes]
    most = max(weights)
    return [MOST * w / most if most else 0.0 for w in weights]


def pod_affinity(
    pod: PodInfo,
    nodes: Sequence[NodeInfo],
    all_nodes: Mapping[str, NodeInfo],
    with_terms: Mapping[str, PodInfo],
    namespace_labels: NamespaceLabels,
) -> Scores:
    """The preferred company: the pod's own preferences, and those of placed pods about it."""
    parts: dict[tuple[str, str], int] = {}

    def meet(terms: Sequence[Term], about: PodInfo, where: NodeInfo, weight: Callable[[Term], int]) -> None:
        for term in terms:
            value = where.labels.get(term.topology_key)
            if value is not None and term.matches(about.namespace, about.labels, namespace_labels):
                part = term.topology_key, value
                parts[part] = parts.get(part, 0) + weight(term)

    def favour(term: Term) -> int:
        return term.weight

    def disfavour(term: Term) -> int:
        return -term.weight

    mine = pod.terms
    if mine.preferred_affinity or mine.preferred_anti_affinity:
        for node in all_nodes.values():
            for other in node.pods.values():
                meet(mine.preferred_affinity, other, node, favour)
                meet(mine.preferred_anti_affinity, other, node, disfavour)
    for other in with_terms.values():
        where = all_nodes.get(other.node)
        if where is not None:
            meet(other.terms.preferred_affinity, pod, where, favour)
            meet(other.terms.preferred_anti_affinity, pod, where, disfavour)
            meet(other.terms.required_affinity, pod, where, lambda _: _HARD_WEIGHT)
    totals = [sum(w for (key, value), w in parts.items() if n.labels.get(key) == value) for n in nodes]
    least, most = min(totals), max(totals)
    return [MOST * (t - least) / (most - least) if most > least else 0.0 for t in totals]


def spread(pod: PodInfo, nodes: Sequence[NodeInfo], all_nodes: Mapping[str, NodeInfo]) -> Scores:
    """Evenness by the constraints that need not be satisfied (`ScheduleAnyway`)."""
    constraints = [s for s in pod.spreads if not s.required]
    counts = topology_spread.counts(pod, constraints, all_nodes)
    rated: list[float | None] = []
    for node in nodes:
        values = [node.labels.get(c.topology_key) for c in constraints]
        if None in values:
            rated.append(None)
            continue
        total = 0.0
        for constraint, by_value, value in zip(constraints, counts, values, strict=True):
            # Many small parts weigh more than a few large ones, or a zone would drown a host name.
            total += by_value.get(value or "", 0) * math.log(len(by_value) + 2) + constraint.max_skew - 1
        rated.append(total)
    known = [r for r in rated if r is not None]
    if not known:
        return [0.0] * len(nodes)
    least, most = min(known), max(known)
    return [0.0 if r is None else MOST * (most + least - r) / most if most else MOST for r in rated]


Alike = Callable[[PodInfo], bool]


def fewest_alike(nodes: Sequence[NodeInfo], alike: Alike) -> Scores:
    """Pods of one owner or Service apart from each other, for a pod that says nothing about spreading."""
    return _reversed(
        [sum(not other.terminating and alike(other) for other in n.pods.values()) for n in nodes]
    )


def _reversed(counts: Sequence[int]) -> Scores:
    most = max(counts)
    return [MOST * (most - c) / most if most else MOST for c in counts]


def best(
    pod: PodInfo,
    nodes: Sequence[NodeInfo],
    all_nodes: Mapping[str, NodeInfo],
    with_terms: Mapping[str, PodInfo],
    namespace_labels: NamespaceLabels,
    alike: Alike,
) -> NodeInfo:
    """The best of `nodes` (one at least); of several equally good ones any."""
    if any(not s.required for s in pod.spreads):
        spreading = spread(pod, nodes, all_nodes)
    elif pod.spreads:
        spreading = [0.0] * len(nodes)
    else:
        spreading = fewest_alike(nodes, alike)
    weighted: list[tuple[int, Scores]] = [
        (1, least_allocated(pod, nodes)),
        (1, balanced_allocation(pod, nodes)),
        (3, preferred_taints(pod, nodes)),
        (2, preferred_node_affinity(pod, nodes)),
        (2, spreading),
    ]
    if pod.terms or with_terms:
        weighted.append((2, pod_affinity(pod, nodes, all_nodes, with_terms, namespace_labels)))
    totals = [sum(weight * scores[i] for weight, scores in weighted) for i in range(len(nodes))]
    most = max(totals)
    return random.choice([n for n, t in zip(nodes, totals, strict=True) if t >= most - 1e-9])
