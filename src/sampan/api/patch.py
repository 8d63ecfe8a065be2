"""The patches that know nothing of types: JSON patch (RFC 6902) and merge patch (RFC 7386).

Both are pure: the document given is not changed, and what is returned may share the parts that stayed. The patches that
know the type are in `strategic_merge` and `apply`. What is refused is told in the words of upstream's library
(`evanphx/json-patch`).
"""

from __future__ import annotations

from typing import Any

import msgspec

from sampan.api.errors import Object, StatusError, bad_request
from sampan.api.objects import deep_copy

MAX_JSON_PATCH_OPERATIONS = 10_000
MAX_COPIED = 3 * 1024 * 1024
"""Bytes that all copy operations of a patch may add together."""
MAX_DEPTH = 200
"""Levels of the patched document: operations can build what no body could hold."""


def _unprocessable(why: str) -> StatusError:
    return StatusError(
        422, "Invalid", f"the server rejected our request due to an error in our request: {why}", {}
    )


# --- RFC 6902 -----------------------------------------------------------------------------------------------------


def json_patch(doc: Object, ops: Any) -> Object:
    """Apply the operations of a JSON patch. Array indices may count from the end (`-1`), as upstream has it.

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
    patching = _JsonPatching(doc)
    for op in ops:
        patching.operate(op)
    out = patching.holder.get("")
    if not isinstance(out, dict):
        raise _unprocessable("the patched document is not an object")
    _refuse_depth(out)
    return out


class _JsonPatching:
    """A document under its operations. `holder` has it whole under the key ''."""

    def __init__(self, doc: Object) -> None:
        self.holder: dict[str, Any] = {"": deep_copy(doc)}
        self._copied = 0

    def operate(self, op: Object) -> None:
        kind = op.get("op")
        if not isinstance(kind, str) or kind not in ("add", "remove", "replace", "move", "test", "copy"):
            raise _unprocessable(f"Unexpected kind: {kind if isinstance(kind, str) else 'unknown'}")
        path = _text(op, "path", kind)
        if kind in ("move", "copy"):
            self._carry(kind, _text(op, "from", kind), path)
            return
        if kind == "test":
            self._test(path, op.get("value"))
            return
        missing = f'"{path}"' if kind in ("add", "remove") else path
        parent, key = self._parent(path, f"{kind} operation does not apply: doc is missing path: {missing}")
        if kind == "add":
            _add(parent, key, deep_copy(op.get("value")), f"error in add for path: '{path}'")
        elif kind == "remove":
            _remove(parent, key, f"error in remove for path: '{path}'")
        else:
            if isinstance(parent, dict) and key not in parent:
                raise _unprocessable(
                    f"replace operation does not apply: doc is missing key: {path}: missing value"
                )
            at = (
                key
                if isinstance(parent, dict)
                else _index(parent, key, f"error in replace for path: '{path}'")
            )
            parent[at] = deep_copy(op.get("value"))

    def _carry(self, kind: str, source: str, path: str) -> None:
        """Move or copy."""
        if kind == "move" and path.startswith(source + "/"):
            raise _unprocessable(f"move operation does not apply: {path} is inside {source}")
        parent, key = self._parent(
            source, f"{kind} operation does not apply: doc is missing from path: {source}"
        )
        problem = (
            f"error in move for path: '{key}'" if kind == "move" else f"error in copy for from: '{source}'"
        )
        value = _get(parent, key, problem)
        if kind == "move":
            _remove(parent, key, problem)
        else:
            self._copied += len(msgspec.json.encode(value))
            if self._copied > MAX_COPIED:
                raise _unprocessable(
                    f"Unable to complete the copy, the accumulated size increase of copy is {self._copied}, "
                    f"exceeding the limit {MAX_COPIED}"
                )
            value = deep_copy(value)
        there = f"{kind} operation does not apply: doc is missing destination path: {path}"
        parent, key = self._parent(path, there)
        _add(parent, key, value, f"error in {kind} for path: '{path}'")

    def _test(self, path: str, wanted: Any) -> None:
        """A key that is missing counts as null, a container that is missing does not."""
        parent, key = self._parent(path, f"test operation does not apply: is missing path: {path}")
        if isinstance(parent, dict):
            found = parent.get(key)
        else:
            found = parent[_index(parent, key, f"error in test for path: '{path}'")]
        if not _equal(found, wanted):
            raise _unprocessable(f"testing value {path} failed: test failed")

    def _parent(self, path: str, problem: str) -> tuple[Any, str]:
        """The container that holds the place and its key there."""
        keys = [k.replace("~1", "/").replace("~0", "~") for k in path.split("/")]
        place: Any = None if keys[0] else self.holder
        for key in keys[:-1]:
            if isinstance(place, dict):
                place = place.get(key)
            elif isinstance(place, list):
                place = place[_index(place, key, problem)]
        if not isinstance(place, dict | list):
            raise _unprocessable(f"{problem}: missing value")
        return place, keys[-1]


def _text(op: Object, name: str, kind: str) -> str:
    value = op.get(name)
    if not isinstance(value, str):
        raise _unprocessable(f"{kind} operation failed to decode {name}: missing value")
    return value


def _equal(a: Any, b: Any) -> bool:
    """JSON equality: `true` is not 1."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(v, b[k]) for k, v in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return isinstance(a, bool) == isinstance(b, bool) and bool(a == b)


def _index(items: list[Any], key: str, problem: str, *, end: int = 0) -> int:
    """A list index, at most `end` past the last one; a negative one counts from there."""
    digits = key.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or (digits[0] == "0" and key != "0") or len(digits) > 9:
        raise _unprocessable(f"{problem}: value was not a proper array index: '{key}': invalid array index")
    index, size = int(key), len(items) + end
    if not -size <= index < size:
        raise _unprocessable(f"{problem}: Unable to access invalid index: {index}: invalid index referenced")
    return index if index >= 0 else index + size


def _get(parent: Any, key: str, problem: str) -> Any:
    if isinstance(parent, list):
        return parent[_index(parent, key, problem)]
    if key not in parent:
        raise _unprocessable(f"{problem}: unable to get nonexistent key: {key}: missing value")
    return parent[key]


def _add(parent: Any, key: str, value: Any, problem: str) -> None:
    if isinstance(parent, dict):
        parent[key] = value
    elif key == "-":
        parent.append(value)
    else:
        parent.insert(_index(parent, key, problem, end=1), value)


def _remove(parent: Any, key: str, problem: str) -> None:
    if isinstance(parent, list):
        del parent[_index(parent, key, problem)]
    elif key in parent:
        del parent[key]
    else:
        raise _unprocessable(f"{problem}: Unable to remove nonexistent key: {key}: missing value")


def _refuse_depth(doc: Object) -> None:
    level: list[Any] = [doc]
    for _ in range(MAX_DEPTH):
        level = [
            v
            for part in level
            for v in (part.values() if isinstance(part, dict) else part)
            if isinstance(v, dict | list)
        ]
        if not level:
            return
    raise _unprocessable(f"the patched document nests deeper than {MAX_DEPTH} levels")


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
