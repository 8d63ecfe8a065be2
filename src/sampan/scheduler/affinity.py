"""The terms in which a pod speaks of other pods, read once a pod: (anti-)affinity and topology spread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from sampan.api.errors import Object
from sampan.api.selectors import LabelSelector, Requirement, from_object

NamespaceLabels = Callable[[str], Mapping[str, str]]
"""The labels of a namespace, by its name."""


@dataclass(frozen=True, slots=True)
class Term:
    """Pods of some namespaces with some labels, on nodes that share the value of `topology_key`."""

    topology_key: str
    selector: LabelSelector
    namespaces: frozenset[str]
    namespace_selector: LabelSelector
    weight: int = 0

    def matches(self, namespace: str, labels: Mapping[str, str], namespace_labels: NamespaceLabels) -> bool:
        if not self.selector.matches(labels):
            return False
        if namespace in self.namespaces:
            return True
        chosen = self.namespace_selector
        return not chosen.nothing and (chosen.empty or chosen.matches(namespace_labels(namespace)))


@dataclass(frozen=True, slots=True)
class Terms:
    """All that a pod's `affinity` says about other pods."""

    required_affinity: tuple[Term, ...] = ()
    required_anti_affinity: tuple[Term, ...] = ()
    preferred_affinity: tuple[Term, ...] = ()
    preferred_anti_affinity: tuple[Term, ...] = ()

    def __bool__(self) -> bool:
        return any(
            (
                self.required_affinity,
                self.required_anti_affinity,
                self.preferred_affinity,
                self.preferred_anti_affinity,
            )
        )


NO_TERMS = Terms()
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def terms_of(spec: Object, namespace: str, labels: Mapping[str, str]) -> Terms:
    affinity = spec.get("affinity")
    if not affinity:
        return NO_TERMS
    toward, away = affinity.get("podAffinity") or {}, affinity.get("podAntiAffinity") or {}

    def required(given: Object) -> tuple[Term, ...]:
        return tuple(_term(t, namespace, labels) for t in given.get(_REQUIRED) or ())

    def preferred(given: Object) -> tuple[Term, ...]:
        return tuple(
            _term(t["podAffinityTerm"], namespace, labels, t["weight"]) for t in given.get(_PREFERRED) or ()
        )

    return Terms(required(toward), required(away), preferred(toward), preferred(away))


def _with_label_keys(
    selector: LabelSelector, keys: Iterable[str], labels: Mapping[str, str], *, equal: bool = True
) -> LabelSelector:
    """A selector narrowed to the pod's own value of some labels (or to any other value)."""
    more = tuple(
        Requirement(key, "in" if equal else "notin", frozenset({labels[key]}))
        for key in keys
        if key in labels
    )
    return LabelSelector(selector.requirements + more, selector.nothing) if more else selector


def _term(given: Object, namespace: str, labels: Mapping[str, str], weight: int = 0) -> Term:
    selector = from_object(given.get("labelSelector"))
    selector = _with_label_keys(selector, given.get("matchLabelKeys") or (), labels)
    selector = _with_label_keys(selector, given.get("mismatchLabelKeys") or (), labels, equal=False)
    namespaces = given.get("namespaces") or ()
    chosen = given.get("namespaceSelector")
    if not namespaces and chosen is None:
        namespaces = (namespace,)
    return Term(given["topologyKey"], selector, frozenset(namespaces), from_object(chosen), weight)


@dataclass(frozen=True, slots=True)
class Spread:
    """One topology spread constraint. It counts the pods of the pod's own namespace."""

    topology_key: str
    selector: LabelSelector
    max_skew: int
    required: bool
    min_domains: int = 1
    honor_node_affinity: bool = True
    honor_node_taints: bool = False


def spreads_of(spec: Object, labels: Mapping[str, str]) -> tuple[Spread, ...]:
    return tuple(
        Spread(
            c["topologyKey"],
            _with_label_keys(from_object(c.get("labelSelector")), c.get("matchLabelKeys") or (), labels),
            c["maxSkew"],
            c["whenUnsatisfiable"] == "DoNotSchedule",
            c.get("minDomains") or 1,
            c.get("nodeAffinityPolicy") != "Ignore",
            c.get("nodeTaintsPolicy") == "Honor",
        )
        for c in spec.get("topologySpreadConstraints") or ()
    )
