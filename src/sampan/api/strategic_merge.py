"""Strategic merge patch: like a merge patch, but lists merge as their type says, and directives say the rest.

`$patch: replace | delete | merge` of a map or of a list's item, `$retainKeys` of a union, `$setElementOrder/LIST` and
`$deleteFromPrimitiveList/LIST` beside a list. Pure: the document given is not changed, and what is returned may share the
parts that stayed. Upstream: `k8s.io/apimachinery/pkg/util/strategicpatch`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sampan.api import go_text
from sampan.api.errors import Object, StatusError, bad_request
from sampan.api.schema import Node
from sampan.api.typed import child

_DIRECTIVE = "$patch"
_DIRECTIVES = ("replace", "delete", "merge", None)
_RETAIN = "$retainKeys"
_DELETE = "$deleteFromPrimitiveList"
_ORDER = "$setElementOrder"
_BAD_DELETE = "invalid patch format of primitive list"
_BAD_ORDER = "invalid patch format of setElementOrder list"
_BAD_RETAIN = "invalid patch format of retainKeys"


def strategic_merge(node: Node, doc: Object, patch: Any) -> Object:
    """Apply a patch to a document of type `node`. Raises StatusError: 400 for a malformed patch, 422 for lists of lists."""
    if not isinstance(patch, dict):
        raise bad_request("invalid JSON document")
    return _merge_map(node, doc, patch)


def _is_directive(key: str) -> bool:
    return key[:1] == "$" and (key in (_DIRECTIVE, _RETAIN) or key.partition("/")[0] in (_DELETE, _ORDER))


def _merge_map(node: Node | None, original: Any, patch: Object) -> Object:
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        return {k: _plain(v) for k, v in patch.items() if v is not None and not _is_directive(k)}
    if directive == "delete":
        return {}
    if directive is not None and directive != "merge":
        raise _unknown_directive(directive, patch)
    out = dict(original) if isinstance(original, dict) else {}
    if (kept := patch.get(_RETAIN)) is not None:
        _retain(out, kept, patch)
    named = _named_lists(patch)
    for key, (deleted, order) in named.items():
        _merge_list_field(child(node, key), out, key, patch, deleted, order)
    for key, value in patch.items():
        if key in named or _is_directive(key):
            continue
        present = out.get(key)
        if value is None:
            out.pop(key, None)
        elif isinstance(value, list) and isinstance(present, list):
            _merge_list_field(child(node, key), out, key, patch, None, None)
        elif isinstance(value, dict) and isinstance(present, dict):
            inner = child(node, key)
            whole = inner is not None and "replace" in inner.patch_strategy
            out[key] = _plain(value) if whole else _merge_map(inner, present, value)
        elif isinstance(value, dict) and value.get(_DIRECTIVE) == "delete":
            out[key] = {}
        else:
            out[key] = _plain(value)
    return out


def _named_lists(patch: Object) -> dict[str, tuple[list[Any] | None, list[Any] | None]]:
    """The lists that the directives beside them name, with what to delete from them and their order."""
    found: dict[str, tuple[list[Any] | None, list[Any] | None]] = {}
    for key, value in patch.items():
        kind, _, name = key.partition("/")
        if kind not in (_DELETE, _ORDER):
            continue
        if not name or not isinstance(value, list):
            raise bad_request(_BAD_DELETE if kind == _DELETE else _BAD_ORDER)
        deleted, order = found.get(name, (None, None))
        found[name] = (value, order) if kind == _DELETE else (deleted, value)
    return found


def _retain(out: Object, kept: Any, patch: Object) -> None:
    if not isinstance(kept, list) or not all(isinstance(k, str) for k in kept):
        raise bad_request(_BAD_RETAIN)
    for key, value in patch.items():
        if value is not None and not _is_directive(key) and key not in kept:
            raise bad_request(f"{_BAD_RETAIN}: {key} is in the patch but is not retained")
    for key in [k for k in out if k not in kept]:
        del out[key]


def _plain(value: Any) -> Any:
    """A value of the patch that meets nothing in the document: without nulls and directives."""
    if isinstance(value, dict):
        if value.get(_DIRECTIVE) not in _DIRECTIVES:
            raise _unknown_directive(value[_DIRECTIVE], value)
        return {k: _plain(v) for k, v in value.items() if v is not None and not _is_directive(k)}
    if isinstance(value, list):
        return [_plain(v) for v in value if not (isinstance(v, dict) and _DIRECTIVE in v and _is_gone(v))]
    return value


def _is_gone(item: Object) -> bool:
    return item[_DIRECTIVE] == "delete" or item.keys() == {_DIRECTIVE}


def _merge_list_field(
    node: Node | None,
    out: Object,
    key: str,
    patch: Object,
    deleted: list[Any] | None,
    order: list[Any] | None,
) -> None:
    """Merge one list of the patch, and what the directives beside it say, into `out`."""
    change, original = patch.get(key), out.get(key)
    if key in patch and change is None:
        out.pop(key, None)
        return
    if change is not None and not isinstance(change, list):
        raise bad_request(f"expected a []interface {{}}, but received a {go_text.type_of(change)}")
    if original is None:
        if change is not None:
            out[key] = _plain(change)
            if order is not None and node is not None:
                out[key] = _ordered(node, out[key], [], order)
        return
    if not isinstance(original, list):
        raise bad_request(f"expected a []interface {{}}, but received a {go_text.type_of(original)}")
    out[key] = _merge_list(node, original, change, deleted, order, key)


def _merge_list(
    node: Node | None,
    original: list[Any],
    change: list[Any] | None,
    deleted: list[Any] | None,
    order: list[Any] | None,
    name: str,
) -> list[Any]:
    if node is None or "merge" not in node.patch_strategy:
        return original if change is None else list(_plain(change))
    changes = change or []
    maps = _element_kind([*original, *changes], name) is dict
    if not maps:
        gone = {_scalar(v) for v in deleted or () if not isinstance(v, dict | list)}
        kept = [v for v in original if _scalar(v) not in gone]
        merged = list({_scalar(v): v for v in [*kept, *changes]}.values())
        return interleave(merged, original, changes if order is None else order, lambda item: item)
    key = node.patch_merge_key
    if not key:
        raise bad_request(f"cannot merge lists without merge key for {name}")
    if order is not None:
        _check_order(changes, order, key)
    merged, server = _merge_objects(node, original, changes, key)
    return interleave(merged, server, changes if order is None else order, lambda item: _key_of(item, key))


def _ordered(node: Node, items: list[Any], server: list[Any], order: list[Any]) -> list[Any]:
    """New items in the order that the patch gives."""
    key = node.patch_merge_key
    return interleave(items, server, order, (lambda item: _key_of(item, key)) if key else (lambda item: item))


def _key_of(item: Any, key: str) -> Any:
    return item.get(key) if isinstance(item, dict) else item


def _element_kind(items: list[Any], name: str) -> type | None:
    """What the items of the list `name` are, which must be the same for all. Raises StatusError."""
    kinds = {dict if isinstance(i, dict) else type(i) for i in items}
    if list in kinds:
        why = "lists of lists are not supported"
        cause = {"reason": "FieldValueInvalid", "message": why, "field": name}
        raise StatusError(422, "Invalid", why, {"causes": [cause]})
    if dict in kinds and len(kinds) > 1:
        raise bad_request("list element types are not identical")
    return next(iter(kinds), None)


def _scalar(value: Any) -> tuple[str, Any]:
    """Tells `1` from `true`, which are equal and hash alike in Python."""
    return (type(value).__name__, value if not isinstance(value, dict | list) else repr(value))


def _check_order(changes: list[Any], order: list[Any], key: str) -> None:
    """What the patch says of a list must come in the order that it gives."""
    wanted = [_scalar(_key_of(i, key)) for i in order]
    at = 0
    for change in changes:
        if isinstance(change, dict) and _DIRECTIVE in change:
            continue
        mine = _scalar(_key_of(change, key))
        while at < len(wanted) and wanted[at] != mine:
            at += 1
        if at == len(wanted):
            raise bad_request(
                f"The order in patch list:\n{go_text.show(changes)}\n doesn't match {_ORDER} list:\n{go_text.show(order)}\n"
            )
        at += 1


def _merge_objects(
    node: Node, original: list[Any], changes: list[Any], key: str
) -> tuple[list[Any], list[Any]]:
    """The merged items, not ordered yet, and the items of the document that order them."""
    plain: list[Object] = []
    deleted: set[Any] = set()
    replace = False
    for change in changes:
        directive = change.get(_DIRECTIVE)
        if directive is None or directive == "merge":
            plain.append({k: v for k, v in change.items() if k != _DIRECTIVE})
        elif directive == "replace":
            # Only the mark of a list that is replaced: its own content is not an item.
            replace = True
        elif directive == "delete":
            deleted.add(_scalar(_merge_key(change, key)))
        else:
            raise _unknown_directive(directive, change)
    if replace:
        return [_plain(item) for item in plain], []
    merged = [item for item in original if _scalar(item.get(key)) not in deleted]
    server = merged[:]
    place: dict[Any, int] = {}
    for i, item in enumerate(merged):
        place.setdefault(_scalar(item.get(key)), i)
    for body in plain:
        wanted = _scalar(_merge_key(body, key))
        at = place.get(wanted)
        if at is None:
            place[wanted] = len(merged)
            merged.append(_plain(body))
        else:
            merged[at] = _merge_map(node.items, merged[at], body)
    return merged, server


def _merge_key(item: Object, key: str) -> Any:
    if key not in item:
        raise bad_request(f"map: {go_text.show(item)} does not contain declared merge key: {key}")
    return item[key]


def _unknown_directive(directive: Any, patch: Object) -> StatusError:
    return bad_request(f"unknown patch type: {go_text.show(directive)} in map: {go_text.show(patch)}")


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
