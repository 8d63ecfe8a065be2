"""Which of several classes is the default one. Upstream: `pkg/volume/util` and the plugins that ask."""

from __future__ import annotations

from collections.abc import Iterable

from sampan.api.errors import Object


def default_class(classes: Iterable[Object], *annotations: str) -> str | None:
    """The name of the class that one of these annotations makes the default: of several the newest, and of equally
    new ones the first by name. None if there is none."""
    found = [
        c["metadata"]
        for c in classes
        if any((c["metadata"].get("annotations") or {}).get(a) == "true" for a in annotations)
    ]
    if not found:
        return None
    newest = max(m.get("creationTimestamp") or "" for m in found)
    return str(min(m["name"] for m in found if (m.get("creationTimestamp") or "") == newest))
