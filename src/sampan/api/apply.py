"""Server-side apply: each applier says what it wants, and owns that until it stops saying so.

What a manager applies is merged into the live object by type; what it applied before and does not any more goes,
unless somebody else owns it; what somebody else owns and would change is a conflict, unless forced.

Upstream: `sigs.k8s.io/structured-merge-diff` (`merge.Updater.Apply`) and
`k8s.io/apimachinery/pkg/util/managedfields`.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from sampan.api import field_set
from sampan.api.errors import Object, StatusError, bad_request
from sampan.api.field_set import LEAF, Fields
from sampan.api.managed_fields import Manager, base_entries, skipped, store_entries
from sampan.api.objects import deep_copy
from sampan.api.patch import interleave
from sampan.api.schema import Node


def apply(
    node: Node,
    live: Object | None,
    applied: Object,
    *,
    manager: str,
    api_version: str,
    time: str,
    force: bool,
    subresource: str = "",
) -> Object:
    """The object after `manager` applied a configuration to `live` (None: it does not exist yet).

    `node` is the type of both. The result carries the new `metadata.managedFields` and may share parts with `live`;
    where nothing changes it equals `live`, old times included. Raises StatusError: 400 for a configuration that cannot
    be applied, 409 with a cause for every field in conflict.
    """
    if applied["metadata"].get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    me = Manager(manager, "Apply", api_version, subresource)
    skip = skipped(applied.get("apiVersion") or api_version, applied.get("kind") or "", subresource)
    config = {**applied, "metadata": {k: v for k, v in applied["metadata"].items() if k != "managedFields"}}
    wanted = field_set.without(_fields_of(node, config, ""), skip)

    base = live if live is not None else {}
    entries = base_entries(None, live) if live is not None else []
    mine: Fields = {}
    others: list[Object] = []
    for entry in entries:
        if Manager.of(entry) == me:
            mine = entry.get("fieldsV1") or {}
        else:
            others.append(entry)

    merged: Object = _merge(node, base, config)
    if gone := field_set.difference(mine, wanted):
        owned = functools.reduce(field_set.union, (e.get("fieldsV1") or {} for e in others), wanted)
        merged = _prune(node, merged, gone, owned)

    comparison = field_set.compare(node, base, merged, skip=skip)
    written = comparison.written()
    if not force:
        _refuse_conflicts(others, written)
    if live is not None and comparison.same and mine == wanted:
        return live
    kept: list[Object] = []
    for entry in others:
        fields = entry.get("fieldsV1") or {}
        rest = field_set.difference(field_set.difference(fields, written), comparison.removed)
        if rest is fields:
            kept.append(entry)
        elif rest:
            kept.append({**entry, "fieldsV1": rest})
    if wanted:
        kept.append(me.entry(wanted, time))
    out = {**merged, "metadata": dict(merged["metadata"])}
    store_entries(out, kept)
    return out


def _fields_of(node: Node | None, value: Any, path: str) -> Fields:
    """The set of what a configuration names. Unlike what a create owns, the maps and structs around are not in it, but
    the items of lists are."""
    if value.__class__ is list and node is not None and node.type == "array":
        _check_unique(node, value, path)
    parts = field_set.children(node, value)
    if not parts:
        # An object that names nothing is itself what is wanted; so is a value that is owned as a whole.
        return LEAF
    named = value.__class__ is list or (node is not None and node.type == "map")
    out: Fields = {}
    for element, (its_type, part) in parts.items():
        below = _fields_of(its_type, part, path + field_set.element_text(element))
        out[element] = {".": LEAF, **below} if named and below else below
    if value.__class__ is dict:
        for key, part in value.items():
            if part is None:
                out["f:" + key] = LEAF
    return out


def _check_unique(node: Node, items: list[Any], path: str) -> None:
    kind, keys = field_set.list_kind(node)
    if kind == "atomic":
        return
    seen: set[str] = set()
    for item in items:
        if kind == "map" and not isinstance(item, dict):
            raise bad_request(f"failed to create typed patch object: {path}: an object is expected")
        if kind == "map" and all(k not in item for k in keys):
            missing = ", ".join(keys)
            raise bad_request(
                f"failed to create typed patch object: {path}: associative list with keys has an element that omits "
                f"key field {json.dumps(missing)} (and doesn't have default value)"
            )
        element = field_set.item_element(kind, keys, item)
        if element in seen:
            raise bad_request(
                f"failed to create typed patch object: {path}: duplicate entries for key "
                f"{field_set.element_text(element)}"
            )
        seen.add(element)


def _merge(node: Node | None, live: Any, config: Any) -> Any:
    """The live value with what the configuration says about it."""
    if config.__class__ is dict:
        granular = node is not None and node.map_type != "atomic" and node.type in ("object", "map")
        if not granular or live.__class__ is not dict:
            live = {}
            if not granular:
                return deep_copy(config)
        out = dict(live)
        for key, value in config.items():
            if value is None:
                out.pop(key, None)
            else:
                out[key] = _merge(field_set.child(node, key), live.get(key), value)
        return out
    if config.__class__ is list:
        after = field_set.items_by_element(node, config) if node is not None else None
        if after is None:
            return deep_copy(config)
        assert node is not None
        before = field_set.items_by_element(node, live) if isinstance(live, list) else None
        if before is None:
            return [_merge(node.items, None, item) for item in config]
        merged = dict(before)
        for element, item in after.items():
            merged[element] = _merge(node.items, before.get(element), item)
        order = interleave(list(merged), list(before), list(after), lambda element: element)
        return [merged[element] for element in order]
    return config


def _prune(node: Node | None, value: Any, gone: Fields, owned: Fields) -> Any:
    """The value without the members of `gone`, which its manager gave up, that are not in `owned`, which somebody
    wants still."""
    if value.__class__ is dict:
        out = dict(value)
        for element, below in gone.items():
            name = element[2:]
            if element[:2] == "f:" and name in out:
                left = _pruned_part(field_set.child(node, name), out[name], below, owned.get(element))
                if left is None:
                    del out[name]
                else:
                    out[name] = left
        return out
    if value.__class__ is list and node is not None:
        items = field_set.items_by_element(node, value)
        if items is None:
            return value
        keys = field_set.list_kind(node)[1]
        kept = []
        for element, item in items.items():
            below = gone.get(element)
            left = item if below is None else _pruned_part(node.items, item, below, owned.get(element))
            if left is not None:
                # An item that stays for somebody's sake stays the same item.
                kept.append({**{k: item[k] for k in keys if k in item}, **left} if keys else left)
        return kept
    return value


def _pruned_part(node: Node | None, value: Any, below: Fields, owned: Fields | None) -> Any:
    """What is left of one part, None for nothing. `owned` is None where nobody owns it or anything in it."""
    member = not below or "." in below
    if owned is None and member:
        return None
    if not below or owned == LEAF:
        return value
    left = _prune(node, value, below, owned or {})
    # A struct or list that lost its last part goes with it, unless it is somebody's own.
    return None if not left and value and not (owned is not None and (not owned or "." in owned)) else left


def _described(manager: Manager) -> str:
    text = json.dumps(manager.name, ensure_ascii=False)
    if manager.subresource:
        text += f" with subresource {json.dumps(manager.subresource)}"
    return f"{text} using {manager.api_version}" if manager.operation == "Update" else text


def _refuse_conflicts(others: list[Object], written: Fields) -> None:
    """Raise 409 if anything written is somebody else's."""
    conflicts: dict[str, list[str]] = {}
    for entry in others:
        both = field_set.intersection(entry.get("fieldsV1") or {}, written)
        if paths := sorted(field_set.paths(both)):
            conflicts.setdefault(_described(Manager.of(entry)), []).extend(paths)
    if not conflicts:
        return
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": path}
        for who, paths in sorted(conflicts.items())
        for path in paths
    ]
    if len(causes) == 1:
        message = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        groups = (
            f"conflicts with {who}:\n" + "\n".join(f"- {p}" for p in paths)
            for who, paths in sorted(conflicts.items())
        )
        message = f"Apply failed with {len(causes)} conflicts: " + "\n".join(groups)
    raise StatusError(409, "Conflict", message, {"causes": causes})
