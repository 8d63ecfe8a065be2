"""Sets of fields, in the shape in which `managedFields` carries them (`FieldsV1`), and how objects turn into them.

A set is a tree of dicts: `f:NAME` is a field, `k:{"name":"web"}` an item of a list with keys, `v:"x"` a value of a list
that is a set. A place without children is a member; one with children is a member if it also has the key `.`. Trees
are treated as immutable and share parts freely.

Upstream: `sigs.k8s.io/structured-merge-diff` (`fieldpath.Set`, `typed.Comparison`).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sampan.api.schema import Node

Fields = dict[str, Any]
LEAF: Fields = {}
"""A member without children. Shared: never change it."""

ALWAYS = frozenset(
    {
        "metadata", "spec", "status", "template", "strategy", "updateStrategy", "containers", "loadBalancer", "roleRef",
        "involvedObject", "regarding", "source", "nodeInfo", "daemonEndpoints", "kubeletEndpoint", "jobTemplate",
    }
)  # fmt: skip
"""Places that every object of a kind has, even an empty one (plain structs in upstream's Go types). They are never
members themselves: nobody adds or removes them."""

_KEY_DEFAULTS: dict[str, Any] = {"protocol": "TCP"}
"""List keys that may be left out because their schema gives a default."""

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


@functools.lru_cache(4096)
def _key_element(keys: tuple[str, ...], values: tuple[Any, ...], _types: tuple[type, ...]) -> str:
    pairs = dict(sorted((k, v) for k, v in zip(keys, values, strict=True) if v is not None))
    return "k:" + json.dumps(pairs, separators=(",", ":"), ensure_ascii=False)


@functools.lru_cache(4096)
def _value_element(value: str) -> str:
    return "v:" + json.dumps(value, ensure_ascii=False)


def item_element(kind: ListKind, keys: tuple[str, ...], item: Any) -> str:
    """The path element of a list item."""
    if kind == "set":
        return _value_element(item) if isinstance(item, str) else "v:" + json.dumps(item)
    values = tuple(item.get(k, _KEY_DEFAULTS.get(k)) for k in keys)
    return _key_element(keys, values, tuple(map(type, values)))


def items_by_element(node: Node, items: list[Any]) -> dict[str, Any] | None:
    """The items of a list under their path elements, or None if the list is owned as one value."""
    kind, keys = list_kind(node)
    if kind == "atomic":
        return None
    if kind == "map" and not all(isinstance(i, dict) for i in items):
        return None
    found: dict[str, Any] = {}
    for item in items:
        found.setdefault(item_element(kind, keys, item), item)
    return found


def child(node: Node | None, name: str) -> Node | None:
    """The type of a field or map entry, None if it is not known."""
    if node is None:
        return None
    return node.items if node.type == "map" else node.fields.get(name)


def children(node: Node | None, value: Any) -> dict[str, tuple[Node | None, Any]] | None:
    """The parts of a value that are owned each on its own, by path element, or None for a value owned as a whole."""
    if node is None or node.map_type == "atomic":
        return None
    if value.__class__ is dict and node.type in ("object", "map"):
        if node.type == "map":
            return {"f:" + k: (node.items, v) for k, v in value.items() if v is not None}
        fields = node.fields
        return {"f:" + k: (fields.get(k), v) for k, v in value.items() if v is not None}
    if value.__class__ is list and node.type == "array":
        items = items_by_element(node, value)
        if items is not None:
            item_type = node.items if list_kind(node)[0] == "map" else None
            return {k: (item_type, v) for k, v in items.items()}
    return None


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
        items = items_by_element(node, value)
        if items is None:
            return LEAF
        out = {".": LEAF}
        for element, item in items.items():
            out[element] = whole(node.items, item)
        return out
    return LEAF


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
            if not (always and name in ALWAYS):
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
            always and name in ALWAYS,
        )
    for name, before in old.items():
        if before is not None and new.get(name) is None and not (name in skip and skip[name] is None):
            tree = whole(child(node, name), before)
            if always and name in ALWAYS:
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
    granular = node is not None and node.map_type != "atomic"
    if granular and old.__class__ is dict and new.__class__ is dict and (node.fields or node.type == "map"):  # type: ignore[union-attr]
        _compare_fields(node, old, new, a, m, r, skip, always)
    elif (
        granular
        and old.__class__ is list
        and new.__class__ is list
        and (before := items_by_element(node, old)) is not None  # type: ignore[arg-type]
        and (after := items_by_element(node, new)) is not None  # type: ignore[arg-type]
    ):
        item_type = node.items  # type: ignore[union-attr]
        for key, value in after.items():
            if key not in before:
                a[key] = whole(item_type, value)
            elif before[key] != value:
                _compare_values(item_type, before[key], value, key, a, m, r, LEAF, False)
        for key, value in before.items():
            if key not in after:
                r[key] = whole(item_type, value)
    else:
        modified[element] = LEAF
        return
    if a:
        added[element] = a
    if m:
        modified[element] = m
    if r:
        removed[element] = r


# --- Set algebra --------------------------------------------------------------------------------------------------


def union(a: Fields, b: Fields) -> Fields:
    """Members of either. An empty set at the top is no member: `{}`."""
    if a is b or not b:
        return a
    if not a:
        return b
    return _union(a, b)


def _union(a: Fields, b: Fields) -> Fields:
    if not a and not b:
        return LEAF
    out = dict(a) if a else {".": LEAF}
    for key, sub in (b or {".": LEAF}).items():
        if key in out and key != ".":
            mine = out[key]
            if mine is not sub:
                out[key] = _union(mine, sub)
        else:
            out[key] = sub
    return out


def difference(a: Fields, b: Fields) -> Fields:
    """Members of `a` that are not members of `b`. Returns `a` itself if nothing goes."""
    if not a or not b:
        return a
    return _difference(a, b) or {}


def _member(tree: Fields) -> bool:
    return not tree or "." in tree


def _difference(a: Fields, b: Fields) -> Fields | None:
    """`a` and `b` are trees of one place. None if no member is left."""
    if not a:
        return None if _member(b) else a
    out: Fields = {}
    changed = False
    for key, sub in a.items():
        if key == ".":
            if _member(b):
                changed = True
            else:
                out[key] = sub
        elif key in b:
            rest = _difference(sub, b[key])
            changed = changed or rest is not sub
            if rest is not None:
                out[key] = rest
        else:
            out[key] = sub
    return _folded(out) if changed else a


def _folded(tree: Fields) -> Fields | None:
    if not tree:
        return None
    return LEAF if tree.keys() == {"."} else tree


def intersection(a: Fields, b: Fields) -> Fields:
    """Members of both."""
    if not a or not b:
        return {}
    return _intersection(a, b, True) or {}


def _intersection(a: Fields, b: Fields, top: bool = False) -> Fields | None:
    out: Fields = {}
    if not top and _member(a) and _member(b):
        out["."] = LEAF
    for key, sub in a.items():
        if key != "." and key in b:
            both = _intersection(sub, b[key])
            if both is not None:
                out[key] = both
    return _folded(out)


def without(a: Fields, skip: Mapping[str, Any]) -> Fields:
    """A set without the fields named by `skip` and all that is below them (see `compare`)."""
    out: Fields = {}
    for key, sub in a.items():
        if key.startswith("f:") and key[2:] in skip:
            rest = skip[key[2:]]
            if rest is not None and (left := without(sub, rest)):
                out[key] = left
        else:
            out[key] = sub
    return out if out.keys() != {"."} else {}


def paths(tree: Fields, prefix: str = "") -> Iterator[str]:
    """The members, written as upstream writes them: `.spec.containers[name="web"].image`."""
    for key, sub in tree.items():
        if key == ".":
            yield prefix
        else:
            path = prefix + element_text(key)
            if sub:
                yield from paths(sub, path)
            else:
                yield path


def element_text(element: str) -> str:
    kind, text = element[:2], element[2:]
    if kind == "f:":
        return f".{text}"
    if kind == "v:":
        return f"[={text}]"
    pairs = json.loads(text)
    return "[" + ",".join(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in pairs.items()) + "]"
