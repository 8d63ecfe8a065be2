"""Which pods each selection means, kept up as pods and namespaces change.

A changed pod is compared only with selections that could mean it: those of its namespace and of namespaces with such labels, and
of these only the ones that ask for a label which it has (a selector nearly always does). So a change costs the same however many
policies there are elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TypeVar

from sampan.api.selectors import LabelSelector
from sampan.networkpolicy.types import PodSelection

_Key = TypeVar("_Key")
_Member = TypeVar("_Member")
_Label = tuple[str, str]
_NONE: frozenset[PodSelection] = frozenset()


class Selections:
    """Counts who uses a selection: each `add` needs its `remove`. Pods are known by uid."""

    def __init__(self) -> None:
        self._used: dict[PodSelection, int] = {}
        self._members: dict[PodSelection, set[str]] = {}
        self._pods: dict[str, tuple[str, Mapping[str, str]]] = {}
        self._of: dict[str, frozenset[PodSelection]] = {}
        self._in: dict[str, set[str]] = {}
        """The pods of a namespace."""
        self._labelled: dict[tuple[str, str, str], set[str]] = {}
        """Those of them that have a label: by namespace, key and value."""
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._scoped: dict[str, _Candidates] = {}
        """By namespace."""
        self._everywhere: dict[LabelSelector, _Candidates] = {}
        """By the labels of namespaces."""
        self._matching: dict[str, frozenset[LabelSelector]] = {}
        """Which of `everywhere` a namespace has the labels for."""

    def add(self, selection: PodSelection) -> Collection[str]:
        """Keep it up from now on; returns the pods that it means."""
        self._used[selection] = self._used.get(selection, 0) + 1
        if self._used[selection] == 1:
            self._members[selection] = found = set()
            self._candidates(selection).add(selection)
            for namespace in self._where(selection):
                for uid in self._possible(namespace, selection.pods):
                    if selection.pods.matches(self._pods[uid][1]):
                        found.add(uid)
                        self._of[uid] |= {selection}
        return self._members[selection]

    def remove(self, selection: PodSelection) -> None:
        self._used[selection] -= 1
        if self._used[selection]:
            return
        del self._used[selection]
        for uid in self._members.pop(selection):
            self._of[uid] -= {selection}
        candidates = self._candidates(selection)
        candidates.remove(selection)
        if candidates.empty:
            self._drop_candidates(selection)

    def members(self, selection: PodSelection) -> Collection[str]:
        return self._members[selection]

    def of(self, uid: str) -> frozenset[PodSelection]:
        """The selections that mean a pod."""
        return self._of.get(uid, _NONE)

    def pods_in(self, namespace: str) -> list[str]:
        return list(self._in.get(namespace, ()))

    def set_pod(self, uid: str, namespace: str, labels: Mapping[str, str]) -> None:
        known = self._pods.get(uid)
        if known is not None and known != (namespace, labels):
            self._forget(uid)
        self._pods[uid] = namespace, labels
        self._in.setdefault(namespace, set()).add(uid)
        for key, value in labels.items():
            self._labelled.setdefault((namespace, key, value), set()).add(uid)
        self._replace(uid, self._match(namespace, labels))

    def remove_pod(self, uid: str) -> None:
        self._replace(uid, _NONE)
        del self._of[uid]
        self._forget(uid)

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> bool:
        """None: it is gone. Returns whether other selections may mean its pods now: they are to be set again."""
        before = self._matching.get(name, frozenset())
        if labels is None:
            self._namespaces.pop(name, None)
            self._matching.pop(name, None)
            return bool(before)
        self._namespaces[name] = labels
        self._matching[name] = frozenset(s for s in self._everywhere if s.matches(labels))
        return before != self._matching[name]

    def _forget(self, uid: str) -> None:
        namespace, labels = self._pods.pop(uid)
        _discard(self._in, namespace, uid)
        for key, value in labels.items():
            _discard(self._labelled, (namespace, key, value), uid)

    def _possible(self, namespace: str, selector: LabelSelector) -> Collection[str]:
        """The pods of a namespace that a selector could mean."""
        label = _label_of(selector)
        if label is None:
            return self._in.get(namespace, ())
        return self._labelled.get((namespace, *label), ())

    def _replace(self, uid: str, new: frozenset[PodSelection]) -> None:
        old = self._of.get(uid, _NONE)
        for selection in old - new:
            self._members[selection].discard(uid)
        for selection in new - old:
            self._members[selection].add(uid)
        self._of[uid] = new

    def _match(self, namespace: str, labels: Mapping[str, str]) -> frozenset[PodSelection]:
        groups = [self._everywhere[s] for s in self._matching.get(namespace, ())]
        if namespace in self._scoped:
            groups.append(self._scoped[namespace])
        return frozenset(s for group in groups for s in group.of(labels) if s.pods.matches(labels))

    def _where(self, selection: PodSelection) -> list[str]:
        if selection.namespaces is None:
            return [selection.namespace]
        return [name for name, found in self._matching.items() if selection.namespaces in found]

    def _candidates(self, selection: PodSelection) -> _Candidates:
        if selection.namespaces is None:
            return self._scoped.setdefault(selection.namespace, _Candidates())
        known = self._everywhere.get(selection.namespaces)
        if known is None:
            known = self._everywhere[selection.namespaces] = _Candidates()
            for name, labels in self._namespaces.items():
                if selection.namespaces.matches(labels):
                    self._matching[name] |= {selection.namespaces}
        return known

    def _drop_candidates(self, selection: PodSelection) -> None:
        if selection.namespaces is None:
            del self._scoped[selection.namespace]
            return
        del self._everywhere[selection.namespaces]
        for name, found in self._matching.items():
            if selection.namespaces in found:
                self._matching[name] = found - {selection.namespaces}


class _Candidates:
    """Selections by one label that each asks for; those that ask for none are candidates for every pod."""

    def __init__(self) -> None:
        self._by_label: dict[_Label, set[PodSelection]] = {}
        self._rest: set[PodSelection] = set()

    @property
    def empty(self) -> bool:
        return not self._by_label and not self._rest

    def add(self, selection: PodSelection) -> None:
        label = _label_of(selection.pods)
        if label is None:
            self._rest.add(selection)
        else:
            self._by_label.setdefault(label, set()).add(selection)

    def remove(self, selection: PodSelection) -> None:
        label = _label_of(selection.pods)
        if label is None:
            self._rest.discard(selection)
            return
        _discard(self._by_label, label, selection)

    def of(self, labels: Mapping[str, str]) -> Iterator[PodSelection]:
        for label in labels.items() if self._by_label else ():
            yield from self._by_label.get(label, ())
        yield from self._rest


def _discard(of: dict[_Key, set[_Member]], key: _Key, member: _Member) -> None:
    of[key].discard(member)
    if not of[key]:
        del of[key]


def _label_of(selector: LabelSelector) -> _Label | None:
    for requirement in selector.requirements:
        if requirement.operator == "in" and len(requirement.values) == 1:
            return requirement.key, next(iter(requirement.values))
    return None
