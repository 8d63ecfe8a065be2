"""Names, numbers and simple questions about Deployments and their ReplicaSets."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from sampan.api.errors import Object
from sampan.api.strategy import same

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"
HASH_LABEL = "pod-template-hash"
UNLIMITED = 2**31 - 1
_SAFE = "bcdfghjklmnpqrstvwxz2456789"


def replicas(obj: Object) -> int:
    """How many are asked for."""
    count = obj["spec"].get("replicas")
    return 1 if count is None else int(count)


def counted(obj: Object, field: str) -> int:
    """A number of the status."""
    return int((obj.get("status") or {}).get(field) or 0)


def total_replicas(sets: Iterable[Object]) -> int:
    return sum(replicas(s) for s in sets)


def total_counted(sets: Iterable[Object], field: str) -> int:
    return sum(counted(s, field) for s in sets)


def active(sets: Iterable[Object]) -> list[Object]:
    """Those that are to have pods."""
    return [s for s in sets if replicas(s) > 0]


def annotation(obj: Object, name: str) -> str:
    return str((obj["metadata"].get("annotations") or {}).get(name) or "")


def number_annotation(obj: Object, name: str) -> int | None:
    try:
        return int(annotation(obj, name))
    except ValueError:
        return None


def revision(obj: Object) -> int:
    return number_annotation(obj, REVISION) or 0


def by_age(sets: Iterable[Object]) -> list[Object]:
    """Oldest first."""
    return sorted(sets, key=lambda s: (s["metadata"]["creationTimestamp"], s["metadata"]["name"]))


def rolling(deployment: Object) -> bool:
    return (deployment["spec"].get("strategy") or {}).get("type") != "Recreate"


def paused(deployment: Object) -> bool:
    return bool(deployment["spec"].get("paused"))


def _fenceposts(deployment: Object) -> tuple[int, int]:
    given = (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    total = replicas(deployment)
    surge = _resolve(given.get("maxSurge", "25%"), total, up=True)
    unavailable = _resolve(given.get("maxUnavailable", "25%"), total, up=False)
    if surge == 0 and unavailable == 0:
        # Percentages that both round to none would never get anywhere.
        unavailable = 1
    return surge, unavailable


def _resolve(amount: int | str, total: int, *, up: bool) -> int:
    if isinstance(amount, int):
        return amount
    percent = int(amount.rstrip("%")) * total
    return -(-percent // 100) if up else percent // 100


def max_surge(deployment: Object) -> int:
    """How many pods there may be beyond what is asked for."""
    return _fenceposts(deployment)[0] if rolling(deployment) else 0


def max_unavailable(deployment: Object) -> int:
    """How many of the pods asked for may be missing."""
    total = replicas(deployment)
    if not rolling(deployment) or total == 0:
        return 0
    return min(_fenceposts(deployment)[1], total)


def deadline(deployment: Object) -> int | None:
    """Seconds within which progress must show, or None where nobody asks."""
    seconds = deployment["spec"].get("progressDeadlineSeconds")
    return None if seconds is None or seconds == UNLIMITED else int(seconds)


def same_template(a: Object, b: Object) -> bool:
    """Whether two pod templates differ in nothing but the hash label."""
    return same(_without_hash(a), _without_hash(b))


def _without_hash(template: Object) -> Object:
    meta = {k: v for k, v in (template.get("metadata") or {}).items() if v}
    labels = {k: v for k, v in (meta.get("labels") or {}).items() if k != HASH_LABEL}
    return {**template, "metadata": {**meta, "labels": labels}}


def template_hash(template: Object, collisions: int | None) -> str:
    """A short name for a template: FNV-1a of its canonical form and of how often that has clashed."""
    text = json.dumps(_without_hash(template), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    value = 0x811C9DC5
    for byte in text.encode() + (collisions.to_bytes(4, "little") if collisions is not None else b""):
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return "".join(_SAFE[byte % len(_SAFE)] for byte in str(value).encode())


def saturated(deployment: Object, replica_set: Object | None) -> bool:
    """Whether a ReplicaSet is all that the Deployment asks for, and available."""
    if replica_set is None:
        return False
    wanted = replicas(deployment)
    return (
        number_annotation(replica_set, DESIRED_REPLICAS) == wanted
        and replicas(replica_set) == wanted
        and counted(replica_set, "availableReplicas") == wanted
    )


def active_or_latest(new: Object | None, old: Sequence[Object]) -> Object | None:
    """The one ReplicaSet that has pods, or, where none has, the newest; None where several have."""
    having = active([*old, *([new] if new is not None else [])])
    if len(having) == 1:
        return having[0]
    if having:
        return None
    if new is not None:
        return new
    return by_age(old)[-1] if old else None
