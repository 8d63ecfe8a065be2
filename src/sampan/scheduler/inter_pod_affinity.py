"""Pods that must (not) share a part of the cluster with other pods: the required terms, of both sides.

A part is a pair of a topology key and the value that its nodes carry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sampan.scheduler.affinity import NamespaceLabels, Term
from sampan.scheduler.cache import NodeInfo, PodInfo
from sampan.scheduler.diagnosis import Rejection

INTER_POD_AFFINITY = "InterPodAffinity"

_AFFINITY = Rejection(INTER_POD_AFFINITY, ("node(s) didn't match pod affinity rules",), final=True)
_ANTI_AFFINITY = Rejection(INTER_POD_AFFINITY, ("node(s) didn't match pod anti-affinity rules",))
_EXISTING = Rejection(INTER_POD_AFFINITY, ("node(s) didn't satisfy existing pods anti-affinity rules",))

Part = tuple[str, str]


class InterPodAffinity:
    """The required terms of one pod, and those of the placed pods about it, against one state of all nodes."""

    def __init__(
        self,
        pod: PodInfo,
        nodes: Mapping[str, NodeInfo],
        with_terms: Mapping[str, PodInfo],
        namespace_labels: NamespaceLabels,
    ) -> None:
        self._toward = pod.terms.required_affinity
        self._away = pod.terms.required_anti_affinity
        self._wanted: Counter[Part] = Counter()
        self._unwanted: set[Part] = set()
        self._forbidden: set[Part] = set()
        self._is_its_own_company = _matches_all(self._toward, pod, namespace_labels)
        if self._toward or self._away:
            for node in nodes.values():
                for other in node.pods.values():
                    self._meet(other, node, namespace_labels)
        for other in with_terms.values():
            where = nodes.get(other.node)
            if where is None:
                continue
            for term in other.terms.required_anti_affinity:
                part = _part(term, where)
                if part is not None and term.matches(pod.namespace, pod.labels, namespace_labels):
                    self._forbidden.add(part)

    def _meet(self, other: PodInfo, node: NodeInfo, namespace_labels: NamespaceLabels) -> None:
        # A pod counts as company only if it answers to all terms.
        if self._toward and _matches_all(self._toward, other, namespace_labels):
            self._wanted.update(p for t in self._toward if (p := _part(t, node)) is not None)
        for term in self._away:
            part = _part(term, node)
            if part is not None and term.matches(other.namespace, other.labels, namespace_labels):
                self._unwanted.add(part)

    def check(self, node: NodeInfo) -> Rejection | None:
        if self._toward:
            parts = [_part(t, node) for t in self._toward]
            if None in parts:
                return _AFFINITY
            if any(not self._wanted[p] for p in parts if p is not None) and (
                # The first of a group that wants its own company may begin anywhere.
                self._wanted or not self._is_its_own_company
            ):
                return _AFFINITY
        if self._unwanted and any(_part(t, node) in self._unwanted for t in self._away):
            return _ANTI_AFFINITY
        if self._forbidden and any(node.labels.get(key) == value for key, value in self._forbidden):
            return _EXISTING
        return None


def _part(term: Term, node: NodeInfo) -> Part | None:
    value = node.labels.get(term.topology_key)
    return None if value is None else (term.topology_key, value)


def _matches_all(terms: tuple[Term, ...], pod: PodInfo, namespace_labels: NamespaceLabels) -> bool:
    return all(t.matches(pod.namespace, pod.labels, namespace_labels) for t in terms)
