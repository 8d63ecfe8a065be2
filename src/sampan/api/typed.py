"""An object and its type together, and the set of its fields.

The type says what is owned as a whole (atomic) and what part by part. What changed between two objects is in `comparison`,
merging and taking away in `typed_merge`. Upstream: `sigs.k8s.io/structured-merge-diff/typed`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from sampan.api.field_set import LEAF, Fields, key_element, value_element, with_member
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


def twins_of(found: list[str], different: Mapping[str, Any]) -> set[str]:
    """The elements that a list has more than once; `different` has each once."""
    if len(found) == len(different):
        return set()
    seen: set[str] = set()
    return {e for e in found if e in seen or seen.add(e)}  # type: ignore[func-returns-value]


def always_there(node: Node | None, name: str) -> bool:
    """Whether a field is a place that every object of the type has."""
    return name in ALWAYS or (node is not None and (node.kind, name) in _ALWAYS_OF)


def granular(node: Node | None) -> bool:
    """Whether a place may be owned part by part."""
    return (
        node is not None
        and node.map_type != "atomic"
        and (node.type == "map" or bool(node.fields) or node.type == "array")
    )


def fields_of(node: Node | None, value: Any) -> Fields | None:
    """The set of what a value names, None for nothing: its leaves, the entries of maps and the items of lists; the
    structs and lists around them are not in it. (What an applier owns; see `whole` for what a writer does.)"""
    if value.__class__ is dict and granular(node):
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
    if value is None and granular(node):
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
    """The set of what `comparison.compare` would find written in a new object, quicker. Trees of equal specs are shared: a
    controller makes its objects of one template."""
    out: Fields = {}
    for name, value in new.items():
        if value is None or (name in skip and skip[name] is None):
            continue
        inner = child(node, name)
        if not always_there(node, name):
            out["f:" + name] = whole(inner, value)
            continue
        if not value:
            continue
        rest = skip.get(name) or LEAF
        if value.__class__ is dict and granular(inner):
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
