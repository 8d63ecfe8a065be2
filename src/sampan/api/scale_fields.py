"""The managers of `spec.replicas` between an object and its scale.

A scale has no managers of its own: those of the object who own its replicas are shown as the scale's, and what
becomes of them there is carried back. Upstream: `managedfields.ScaleHandler`.
"""

from __future__ import annotations

from collections.abc import Iterable

from sampan.api import field_set
from sampan.api.errors import Object
from sampan.api.field_set import LEAF, Fields
from sampan.api.managed_fields import Manager, fields

REPLICAS: Fields = {"f:spec": {"f:replicas": LEAF}}
"""The path in the object and in its scale alike."""


def to_scale(entries: Iterable[Object], scale_version: str) -> list[Object]:
    """The entries of an object's managers that own its replicas, as those of its scale."""
    return [
        {**e, "apiVersion": scale_version, "fieldsV1": REPLICAS}
        for e in entries
        if field_set.intersection(fields(e), REPLICAS)
    ]


def to_parent(entries: Iterable[Object], scale_entries: Iterable[Object], api_version: str) -> list[Object]:
    """The entries of an object after its scale was written: who lost the replicas there loses them here, who is new
    there is new here. `api_version` is that of the object in the request."""
    owners = [e for e in scale_entries if field_set.intersection(fields(e), REPLICAS)]
    out: list[Object] = []
    for entry in entries:
        theirs = fields(entry)
        if not field_set.intersection(theirs, REPLICAS):
            out.append(entry)
            continue
        me = Manager.of(entry)
        still = next((e for e in owners if _same(me, Manager.of(e))), None)
        if still is not None:
            owners.remove(still)
            out.append(
                {**entry, "time": still.get("time")} if theirs == REPLICAS and still.get("time") else entry
            )
        elif rest := field_set.difference(theirs, REPLICAS):
            out.append({**entry, "fieldsV1": rest})
    out += [{**e, "apiVersion": api_version, "fieldsV1": REPLICAS} for e in owners]
    return out


def _same(a: Manager, b: Manager) -> bool:
    return (a.name, a.operation, a.subresource) == (b.name, b.operation, b.subresource)
