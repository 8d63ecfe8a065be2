"""Whether a pod's tolerations are about a node's taints."""

from __future__ import annotations

from collections.abc import Iterable

from sampan.api.errors import Object


def tolerates(toleration: Object, taint: Object) -> bool:
    """Whether one toleration is about one taint. No key (with Exists) is about every taint, no effect about each."""
    effect, key = toleration.get("effect"), toleration.get("key")
    if effect and effect != taint.get("effect"):
        return False
    if key and key != taint.get("key"):
        return False
    if toleration.get("operator") == "Exists":
        return True
    return bool(key) and (toleration.get("value") or "") == (taint.get("value") or "")


def tolerated(tolerations: Iterable[Object], taint: Object) -> bool:
    """Whether any of a pod's tolerations is about the taint."""
    return any(tolerates(t, taint) for t in tolerations)
