"""Facts about a pod that several controllers decide by."""

from __future__ import annotations

from typing import Any

from sampan.api.errors import Object
from sampan.api.objects import condition, parse_time


def active(pod: Object) -> bool:
    """Not over, and not on its way out."""
    return not finished(pod) and not pod["metadata"].get("deletionTimestamp")


def finished(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def ready_since(pod: Object) -> float | None:
    """Seconds since the epoch at which the pod became ready; None while it is not."""
    found = condition(pod, "Ready")
    if found is None or found.get("status") != "True":
        return None
    since = found.get("lastTransitionTime")
    return parse_time(since) if since else 0.0


def available_in(pod: Object, min_ready_seconds: int, now: float) -> float | None:
    """Seconds until the pod counts as available: 0 if it does, None while it is not ready."""
    since = ready_since(pod)
    if since is None:
        return None
    return max(0.0, since + min_ready_seconds - now) if min_ready_seconds else 0.0


def restarts(pod: Object) -> int:
    statuses: list[Any] = (pod.get("status") or {}).get("containerStatuses") or []
    return max((int(s.get("restartCount") or 0) for s in statuses), default=0)
