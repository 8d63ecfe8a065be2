"""Server-side apply: each applier says what it wants, and owns that until it stops saying so.

What a manager applies is merged into the live object by type; what it applied before and does not any more goes,
unless somebody else owns it; what somebody else owns and would change is a conflict, unless forced.

Upstream: `sigs.k8s.io/structured-merge-diff` (`merge.Updater.Apply`) and
`k8s.io/apimachinery/pkg/util/managedfields`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from sampan.api import field_set, last_applied, managed_fields, typed, typed_merge
from sampan.api.errors import Object, StatusError, bad_request
from sampan.api.field_set import LEAF, Fields
from sampan.api.managed_fields import (
    Comparisons,
    Manager,
    fields,
    in_version,
    live_entries,
    skipped,
    store_entries,
)
from sampan.api.schema import Node

BEFORE_FIRST_APPLY = "before-first-apply"
"""Stands for whoever wrote what was there before an object was followed."""


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

    `node` is the type of both; the configuration has been held against it (`configuration.refuse`). The result carries
    the new `metadata.managedFields` and may share parts with `live` and `applied`; where nothing changes it equals
    `live`, old times included. Raises StatusError: 400 for a configuration that cannot be applied, 409 with a cause for
    every field in conflict.
    """
    if applied["metadata"].get("managedFields") is not None:
        raise bad_request("metadata.managedFields must be nil")
    applying = _Applying(node, live, applied, Manager(manager, "Apply", api_version, subresource), time)
    try:
        out = applying.run(force)
    except _Conflicts as conflicts:
        allowed: Fields = {}
        if manager == last_applied.MANAGER and live is not None:
            allowed = last_applied.allowed_conflicts(node, live, (api_version, applied.get("kind") or ""))
        others = [(m, rest) for m, both in conflicts.found if (rest := field_set.difference(both, allowed))]
        if others:
            raise _conflict(others) from None
        out = applying.run(True)
    if manager == last_applied.MANAGER:
        last_applied.follow(applied, out)
    return out


class _Conflicts(Exception):
    """Fields that others own and that would change, by manager."""

    def __init__(self, found: list[tuple[Manager, Fields]]) -> None:
        super().__init__()
        self.found = found


class _Applying:
    """One configuration on its way into one object."""

    def __init__(self, node: Node, live: Object | None, applied: Object, me: Manager, time: str) -> None:
        self._node = node
        self._base: Object = live if live is not None else {}
        self._config = applied
        self._kind = applied.get("kind") or ""
        self._me = me
        self._time = time
        skip = skipped(me.api_version, self._kind, me.subresource)
        self._wanted = field_set.without(typed.fields_of(node, applied) or {}, skip)
        entries = live_entries(live)
        if live is not None and not entries:
            entries = self._before_first_apply(live)
        self._before = next((e for e in entries if me.is_of(e)), None)
        self._others = [e for e in entries if e is not self._before]

    def _before_first_apply(self, live: Object) -> list[Object]:
        """Of an object that was not followed so far, everything is somebody's."""
        seen = {**live, "metadata": {k: v for k, v in live["metadata"].items() if k != "managedFields"}}
        managed_fields.record_update(
            self._node,
            None,
            seen,
            manager=BEFORE_FIRST_APPLY,
            api_version=self._me.api_version,
            time=self._time,
            subresource=self._me.subresource,
        )
        return live_entries(seen)

    def run(self, force: bool) -> Object:
        """The new object. Raises _Conflicts."""
        base, wanted = self._base, self._wanted
        merged: Object = typed_merge.merge(self._node, base, self._config)
        mine = fields(self._before) if self._before is not None else {}
        if field_set.difference(mine, wanted):
            assert self._before is not None
            pruned = self._pruned(merged, mine, self._before.get("apiVersion") or "")
            # Once more, for what is wanted empty and went with its last part.
            merged = typed_merge.merge(self._node, pruned, self._config)
        comparisons = Comparisons(
            self._node, base, merged, self._me.api_version, self._kind, self._me.subresource
        )
        if not force:
            self._refuse_conflicts(comparisons)
        # The order of a list may be new where its items are not.
        same = bool(base) and merged == base
        if same:
            merged = base
        kept = managed_fields.left(self._others, comparisons)
        if wanted:
            # Where the object stays as it is, so does the time.
            unchanged = same and self._before is not None
            if (
                unchanged
                and mine == wanted
                and (self._before or {}).get("apiVersion") == self._me.api_version
            ):
                kept.append(self._before or {})
            else:
                time = ((self._before or {}).get("time") if unchanged else "") or self._time
                kept.append(self._me.entry(wanted, time))
        if same and _as_before(kept, live_entries(base)):
            return base
        out = {**merged, "metadata": dict(merged["metadata"])}
        store_entries(out, kept)
        return out

    def _refuse_conflicts(self, comparisons: Comparisons) -> None:
        found = []
        for entry in self._others:
            changed = comparisons.of(entry.get("apiVersion") or "")
            if changed is None:
                continue
            both = field_set.intersection(fields(entry), changed.written())
            if both:
                found.append((Manager.of(entry), both))
        if found:
            raise _Conflicts(found)

    # What the applier gave up: everything it applied last goes, and then comes back what others own or it wants still,
    # and whatever it never owned.

    def _pruned(self, merged: Object, mine: Fields, version: str) -> Object:
        at = self._in(merged, version)
        if at is None:
            return merged
        node, converted = at
        last = typed.with_structs(node, mine)
        stripped = typed_merge.without_members(node, converted, last) or {}
        # The name is nobody's to give up, and the metadata around it stays.
        wanted = field_set.union(self._wanted, {"f:metadata": {"f:name": LEAF}})
        owned: dict[str, Fields] = {self._me.api_version: wanted}
        for entry in self._others:
            theirs = entry.get("apiVersion") or ""
            owned[theirs] = field_set.union(owned.get(theirs, {}), fields(entry))
        for theirs in sorted(owned, key=lambda v: (v != version, v)):
            stripped = self._given_back(converted, stripped, version, theirs, owned[theirs])
        all_, rest = _named(node, converted), _named(node, stripped)
        gone = field_set.intersection(field_set.difference(all_, rest), last)
        pruned = typed_merge.without_members(node, converted, gone) or {}
        back = (
            in_version(pruned, version, self._kind, self._me.api_version)
            if version != self._me.api_version
            else None
        )
        return back[1] if back is not None else pruned

    def _given_back(
        self, merged: Object, stripped: Object, version: str, theirs: str, owned: Fields
    ) -> Object:
        """`stripped` with what is owned in another version of the kind; both objects are in `version`."""
        if theirs == version:
            node, whole, part = self._at(version), merged, stripped
        else:
            there, part_there = (in_version(o, version, self._kind, theirs) for o in (merged, stripped))
            if there is None or part_there is None:
                return stripped
            (node, whole), (_, part) = there, part_there
        keep = field_set.union(_named(node, part), typed.with_structs(node, owned))
        out: Object = (
            typed_merge.without_members(node, whole, field_set.difference(_named(node, whole), keep)) or {}
        )
        if theirs == version:
            return out
        back = in_version(out, theirs, self._kind, version)
        return back[1] if back is not None else stripped

    def _in(self, obj: Object, version: str) -> tuple[Node, Object] | None:
        if version == self._me.api_version:
            return self._node, obj
        return in_version(obj, self._me.api_version, self._kind, version)

    def _at(self, version: str) -> Node:
        found = self._in({}, version)
        return found[0] if found is not None else self._node


def _as_before(kept: list[Object], live: list[Object]) -> bool:
    return len(kept) == len(live) and {id(e) for e in kept} == {id(e) for e in live}


def _named(node: Node, obj: Object) -> Fields:
    return typed.with_structs(node, typed.fields_of(node, obj) or {})


def _conflict(found: Sequence[tuple[Manager, Fields]]) -> StatusError:
    """409 with every field that somebody else owns."""
    listed = sorted(
        found, key=lambda pair: (pair[0].name, pair[0].operation, pair[0].api_version, pair[0].subresource)
    )
    conflicts = [(_described(manager), list(field_set.paths(both))) for manager, both in listed]
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": path}
        for who, paths in conflicts
        for path in paths
    ]
    if len(causes) == 1:
        message = f"Apply failed with 1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        groups = (
            f"conflicts with {who}:\n" + "\n".join(f"- {path}" for path in paths) for who, paths in conflicts
        )
        message = f"Apply failed with {len(causes)} conflicts: " + "\n".join(groups)
    return StatusError(409, "Conflict", message, {"causes": causes})


def _described(manager: Manager) -> str:
    text = json.dumps(manager.name, ensure_ascii=False)
    if manager.subresource:
        text += f" with subresource {json.dumps(manager.subresource)}"
    return f"{text} using {manager.api_version}" if manager.operation == "Update" else text
