"""An object and its type together: the set of its fields, what changed between two, merging and taking away.

The type says what is owned as a whole (atomic) and what part by part. Upstream: `sigs.k8s.io/structured-merge-diff/typed`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from sampan.api.field_set import LEAF, Fields, key_element, member, union, value_element, with_member
from sampan.api.schema import Node

ALWAYS = frozenset(
    {
        "metadata", "spec", "status", "template", "strategy", "updateStrategy", "containers", "loadBalancer", "roleRef",
        "involvedObject", "regarding", "source", "nodeInfo", "daemonEndpoints", "kubeletEndpoint", "jobTemplate",
        "scaleTargetRef", "podSelector", "priorityLevelConfiguration",
    }
)  # fmt: skip
"""Places that every object of a kind has, even an empty one (plain structs in upstream's Go types). They are never
members themselves: nobody adds or removes them."""

_ALWAYS_OF = frozenset({("PersistentVolumeClaimSpec", "resources")})
"""Such places whose name alone does not tell, by type."""

_KEY_DEFAULTS: dict[str, Any] = {"protocol": "TCP"}
"""List keys that may be left out because their schema gives a default."""
_KEY_DEFAULTS_OF: dict[str, dict[str, Any]] = {"LocalObjectReference": {"name": ""}}

_NO_KEYS = "k:{}"
_SCALARS = (str, int, float)
_STRING = (str,)

ListKind = Literal["atomic", "set", "map"]


def list_kind(node: Node) -> tuple[ListKind, tuple[str, ...]]:
    """How a list is owned: as one value, by value, or by the keys given. Where the type says nothing, its strategic
    merge does; without that it is one value."""
    if node.list_type == "map":
        return "map", node.list_map_keys
    if node.list_type == "set":
        return "set", ()
    if not node.list_type and "merge" in node.patch_strategy:
        return ("map", (node.patch_merge_key,)) if node.patch_merge_key else ("set", ())
    return "atomic", ()


def key_default(node: Node | None, key: str) -> Any:
    """The value of a list key that an item of this type leaves out, or None."""
    if node is not None and (own := _KEY_DEFAULTS_OF.get(node.kind)) is not None:
        return own.get(key)
    return _KEY_DEFAULTS.get(key)


def element_of(node: Node, kind: ListKind, keys: tuple[str, ...], item: Any) -> str:
    """The path element of an item of a list (`node`: the list's type)."""
    if kind == "set":
        return value_element(item) if isinstance(item, str) else "v:" + json.dumps(item)
    values = tuple([v if (v := item.get(k)) is not None else key_default(node.items, k) for k in keys])
    return key_element(keys, values, tuple(map(type, values)))


def elements(node: Node, items: list[Any]) -> list[str] | None:
    """The path elements of a list's items in order, or None if the list is owned as one value (or its items have no
    keys: what is stored may be older than our checks)."""
    kind, keys = list_kind(node)
    if kind == "atomic":
        return None
    out: list[str] = []
    if kind == "set":
        for item in items:
            if not isinstance(item, _SCALARS):
                return None
            out.append(element_of(node, kind, keys, item))
        return out
    only = keys[0] if len(keys) == 1 else ""
    for item in items:
        if item.__class__ is not dict:
            return None
        if only and (value := item.get(only)).__class__ is str:
            out.append(key_element(keys, (value,), _STRING))
        elif all(isinstance(item.get(k, ""), _SCALARS) for k in keys):
            element = element_of(node, kind, keys, item)
            if element == _NO_KEYS:
                return None
            out.append(element)
        else:
            return None
    return out


def child(node: Node | None, name: str) -> Node | None:
    """The type of a field or map entry, None if it is not known."""
    if node is None:
        return None
    return node.items if node.type == "map" else node.fields.get(name)


def _granular(node: Node | None) -> bool:
    return (
        node is not None
        and node.map_type != "atomic"
        and (node.type == "map" or bool(node.fields) or node.type == "array")
    )


# --- The fields of a value ----------------------------------------------------------------------------------------


def fields_of(node: Node | None, value: Any) -> Fields | None:
    """The set of what a value names, None for nothing: its leaves, the entries of maps and the items of lists; the
    structs and lists around them are not in it. (What an applier owns; see `whole` for what a writer does.)"""
    if value.__class__ is dict and _granular(node):
        named = node.type == "map"  # type: ignore[union-attr]
        out: Fields = {}
        for name, part in value.items():
            below = fields_of(child(node, name), part)
            if named or part is None or part == {}:
                below = with_member(below)
            if below is not None:
                out["f:" + name] = below
        return out or None
    if value.__class__ is list and node is not None and (found := elements(node, value)) is not None:
        item_type = node.items
        return {
            e: with_member(fields_of(item_type, item)) for e, item in zip(found, value, strict=True)
        } or None
    if value is None and _granular(node):
        return None
    return LEAF


def with_structs(node: Node | None, tree: Fields) -> Fields:
    """The set with every struct field on the way to a member as a member too."""
    if not tree or node is None:
        return tree
    struct = node.type == "object"
    out: Fields = {}
    for element, below in tree.items():
        if not below:
            out[element] = below
            continue
        inner = child(node, element[2:]) if element[0] == "f" else node.items
        below = with_structs(inner, below)
        out[element] = with_member(below) if struct and inner is not None else below
    return out


def whole(node: Node | None, value: Any) -> Fields:
    """The set of a value that was not there before: every part of it, and the place itself."""
    if value.__class__ is dict:
        if not value or node is None or node.map_type == "atomic":
            return LEAF
        out: Fields = {".": LEAF}
        if node.type == "map":
            if node.items is None or not node.items.fields:
                for k, v in value.items():
                    if v is not None:
                        out["f:" + k] = LEAF
                return out
            for k, v in value.items():
                out["f:" + k] = whole(node.items, v)
            return out
        if node.type != "object" or not node.fields:
            return LEAF
        fields = node.fields
        for k, v in value.items():
            if v.__class__ is dict or v.__class__ is list:
                out["f:" + k] = whole(fields.get(k), v)
            elif v is not None:
                out["f:" + k] = LEAF
        return out
    if value.__class__ is list and value and node is not None:
        found = elements(node, value)
        if found is None:
            return LEAF
        out = {".": LEAF}
        for element, item in zip(found, value, strict=True):
            # Twins are owned as one.
            out[element] = LEAF if element in out else whole(node.items, item)
        return out
    return LEAF


def created(node: Node | None, new: Mapping[str, Any], skip: Mapping[str, Any]) -> Fields:
    """The set of what `compare` would find written in a new object, quicker. Trees of equal specs are shared: a
    controller makes its objects of one template."""
    out: Fields = {}
    for name, value in new.items():
        if value is None or (name in skip and skip[name] is None):
            continue
        inner = child(node, name)
        if not _always(node, name):
            out["f:" + name] = whole(inner, value)
            continue
        if not value:
            continue
        rest = skip.get(name) or LEAF
        if value.__class__ is dict and _granular(inner):
            tree = _spec(inner, value) if name == "spec" and not rest else created(inner, value, rest)
            if tree:
                out["f:" + name] = tree
        elif value.__class__ is list and inner is not None and elements(inner, value) is not None:
            out["f:" + name] = {e: tree for e, tree in whole(inner, value).items() if e != "."}
        else:
            out["f:" + name] = LEAF
    return out


_MOST_SPECS = 256
_LARGEST_SPEC = 4096
"""Bytes of JSON of a spec whose tree is kept."""
_specs: dict[tuple[int, bytes], Fields] = {}
_encode = msgspec.json.Encoder().encode


def _spec(node: Node | None, value: dict[str, Any]) -> Fields:
    text = _encode(value)
    if len(text) > _LARGEST_SPEC:
        return created(node, value, LEAF)
    key = (id(node), text)
    found = _specs.get(key)
    if found is None:
        if len(_specs) >= _MOST_SPECS:
            del _specs[next(iter(_specs))]
        found = _specs[key] = created(node, value, LEAF)
    return found


# --- Comparing ----------------------------------------------------------------------------------------------------


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


def _always(node: Node | None, name: str) -> bool:
    return name in ALWAYS or (node is not None and (node.kind, name) in _ALWAYS_OF)


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
            if not (always and _always(node, name)):
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
            always and _always(node, name),
        )
    for name, before in old.items():
        if before is not None and new.get(name) is None and not (name in skip and skip[name] is None):
            tree = whole(child(node, name), before)
            if always and _always(node, name):
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
    if old.__class__ is dict and new.__class__ is dict and _granular(node):
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
    twins = _twins(before, was) | _twins(after, now)
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


def _twins(found: list[str], different: Mapping[str, Any]) -> set[str]:
    if len(found) == len(different):
        return set()
    seen: set[str] = set()
    return {e for e in found if e in seen or seen.add(e)}  # type: ignore[func-returns-value]


# --- Merging and taking away --------------------------------------------------------------------------------------


def merge(node: Node | None, live: Any, config: Any) -> Any:
    """The live value with what a configuration says about it. Shares parts with both; None for no value."""
    if config is None:
        # Nothing is said about the parts of a place that has parts.
        return live if live and _granular(node) and not _atomic(node) else None
    if config.__class__ is dict and _granular(node):
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
    twins = _twins(present, theirs)
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
        if not _granular(node):
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
