"""Whether what is stored are objects: each under the key that its name asks for, in a form that can be read."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sampan.api.resources import stored
from sampan.apiserver.records import ROOT, from_json, key_of, opening
from sampan.store.types import Entry

_SEALED = b"k8s:enc:"
_BESIDE = (ROOT + "ranges/", ROOT + "masterleases/")


def problems(entries: Iterable[Entry]) -> list[str]:
    """What is wrong with stored values, one line each. Sealed ones are not looked into."""
    rows = {r.storage_path: r for r in stored()}
    found = []
    for entry in entries:
        key, value = entry.key, entry.value
        if not key.startswith(ROOT) or key.startswith(_BESIDE) or value.startswith(_SEALED):
            continue
        parts = key.split("/")
        row = rows.get(parts[2]) or rows.get("/".join(parts[2:4]))
        if row is None:
            found.append(f"{key}: no resource keeps its objects there")
            continue
        try:
            obj = from_json(value)
            metadata = obj["metadata"]
            wanted = key_of(row.storage_path, metadata.get("namespace") or "", metadata["name"])
        except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as e:
            found.append(f"{key}: not an object ({e})")
            continue
        if not value.startswith(opening(row)):
            found.append(f"{key}: not a {row.kind} of {row.api_version}")
        elif wanted != key:
            found.append(f"{key}: the object in it belongs at {wanted}")
        elif not metadata.get("uid"):
            found.append(f"{key}: the object has no uid")
    return found
