"""From client-side to server-side apply: the annotation in which `kubectl apply` keeps what it applied last.

What that configuration says is the applier's own, whoever is noted as its manager; so `kubectl apply --server-side` takes
it without a conflict, and keeps the annotation up to date for those who go back. Upstream:
`managedfields/internal/{lastappliedmanager,lastappliedupdater}.go`.
"""

from __future__ import annotations

import json
from typing import Any

from sampan.api import comparison, decoding, field_set, typed
from sampan.api.errors import Object, StatusError
from sampan.api.field_set import Fields
from sampan.api.schema import Node

ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"
MANAGER = "kubectl"
"""The field manager for which this is done; with another name one opts out."""
_MOST_BYTES = 256 * 1024
"""Of all annotations of an object together."""


def allowed_conflicts(node: Node, live: Object, live_kind: tuple[str, str]) -> Fields:
    """The fields that client-side apply set and that still are as it set them. `live_kind`: apiVersion and kind."""
    text = (live["metadata"].get("annotations") or {}).get(ANNOTATION)
    if not text:
        return {}
    try:
        last = json.loads(text)
        if not isinstance(last, dict) or (last.get("apiVersion"), last.get("kind")) != live_kind:
            return {}
        decoding.check(node, last)
    except (ValueError, RecursionError, StatusError):
        return {}
    # Compared with the live object as if it had been there first: what differs or is gone was somebody else's doing.
    changed = comparison.compare(node, last, live, skip={"status": None})
    fields = typed.fields_of(node, last) or {}
    for gone in (changed.modified, changed.added, changed.removed):
        fields = field_set.difference(fields, gone)
    return fields


def follow(applied: Object, out: Any) -> None:
    """Note an applied configuration in the annotation of the object (ours to change), where it has one."""
    annotations = out["metadata"].get("annotations") or {}
    if ANNOTATION not in annotations:
        return
    noted = dict(applied)
    metadata = {**applied["metadata"]}
    if metadata.get("annotations") is not None:
        metadata["annotations"] = {k: v for k, v in metadata["annotations"].items() if k != ANNOTATION}
    noted["metadata"] = metadata
    text = json.dumps(noted, ensure_ascii=False, separators=(",", ":"), sort_keys=True) + "\n"
    size = sum(len(k.encode()) + len(v.encode()) for k, v in annotations.items() if k != ANNOTATION)
    if size + len(ANNOTATION) + len(text.encode()) > _MOST_BYTES:
        text = ""
    out["metadata"]["annotations"] = {**annotations, ANNOTATION: text}
