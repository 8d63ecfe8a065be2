"""`metadata.managedFields`: who wrote which field last, kept on every write.

Upstream: `k8s.io/apimachinery/pkg/util/managedfields`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sampan.api import field_set, resources
from sampan.api.errors import Object
from sampan.api.field_set import Fields
from sampan.api.schema import Node

MAX_UPDATE_MANAGERS = 10
ANCIENT = "ancient-changes"
"""Stands for the oldest managers of an object that more than ten have updated."""

_METADATA = dict.fromkeys(
    (
        "name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation", "managedFields",
        "resourceVersion",
    )
)  # fmt: skip


@functools.lru_cache(512)
def skipped(api_version: str, kind: str, subresource: str) -> Mapping[str, Any]:
    """What nobody owns, in the form that `field_set.compare` takes: identity, bookkeeping, and what a write through
    this (sub)resource does not change."""
    skip: dict[str, Any] = {"apiVersion": None, "kind": None, "metadata": _METADATA}
    resource = resources.by_kind(api_version, kind)
    if subresource == "status":
        skip["spec"] = None
    elif not subresource and (resource is None or resource.subresource("status") is not None):
        skip["status"] = None
    return skip


@dataclass(frozen=True, slots=True)
class Manager:
    """What tells one entry from another."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> Manager:
        return cls(
            entry.get("manager") or "",
            entry.get("operation") or "",
            entry.get("apiVersion") or "",
            entry.get("subresource") or "",
        )

    def entry(self, fields: Fields, time: str) -> Object:
        out: Object = {
            "manager": self.name,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "time": time,
            "fieldsType": "FieldsV1",
            "fieldsV1": fields,
        }
        if self.subresource:
            out["subresource"] = self.subresource
        return out


def base_entries(old: Object | None, new: Object) -> list[Object]:
    """The entries that a write starts from: those sent with the object (a single empty one resets them), else those
    of the stored object."""
    sent = new["metadata"].get("managedFields")
    if sent is not None and len(sent) == 1 and not sent[0]:
        return []
    if sent and all(e.get("fieldsType") == "FieldsV1" and isinstance(e.get("fieldsV1"), dict) for e in sent):
        return list(sent)
    return list((old or {}).get("metadata", {}).get("managedFields") or ())


def store_entries(obj: Object, entries: list[Object]) -> None:
    """Put entries on an object, in upstream's order."""
    if entries:
        entries.sort(key=_order)
        obj["metadata"]["managedFields"] = entries
    else:
        obj["metadata"].pop("managedFields", None)


def _order(entry: Object) -> tuple[str, str, str, str, str]:
    return (
        entry.get("operation") or "",
        entry.get("time") or "",
        entry.get("manager") or "",
        entry.get("apiVersion") or "",
        entry.get("subresource") or "",
    )


def record_update(
    node: Node,
    old: Object | None,
    new: Object,
    *,
    manager: str,
    api_version: str,
    time: str,
    operation: str = "Update",
    subresource: str = "",
) -> None:
    """Set `new["metadata"]["managedFields"]` for a create (`old` is None), an update or a patch.

    The writer becomes the owner of what it added or changed; whoever owned that, or what went, owns it no more.
    `time` is the moment of the write as `metav1.Time`. Entries that did not change are shared with `old`.
    """
    me = Manager(manager, operation, api_version, subresource)
    skip = skipped(new.get("apiVersion") or api_version, new.get("kind") or "", subresource)
    entries = base_entries(old, new)
    comparison = field_set.compare(node, old or {}, new, skip=skip)
    if comparison.same:
        store_entries(new, entries)
        return
    written = comparison.written()
    kept: list[Object] = []
    mine: Fields = {}
    for entry in entries:
        fields = entry.get("fieldsV1") or {}
        if Manager.of(entry) == me:
            mine = field_set.difference(fields, comparison.removed)
            continue
        rest = field_set.difference(field_set.difference(fields, written), comparison.removed)
        if rest is fields:
            kept.append(entry)
        elif rest:
            kept.append({**entry, "fieldsV1": rest})
    mine = field_set.union(mine, written)
    if mine:
        kept.append(me.entry(mine, time))
    store_entries(new, _capped(kept) if len(kept) > MAX_UPDATE_MANAGERS else kept)


def _capped(entries: list[Object]) -> list[Object]:
    """At most ten entries of updates: the oldest beyond that become one."""
    updates = sorted((e for e in entries if e.get("operation") == "Update"), key=_order)
    excess = len(updates) - MAX_UPDATE_MANAGERS
    if excess <= 0:
        return entries
    # One more than the excess, because what they become takes a place too; one entry for each API version.
    oldest = updates[: excess + 1]
    out = [e for e in entries if not any(e is o for o in oldest)]
    merged: dict[str, Object] = {}
    for entry in oldest:
        version = entry.get("apiVersion") or ""
        before = merged.get(version)
        fields = field_set.union(before["fieldsV1"], entry["fieldsV1"]) if before else entry["fieldsV1"]
        merged[version] = Manager(ANCIENT, "Update", version).entry(fields, entry.get("time") or "")
    return out + list(merged.values())
