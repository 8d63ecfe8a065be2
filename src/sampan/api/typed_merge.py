"""Merging a configuration into an object by type, and taking fields away. Upstream: `structured-merge-diff` (`typed`)."""

from __future__ import annotations

from typing import Any

from sampan.api.field_set import Fields, member
from sampan.api.schema import Node
from sampan.api.typed import child, elements, granular, list_kind, twins_of


def merge(node: Node | None, live: Any, config: Any) -> Any:
    """The live value with what a configuration says about it. Shares parts with both; None for no value."""
    if config is None:
        # Nothing is said about the parts of a place that has parts.
        return live if live and granular(node) and not _atomic(node) else None
    if config.__class__ is dict and granular(node):
        if live.__class__ is not dict:
            live = {}
        out = dict(live)
        for name, part in config.items():
            merged = merge(child(node, name), live.get(name), part)
            if merged is None:
                out.pop(name, None)
            else:
                out[name] = merged
        return out
    if config.__class__ is list and node is not None and (wanted := elements(node, config)) is not None:
        items = live if live.__class__ is list else []
        present = elements(node, items)
        if present is None:
            items, present = [], []
        if not wanted and not items:
            # Of a list with parts an empty one says nothing, and is not kept.
            return None
        return _merge_items(node, present, items, wanted, config)
    return _bare(config)


def _bare(value: Any) -> Any:
    """A value that is owned as a whole, without the nulls in it."""
    if value.__class__ is dict:
        return {k: _bare(v) for k, v in value.items() if v is not None}
    if value.__class__ is list:
        return [_bare(v) for v in value]
    return value


def _atomic(node: Node | None) -> bool:
    return (
        node is None or node.map_type == "atomic" or (node.type == "array" and list_kind(node)[0] == "atomic")
    )


def _merge_items(
    node: Node, present: list[str], items: list[Any], wanted: list[str], config: list[Any]
) -> list[Any]:
    """Upstream's order: both lists side by side, what only the live object has stays where it stood, and what both
    have comes in the order of the configuration."""
    mine = dict(zip(wanted, config, strict=True))
    theirs = dict(zip(present, items, strict=True))
    twins = twins_of(present, theirs)
    shared = [e for e in wanted if e in theirs]
    out: list[Any] = []
    done: set[str] = set()
    at = next_ = next_shared = 0

    def take(element: str) -> None:
        done.add(element)
        before = None if element in twins else theirs.get(element)
        out.append(merge(node.items, before, mine[element]))

    while at < len(present) or next_ < len(wanted):
        if at < len(present) and next_ < len(wanted):
            element = present[at]
            if element == wanted[next_]:
                take(element)
                at, next_, next_shared = at + 1, next_ + 1, next_shared + 1
                continue
            if element in mine and next_shared < len(shared) and shared[next_shared] != element:
                at += 1
                continue
        if at < len(present):
            element = present[at]
            if element not in mine:
                out.append(items[at])
                at += 1
                continue
            if element in done:
                at += 1
        if next_ < len(wanted):
            element = wanted[next_]
            take(element)
            next_ += 1
            if next_shared < len(shared) and shared[next_shared] == element:
                next_shared += 1
    return out


def without_members(node: Node | None, value: Any, gone: Fields) -> Any:
    """The value without the members of a set and all that is below them; None where nothing is left."""
    if value.__class__ is dict and value:
        if not granular(node):
            return None
        out = {}
        for name, part in value.items():
            below = gone.get("f:" + name)
            if below is None:
                out[name] = part
            elif not member(below):
                left = without_members(child(node, name), part, below)
                if left is not None:
                    out[name] = left
        return out or None
    if value.__class__ is list and value:
        found = elements(node, value) if node is not None else None
        if found is None or node is None:
            return None
        keys = list_kind(node)[1]
        kept = []
        for element, item in zip(found, value, strict=True):
            below = gone.get(element)
            if below is None:
                kept.append(item)
            elif not member(below):
                left = without_members(node.items, item, below)
                # An item that stays for somebody's sake stays the same item.
                kept.append({**{k: item[k] for k in keys if k in item}, **(left or {})} if keys else left)
        return kept or None
    return value
