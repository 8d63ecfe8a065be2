"""What changed between two objects of a type, field by field. Upstream: `structured-merge-diff` (`typed.Comparison`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sampan.api.field_set import LEAF, Fields, union
from sampan.api.schema import Node
from sampan.api.typed import always_there, child, elements, granular, twins_of, whole


@dataclass(slots=True)
class Comparison:
    """What changed from one value to another."""

    added: Fields
    modified: Fields
    removed: Fields

    @property
    def same(self) -> bool:
        return not (self.added or self.modified or self.removed)

    def written(self) -> Fields:
        """What was added or modified."""
        return union(self.added, self.modified)


def compare(
    node: Node | None, old: Mapping[str, Any], new: Mapping[str, Any], *, skip: Mapping[str, Any]
) -> Comparison:
    """Compare two whole objects. `skip` maps names that are left out to None, or to such a map for their fields."""
    out = Comparison({}, {}, {})
    _compare_fields(node, old, new, out.added, out.modified, out.removed, skip, True)
    return out


def _compare_fields(
    node: Node | None,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    added: Fields,
    modified: Fields,
    removed: Fields,
    skip: Mapping[str, Any],
    always: bool,
) -> None:
    """Compare objects or maps name by name. `always` tells that the place is there in every object of the kind."""
    for name, value in new.items():
        before = old.get(name)
        if value is before or value is None or (name in skip and skip[name] is None):
            continue
        rest = skip.get(name) or LEAF
        if before is None:
            if not (always and always_there(node, name)):
                added["f:" + name] = whole(child(node, name), value)
                continue
            before = [] if value.__class__ is list else {}
            if not value:
                continue
        elif not rest and before == value and type(before) is type(value):
            continue
        _compare_values(
            child(node, name),
            before,
            value,
            "f:" + name,
            added,
            modified,
            removed,
            rest,
            always and always_there(node, name),
        )
    for name, before in old.items():
        if before is not None and new.get(name) is None and not (name in skip and skip[name] is None):
            tree = whole(child(node, name), before)
            if always and always_there(node, name):
                tree = {k: v for k, v in tree.items() if k != "."}
                if not tree:
                    continue
            removed["f:" + name] = tree


def _compare_values(
    node: Node | None,
    old: Any,
    new: Any,
    element: str,
    added: Fields,
    modified: Fields,
    removed: Fields,
    skip: Mapping[str, Any],
    always: bool,
) -> None:
    a: Fields = {}
    m: Fields = {}
    r: Fields = {}
    if old.__class__ is dict and new.__class__ is dict and granular(node):
        _compare_fields(node, old, new, a, m, r, skip, always)
    elif (
        old.__class__ is list
        and new.__class__ is list
        and node is not None
        and (before := elements(node, old)) is not None
        and (after := elements(node, new)) is not None
    ):
        _compare_items(node, before, old, after, new, a, m, r)
    else:
        modified[element] = LEAF
        return
    if a:
        added[element] = a
    if m:
        modified[element] = m
    if r:
        removed[element] = r


def _compare_items(
    node: Node,
    before: list[str],
    old: list[Any],
    after: list[str],
    new: list[Any],
    added: Fields,
    modified: Fields,
    removed: Fields,
) -> None:
    was = dict(zip(before, old, strict=True))
    now = dict(zip(after, new, strict=True))
    twins = twins_of(before, was) | twins_of(after, now)
    for element in twins:
        # Items that share a key are one value as long as they do.
        first = [item for e, item in zip(before, old, strict=True) if e == element]
        then = [item for e, item in zip(after, new, strict=True) if e == element]
        if len(first) > 1 and len(then) > 1:
            if first != then:
                modified[element] = LEAF
        elif len(first) > 1:
            removed[element] = LEAF
            if then:
                added[element] = whole(node.items, then[0])
        else:
            added[element] = LEAF
            if first:
                removed[element] = whole(node.items, first[0])
    for element, item in now.items():
        if element in twins:
            continue
        if element not in was:
            added[element] = whole(node.items, item)
        elif was[element] != item:
            _compare_values(node.items, was[element], item, element, added, modified, removed, LEAF, False)
    for element, item in was.items():
        if element not in now and element not in twins:
            removed[element] = whole(node.items, item)
