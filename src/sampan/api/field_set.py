"""Sets of fields, in the shape in which `managedFields` carries them (`FieldsV1`). How objects turn into them is in `typed`.

A set is a tree of dicts: `f:NAME` is a field, `k:{"name":"web"}` an item of a list with keys, `v:"x"` a value of a list
that is a set. A place without children is a member; one with children is a member if it also has the key `.`. Trees
are treated as immutable and share parts freely.

Upstream: `sigs.k8s.io/structured-merge-diff` (`fieldpath.Set`).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

Fields = dict[str, Any]
LEAF: Fields = {}
"""A member without children. Shared: never change it."""


def member(tree: Fields) -> bool:
    """Whether the place of a tree is in the set itself."""
    return not tree or "." in tree


def with_member(tree: Fields | None) -> Fields:
    """The tree of a place (None: nothing in it is in the set) with the place itself."""
    if not tree or "." in tree:
        return tree or LEAF
    return {".": LEAF, **tree}


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


def _difference(a: Fields, b: Fields) -> Fields | None:
    """`a` and `b` are trees of one place. None if no member is left."""
    if not a:
        return None if member(b) else a
    out: Fields = {}
    changed = False
    for key, sub in a.items():
        if key == ".":
            if member(b):
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
    if not top and member(a) and member(b):
        out["."] = LEAF
    for key, sub in a.items():
        if key != "." and key in b:
            both = _intersection(sub, b[key])
            if both is not None:
                out[key] = both
    return _folded(out)


def without(a: Fields, skip: Mapping[str, Any]) -> Fields:
    """A set without the fields named by `skip` and all that is below them (see `comparison.compare`)."""
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
    """The members, written and ordered as upstream does: `.spec.containers[name="web"].image`; of one place all that
    are members themselves, then what is below them."""
    elements = sorted((key for key in tree if key != "."), key=_order)
    for key in elements:
        if member(tree[key]):
            yield prefix + element_text(key)
    for key in elements:
        if tree[key]:
            yield from paths(tree[key], prefix + element_text(key))


def _order(element: str) -> tuple[str, Any]:
    """Fields, then items by key, values and indices. (The letters happen to be in this order but for `i`.)"""
    kind, text = element[0], element[2:]
    if kind == "f":
        return kind, text
    if kind == "i":
        return "w", int(text)
    value = json.loads(text)
    if kind == "k":
        return kind, [(name, _scalar_order(part)) for name, part in value.items()]
    return kind, _scalar_order(value)


def _scalar_order(value: Any) -> tuple[int, Any]:
    if isinstance(value, str):
        return 1, value
    return (0, value) if isinstance(value, int | float) else (2, str(value))


def element_text(element: str) -> str:
    """A path element in a message: `.spec`, `[name="web"]`, `[="x"]`, `[0]`."""
    kind, text = element[:2], element[2:]
    if kind == "f:":
        return f".{text}"
    if kind == "v:":
        return f"[={text}]"
    if kind == "i:":
        return f"[{text}]"
    pairs = json.loads(text)
    return "[" + ",".join(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in pairs.items()) + "]"


# --- Elements, and reading what a client sent ---------------------------------------------------------------------


@functools.lru_cache(4096)
def key_element(keys: tuple[str, ...], values: tuple[Any, ...], _types: tuple[type, ...]) -> str:
    """The element of an item whose keys have these values (None: it has no such key). The types tell 1 from true."""
    pairs = dict(sorted((k, v) for k, v in zip(keys, values, strict=True) if v is not None))
    return "k:" + json.dumps(pairs, separators=(",", ":"), ensure_ascii=False)


@functools.lru_cache(4096)
def value_element(value: str) -> str:
    """The element of a text in a list that is a set."""
    return "v:" + json.dumps(value, ensure_ascii=False)


def read(tree: Any) -> Fields:
    """A set that a client sent, with its elements written as we write them. Raises ValueError if it is none."""
    if not isinstance(tree, dict):
        raise ValueError("a set of fields is an object")
    if not tree:
        return LEAF
    out: Fields = {}
    for element, below in tree.items():
        kind, text = element[:2], element[2:]
        if element == ".":
            out["."] = LEAF
        elif kind == "f:" or (kind == "i:" and text.isascii() and text.isdigit()):
            out[element] = read(below)
        elif kind == "k:" and isinstance(pairs := json.loads(text), dict) and pairs:
            keys = tuple(pairs)
            values = tuple(pairs.values())
            if not all(isinstance(v, str | int | float) for v in values):
                raise ValueError(f"{element}: the value of a key is a text, a number or a boolean")
            out[key_element(keys, values, tuple(map(type, values)))] = read(below)
        elif kind == "v:" and not isinstance(value := json.loads(text), dict | list):
            out[value_element(value) if isinstance(value, str) else "v:" + json.dumps(value)] = read(below)
        else:
            raise ValueError(f"{element!r} is no element of a path")
    return out
