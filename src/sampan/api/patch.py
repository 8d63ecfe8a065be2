"""The three patches that change a stored document: JSON patch, merge patch and strategic merge patch.

All are pure: the document given is not changed, and what is returned may share the parts that stayed. Server-side apply
is in `apply`. Upstream: RFC 6902, RFC 7386 and `k8s.io/apimachinery/pkg/util/strategicpatch`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sampan.api.errors import Object, StatusError, bad_request
from sampan.api.objects import deep_copy
from sampan.api.schema import Node

MAX_JSON_PATCH_OPERATIONS = 10_000


def _unprocessable(why: str) -> StatusError:
    return StatusError(
        422, "Invalid", f"the server rejected our request due to an error in our request: {why}", {}
    )


# --- RFC 6902 -----------------------------------------------------------------------------------------------------


def json_patch(doc: Object, ops: Any) -> Object:
    """Apply the operations of a JSON patch.

    Raises StatusError: 400 for what is no list of operations, 413 for more than 10,000 of them, 422 for one that does
    not fit the document (a failed `test`, a path that is missing).
    """
    if not isinstance(ops, list) or not all(isinstance(op, dict) for op in ops):
        raise bad_request("error decoding patch: a JSON patch is an array of operations")
    if len(ops) > MAX_JSON_PATCH_OPERATIONS:
        raise StatusError(
            413,
            "RequestEntityTooLarge",
            f"The allowed maximum operations in a JSON patch is {MAX_JSON_PATCH_OPERATIONS}, got {len(ops)}",
        )
    holder = {"": deep_copy(doc)}
    for op in ops:
        _operate(holder, op)
    if not isinstance(holder[""], dict):
        raise _unprocessable("the patched document is not an object")
    return holder[""]


def _operate(holder: dict[str, Any], op: Object) -> None:
    kind = op.get("op")
    path = op.get("path")
    if not isinstance(path, str):
        raise _unprocessable(f"{kind} operation does not apply: the path is missing")
    if kind in ("move", "copy"):
        source = op.get("from")
        if not isinstance(source, str):
            raise _unprocessable(f"{kind} operation does not apply: from is missing")
        if kind == "move":
            if path.startswith(source + "/"):
                raise _unprocessable(f"move operation does not apply: {path} is inside {source}")
            _add(holder, path, _remove(holder, source, kind), kind)
        else:
            _add(holder, path, deep_copy(_find(holder, source, kind)), kind)
    elif kind == "remove":
        _remove(holder, path, kind)
    elif kind not in ("add", "replace", "test"):
        raise _unprocessable(f"Unexpected kind: {kind}")
    elif "value" not in op and kind != "test":
        raise _unprocessable(f"{kind} operation does not apply: the value is missing")
    elif kind == "add":
        _add(holder, path, deep_copy(op["value"]), kind)
    elif kind == "replace":
        _find(holder, path, kind)
        parent, key = _parent(holder, path, kind)
        parent[key if isinstance(parent, dict) else _index(parent, key, path, kind)] = deep_copy(op["value"])
    elif not _equal(_find_or_none(holder, path), op.get("value")):
        raise _unprocessable(f"testing value {path} failed: test failed")


def _equal(a: Any, b: Any) -> bool:
    """JSON equality: `true` is not 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(v, b[k]) for k, v in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _parent(holder: dict[str, Any], path: str, kind: str) -> tuple[Any, str]:
    """The container that holds the place and its key there. The whole document is key '' of `holder`."""
    if path and not path.startswith("/"):
        raise _unprocessable(f"{kind} operation does not apply: doc is missing path: {path}: missing value")
    keys = [k.replace("~1", "/").replace("~0", "~") for k in path.split("/")]
    place: Any = holder
    for key in keys[:-1]:
        if isinstance(place, dict) and isinstance(place.get(key), dict | list):
            place = place[key]
        elif isinstance(place, list):
            place = place[_index(place, key, path, kind)]
        else:
            place = None
        if not isinstance(place, dict | list):
            raise _unprocessable(
                f"{kind} operation does not apply: doc is missing path: {path}: missing value"
            )
    return place, keys[-1]


def _index(items: list[Any], key: str, path: str, kind: str, *, end: int = 0) -> int:
    """A list index, at most `end` past the last one."""
    if not key.isascii() or not key.isdigit() or (key[0] == "0" and key != "0"):
        raise _unprocessable(
            f"{kind} operation does not apply: doc is missing path: {path}: invalid array index"
        )
    index = int(key)
    if index >= len(items) + end:
        raise _unprocessable(
            f"{kind} operation does not apply: doc is missing path: {path}: Unable to access invalid index: {index}"
        )
    return index


def _find(holder: dict[str, Any], path: str, kind: str) -> Any:
    parent, key = _parent(holder, path, kind)
    if isinstance(parent, list):
        return parent[_index(parent, key, path, kind)]
    if key not in parent:
        raise _unprocessable(f"{kind} operation does not apply: doc is missing key: {path}: missing value")
    return parent[key]


def _find_or_none(holder: dict[str, Any], path: str) -> Any:
    """For `test`: a key that is missing counts as null, a container that is missing does not."""
    parent, key = _parent(holder, path, "test")
    return parent.get(key) if isinstance(parent, dict) else parent[_index(parent, key, path, "test")]


def _add(holder: dict[str, Any], path: str, value: Any, kind: str) -> None:
    parent, key = _parent(holder, path, kind)
    if isinstance(parent, dict):
        parent[key] = value
    elif key == "-":
        parent.append(value)
    else:
        parent.insert(_index(parent, key, path, kind, end=1), value)


def _remove(holder: dict[str, Any], path: str, kind: str) -> Any:
    found = _find(holder, path, kind)
    parent, key = _parent(holder, path, kind)
    if isinstance(parent, dict):
        del parent[key]
    else:
        del parent[int(key)]
    return found


# --- RFC 7386 -----------------------------------------------------------------------------------------------------


def merge_patch(doc: Object, patch: Any) -> Object:
    """Apply a JSON merge patch. Raises StatusError 400 if the patch is not an object."""
    if not isinstance(patch, dict):
        raise bad_request("error decoding patch: a merge patch is an object")
    return _merge(doc, patch)


def _merge(doc: Any, patch: Object) -> Object:
    out = dict(doc) if isinstance(doc, dict) else {}
    for key, value in patch.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict):
            out[key] = _merge(out.get(key), value)
        else:
            out[key] = value
    return out


# --- Strategic merge ----------------------------------------------------------------------------------------------

_DIRECTIVE = "$patch"
_RETAIN = "$retainKeys"
_DELETE_PREFIX = "$deleteFromPrimitiveList/"
_ORDER_PREFIX = "$setElementOrder/"


def strategic_merge(node: Node, doc: Object, patch: Any) -> Object:
    """Apply a strategic merge patch: like a merge patch, but lists merge as their type says.

    `node` is the type of the document. Raises StatusError 400 for a malformed patch.
    """
    if not isinstance(patch, dict):
        raise bad_request("invalid JSON document")
    return _merge_map(node, doc, patch)


def _child(node: Node | None, key: str) -> Node | None:
    if node is None:
        return None
    return node.items if node.type == "map" else node.fields.get(key)


def _merge_map(node: Node | None, original: Any, patch: Object) -> Object:
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        return {k: _plain(v) for k, v in patch.items() if v is not None and not k.startswith("$")}
    if directive == "delete":
        return {}
    if directive is not None and directive != "merge":
        raise bad_request(f"unknown patch type found: {directive}")
    out = dict(original) if isinstance(original, dict) else {}
    if (kept := patch.get(_RETAIN)) is not None:
        _retain(out, kept, patch)
    for key in _list_fields(patch):
        field = _child(node, key)
        merged = _merge_list(
            field,
            out.get(key) or [],
            patch.get(key),
            patch.get(_DELETE_PREFIX + key),
            patch.get(_ORDER_PREFIX + key),
            key,
        )
        if merged is None:
            out.pop(key, None)
        elif merged or key in out or patch.get(key) is not None:
            out[key] = merged
    for key, value in patch.items():
        if key in (_DIRECTIVE, _RETAIN) or key.startswith((_DELETE_PREFIX, _ORDER_PREFIX)):
            continue
        if isinstance(value, list) and key in out and isinstance(out[key], list):
            continue  # merged above
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict):
            field = _child(node, key)
            if field is not None and "replace" in field.patch_strategy:
                out[key] = _plain(value)
            elif value.get(_DIRECTIVE) == "delete":
                out[key] = {}
            else:
                out[key] = _merge_map(field, out.get(key), value)
        else:
            out[key] = _plain(value)
    return out


def _list_fields(patch: Object) -> list[str]:
    """The keys whose value is a list, or that a list directive names."""
    found: dict[str, None] = {}
    for key, value in patch.items():
        if key.startswith((_DELETE_PREFIX, _ORDER_PREFIX)):
            if not isinstance(value, list):
                raise bad_request(f"{key} must be a list")
            found[key.partition("/")[2]] = None
        elif isinstance(value, list) and key != _RETAIN:
            found[key] = None
    return list(found)


def _retain(out: Object, kept: Any, patch: Object) -> None:
    if not isinstance(kept, list):
        raise bad_request("invalid patch format of retainKeys: a list of keys is wanted")
    for key, value in patch.items():
        if value is not None and key not in kept and not key.startswith("$"):
            raise bad_request(f"invalid patch format of retainKeys: {key} is in the patch but not kept")
    for key in [k for k in out if k not in kept]:
        del out[key]


def _plain(value: Any) -> Any:
    """A value of the patch that meets nothing in the document: without nulls and directives."""
    if isinstance(value, dict):
        return {
            k: _plain(v)
            for k, v in value.items()
            if v is not None
            and k not in (_DIRECTIVE, _RETAIN)
            and not k.startswith((_DELETE_PREFIX, _ORDER_PREFIX))
        }
    if isinstance(value, list):
        return [
            _plain(v)
            for v in value
            if not (isinstance(v, dict) and (v.get(_DIRECTIVE) == "delete" or v.keys() == {_DIRECTIVE}))
        ]
    return value


def _merge_list(
    node: Node | None, original: list[Any], patch: Any, deleted: Any, order: Any, name: str
) -> list[Any] | None:
    """The merged list, or None if the patch deletes it."""
    if patch is not None and not isinstance(patch, list):
        raise bad_request(f"invalid patch: {name} must be a list")
    if node is None or "merge" not in node.patch_strategy:
        return original if patch is None else _plain(patch)
    if not isinstance(original, list):
        original = []
    changes: list[Any] = patch or []
    if any(isinstance(item, dict) for item in [*original, *changes]):
        key = node.patch_merge_key
        if not key:
            raise bad_request(f"cannot merge lists without merge key for {name}")
        merged, server = _merge_objects(node, original, changes, key)
        return interleave(merged, server, changes if order is None else order, lambda item: item.get(key))
    gone = {_scalar(v) for v in deleted or ()}
    kept = [v for v in original if _scalar(v) not in gone]
    merged = list({_scalar(v): v for v in [*kept, *changes]}.values())
    return interleave(merged, original, changes if order is None else order, lambda item: item)


def _scalar(value: Any) -> tuple[str, Any]:
    """Tells `1` from `true`, which are equal and hash alike in Python."""
    return (type(value).__name__, value)


def _merge_objects(
    node: Node, original: list[Any], changes: list[Any], key: str
) -> tuple[list[Any], list[Any]]:
    """The merged items, not ordered yet, and the items of the document that order them."""
    replace = any(isinstance(c, dict) and c.get(_DIRECTIVE) == "replace" for c in changes)
    merged: list[Any] = [] if replace else list(original)
    server = merged[:]
    for change in changes:
        if not isinstance(change, dict):
            raise bad_request("invalid patch: the items of a list must all be objects")
        directive = change.get(_DIRECTIVE)
        if directive is not None and directive not in ("replace", "delete", "merge"):
            raise bad_request(f"unknown patch type found: {directive}")
        if directive == "replace" and change.keys() == {_DIRECTIVE}:
            continue
        if key not in change:
            raise bad_request(f"map: {change} does not contain declared merge key: {key}")
        wanted = change[key]
        if directive == "delete":
            merged = [item for item in merged if item.get(key) != wanted]
            continue
        body = {k: v for k, v in change.items() if k != _DIRECTIVE}
        at = next((i for i, item in enumerate(merged) if item.get(key) == wanted), None)
        if at is None:
            merged.append(_merge_map(node.items, {}, body))
        else:
            merged[at] = _merge_map(node.items, merged[at], body)
    return merged, server


def interleave(items: list[Any], server: list[Any], order: list[Any], key: Callable[[Any], Any]) -> list[Any]:
    """Put the `items` of a merged list in order: those named by the patch (`order`) in its order, and the others (the
    server's own) between them, each before the first named one that followed it on the server. `key` tells which items
    are the same."""

    def identity(item: Any) -> Any:
        return _scalar(key(item))

    wanted: dict[Any, int] = {}
    for item in order:
        wanted.setdefault(identity(item), len(wanted))
    place: dict[Any, int] = {}
    for item in server:
        place.setdefault(identity(item), len(place))
    named = sorted((i for i in items if identity(i) in wanted), key=lambda i: wanted[identity(i)])
    others = [i for i in items if identity(i) not in wanted]
    out: list[Any] = []
    at = 0
    for item in named:
        mine = place.get(identity(item))
        while at < len(others) and mine is not None and place.get(identity(others[at]), mine) < mine:
            out.append(others[at])
            at += 1
        out.append(item)
    return out + others[at:]
