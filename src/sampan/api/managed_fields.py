"""`metadata.managedFields`: who wrote which field last, kept on every write.

In stored objects the sets (`fieldsV1`) stay JSON (`msgspec.Raw`), which is written as it is and compared as bytes: as objects
they would be most of the memory of a pod. `fields` reads one, `plain` an object's. Upstream:
`k8s.io/apimachinery/pkg/util/managedfields`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from sampan.api import comparison, conversion, field_set, resources, schema, typed
from sampan.api.comparison import Comparison
from sampan.api.errors import Object
from sampan.api.field_set import Fields
from sampan.api.schema import Node

MAX_UPDATE_MANAGERS = 10
ANCIENT = "ancient-changes"
"""Stands for the oldest managers of an object that more than ten have updated."""

_METADATA: Mapping[str, Any] = dict.fromkeys(
    (
        "name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation", "managedFields",
        "resourceVersion",
    )
)  # fmt: skip
_NOT_THROUGH_STATUS: Mapping[str, tuple[str, ...]] = {
    "pods": ("deletionTimestamp", "ownerReferences"),
    "deployments.apps": ("labels",),
}
"""Metadata that a write of the status leaves as it is, by key stem."""


@functools.lru_cache(512)
def skipped(api_version: str, kind: str, subresource: str) -> Mapping[str, Any]:
    """What nobody owns, in the form that `comparison.compare` takes: identity, bookkeeping, and what a write through this
    (sub)resource does not change."""
    skip: dict[str, Any] = {"apiVersion": None, "kind": None, "metadata": _METADATA}
    resource = resources.by_kind(api_version, kind)
    if subresource in ("status", "approval"):
        skip["spec"] = None
        if resource is not None and (more := _NOT_THROUGH_STATUS.get(resource.key_stem)):
            skip["metadata"] = {**_METADATA, **dict.fromkeys(more)}
    elif resource is None or resource.subresource("status") is not None:
        skip["status"] = None
    return skip


@dataclass(frozen=True, slots=True)
class Manager:
    """What tells one entry from another. Of an applier the version does not: it may change it."""

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

    def is_of(self, entry: Mapping[str, Any]) -> bool:
        """Whether an entry is this manager's."""
        return (
            entry.get("manager") == self.name
            and entry.get("operation") == self.operation
            and (entry.get("subresource") or "") == self.subresource
            and (self.operation == "Apply" or entry.get("apiVersion") == self.api_version)
        )

    def entry(self, owned: Fields, time: str) -> Object:
        out: Object = {
            "manager": self.name,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "time": time,
            "fieldsType": "FieldsV1",
            "fieldsV1": owned,
        }
        if self.subresource:
            out["subresource"] = self.subresource
        return out


_encode = msgspec.json.Encoder().encode
_MOST_TEXTS = 256
_texts: dict[bytes, msgspec.Raw] = {}


def fields(entry: Mapping[str, Any]) -> Fields:
    """The set of fields of an entry."""
    found = entry.get("fieldsV1")
    if found.__class__ is msgspec.Raw:
        return _parsed(bytes(found))
    return found or {}


@functools.lru_cache(512)
def _parsed(text: bytes) -> Fields:
    return msgspec.json.decode(text)  # type: ignore[no-any-return]


def _text(fields: Fields) -> msgspec.Raw:
    """A set as JSON; equal ones are shared where they come close to each other, as those of one template do."""
    text = _encode(fields)
    found = _texts.get(text)
    if found is None:
        if len(_texts) >= _MOST_TEXTS:
            del _texts[next(iter(_texts))]
        found = _texts[text] = msgspec.Raw(text)
    return found


def plain(obj: Object) -> Object:
    """An object with its sets of fields as objects. Shares everything else."""
    entries = obj["metadata"].get("managedFields")
    if not entries:
        return obj
    read = [{**e, "fieldsV1": fields(e)} if "fieldsV1" in e else e for e in entries]
    return {**obj, "metadata": {**obj["metadata"], "managedFields": read}}


def live_entries(live: Object | None) -> list[Object]:
    """The entries of a stored object."""
    return (
        list(live["metadata"].get("managedFields") or ()) if live is not None and "metadata" in live else []
    )


def base_entries(old: Object | None, new: Object, subresource: str = "") -> list[Object]:
    """The entries that a write starts from: those sent with the object (a single empty one resets them) if they can be
    read, else those of the stored object. A subresource cannot change them."""
    sent = new["metadata"].get("managedFields")
    live = live_entries(old)
    if not sent or subresource or sent == live:
        return live
    if len(sent) == 1 and not sent[0]:
        return []
    known = {Manager.of(e): e for e in live}
    found: dict[Any, Object] = {}
    try:
        for entry in sent:
            me = Manager.of(entry)
            mine = known.get(me)
            same = mine is not None and _same(entry, mine)
            key = (me.name, me.operation, me.subresource, me.api_version if me.operation == "Update" else "")
            found[key] = mine if same and mine is not None else _read(entry)
    except ValueError:
        return live
    return list(found.values())


def _same(sent: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    """Whether a client sent an entry as it is stored, maybe in another order."""
    if sent.get("time") != live.get("time") or sent.get("fieldsType") != live.get("fieldsType"):
        return False
    mine, theirs = sent.get("fieldsV1"), live.get("fieldsV1")
    if mine.__class__ is dict and theirs.__class__ is msgspec.Raw and _encode(mine) == bytes(theirs):
        return True
    return mine == theirs or fields(sent) == fields(live)


def _read(entry: Mapping[str, Any]) -> Object:
    """An entry that a client sent. Raises ValueError."""
    if entry.get("operation") not in ("Apply", "Update"):
        raise ValueError("operation must be `Apply` or `Update`")
    if not entry.get("apiVersion"):
        raise ValueError("apiVersion must not be empty")
    if entry.get("fieldsType") != "FieldsV1":
        raise ValueError("fieldsType must be FieldsV1")
    return {**entry, "fieldsV1": field_set.read(fields(entry))}


def store_entries(obj: Object, entries: list[Object]) -> None:
    """Put entries on an object, in upstream's order. Those that own nothing are dropped."""
    entries = [
        e if e["fieldsV1"].__class__ is msgspec.Raw else {**e, "fieldsV1": _text(e["fieldsV1"])}
        for e in entries
        if e.get("fieldsV1")
    ]
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


class Comparisons:
    """What changed between two states of an object, in each of its versions that somebody owns fields of."""

    def __init__(
        self, node: Node, old: Object, new: Object, api_version: str, kind: str, subresource: str
    ) -> None:
        self._old = old
        self._new = new
        self._api_version = api_version
        self._kind = kind
        self._subresource = subresource
        skip = skipped(api_version, kind, subresource)
        self.own = (
            comparison.compare(node, old, new, skip=skip)
            if old
            else Comparison(typed.created(node, new, skip), {}, {})
        )
        self._of: dict[str, Comparison | None] = {api_version: self.own}

    def of(self, api_version: str) -> Comparison | None:
        """The comparison in a version, None if the kind has no such version (any more)."""
        if api_version not in self._of:
            self._of[api_version] = self._compare(api_version)
        return self._of[api_version]

    def _compare(self, api_version: str) -> Comparison | None:
        old = in_version(self._old, self._api_version, self._kind, api_version)
        new = in_version(self._new, self._api_version, self._kind, api_version)
        if old is None or new is None:
            return None
        skip = skipped(api_version, self._kind, self._subresource)
        return comparison.compare(new[0], old[1], new[1], skip=skip)


def in_version(obj: Object, given: str, kind: str, wanted: str) -> tuple[Node, Object] | None:
    """An object of one version (maybe without its parts) in another, with its type; None if there is no such version."""
    mine, other = resources.by_kind(given, kind), resources.by_kind(wanted, kind)
    if mine is None or other is None or resources.hub(mine) is not resources.hub(other):
        return None
    node = schema.node(other.definition)
    if not obj:
        return node, obj
    return node, conversion.shown(other, conversion.kept(mine, resources.hub(mine), obj))


def left(entries: Iterable[Object], comparisons: Comparisons) -> list[Object]:
    """What the entries of others still own after somebody changed an object. Unchanged ones are the same as before."""
    kept: list[Object] = []
    for entry in entries:
        changed = comparisons.of(entry.get("apiVersion") or "")
        if changed is None:
            continue
        theirs = fields(entry)
        rest = field_set.difference(field_set.difference(theirs, changed.written()), changed.removed)
        if rest is theirs:
            kept.append(entry)
        elif rest:
            kept.append({**entry, "fieldsV1": rest})
    return kept


def record_update(
    node: Node,
    old: Object | None,
    new: Object,
    *,
    manager: str,
    api_version: str,
    time: str,
    subresource: str = "",
) -> None:
    """Set `new["metadata"]["managedFields"]` for a create (`old` is None), an update or a patch.

    The writer becomes the owner of what it added or changed; whoever owned that, or what went, owns it no more.
    `time` is the moment of the write as `metav1.Time`. Entries that did not change are shared with `old`. An object
    whose managers were reset is not followed until somebody applies it.
    """
    entries = base_entries(old, new, subresource)
    if not entries and old is not None:
        new["metadata"].pop("managedFields", None)
        return
    comparisons = Comparisons(node, old or {}, new, api_version, new.get("kind") or "", subresource)
    if comparisons.own.same:
        store_entries(new, entries)
        return
    kept = left(entries, comparisons)
    written = comparisons.own.written()
    if written:
        me = Manager(manager, "Update", api_version, subresource)
        mine = next((i for i, e in enumerate(kept) if me.is_of(e)), None)
        if mine is not None:
            written = field_set.union(fields(kept.pop(mine)), written)
        kept.append(me.entry(written, time))
    store_entries(new, _capped(kept) if len(kept) > MAX_UPDATE_MANAGERS else kept)


def _capped(entries: list[Object]) -> list[Object]:
    """At most ten entries of updates: the oldest of each version become one, as long as there are more."""
    updates = sorted((e for e in entries if e.get("operation") == "Update"), key=_age)
    count = len(updates)
    together: dict[str, list[Object]] = {}
    for entry in updates:
        if count <= MAX_UPDATE_MANAGERS:
            break
        version = entry.get("apiVersion") or ""
        if version not in together:
            # One that has this name already takes in the others, however young it is.
            me = Manager(ANCIENT, "Update", version)
            together[version] = [next((e for e in updates if me.is_of(e)), entry)]
            if together[version][0] is entry:
                continue
        if entry is not together[version][0]:
            together[version].append(entry)
            count -= 1
    gone = {id(e) for merged in together.values() if len(merged) > 1 for e in merged}
    out = [e for e in entries if id(e) not in gone]
    for version, merged in together.items():
        if len(merged) > 1:
            # The time of what came into it last: it is the more recent.
            time = merged[-1].get("time") or ""
            out.append(
                Manager(ANCIENT, "Update", version).entry(_union_of([fields(e) for e in merged]), time)
            )
    return out


def _union_of(sets: list[Fields]) -> Fields:
    """The members of all sets, joined pair by pair: a set that grows one by one is copied each time."""
    while len(sets) > 1:
        pairs = zip(sets[::2], sets[1::2], strict=False)
        sets = [field_set.union(a, b) for a, b in pairs] + (sets[-1:] if len(sets) % 2 else [])
    return sets[0]


def _age(entry: Object) -> tuple[str, str, str, str]:
    return (
        entry.get("time") or "",
        entry.get("manager") or "",
        entry.get("apiVersion") or "",
        entry.get("subresource") or "",
    )
