"""Facts about a pod that several controllers decide by, and the note that it is to go."""

from __future__ import annotations

from typing import Any

from sampan.api.errors import Object, StatusError
from sampan.api.objects import condition, now, parse_time
from sampan.api.resources import PODS
from sampan.client.types import STRATEGIC_MERGE_PATCH, Client


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


async def disrupt(client: Client, pod: Object, reason: str, message: str, *, fail: bool = False) -> None:
    """Note in a pod that it is to go for the cluster's reasons (and, with `fail`, that it has failed). One that is gone
    already is fine."""
    meta = pod["metadata"]
    made = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": now(),
    }
    status: Object = {"conditions": [made]}
    if fail:
        status["phase"] = "Failed"
    patch = {"metadata": {"uid": meta["uid"]}, "status": status}
    try:
        await client.patch(
            PODS,
            meta["namespace"],
            meta["name"],
            patch,
            content_type=STRATEGIC_MERGE_PATCH,
            subresource="status",
        )
    except StatusError as e:
        if e.code not in (404, 409):
            raise
