"""How far a Deployment is: counts and the conditions Available, Progressing and ReplicaFailure.

Upstream: `pkg/controller/deployment/{sync,progress}.go`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from sampan.api.errors import Object
from sampan.api.objects import condition, format_time, parse_time
from sampan.controllers.deployment import facts

_COUNTS = ("replicas", "readyReplicas", "availableReplicas")


def set_condition(status: Object, type_: str, value: str, reason: str, message: str) -> None:
    """Put a condition into a status. One with the same status and reason is left as it was."""
    conditions = list(status.get("conditions") or ())
    present = next((c for c in conditions if c["type"] == type_), None)
    if present is not None and present["status"] == value and present.get("reason") == reason:
        return
    current = format_time(time.time())
    made = {
        "type": type_,
        "status": value,
        "lastUpdateTime": current,
        "lastTransitionTime": current,
        "reason": reason,
        "message": message,
    }
    if present is not None and present["status"] == value:
        made["lastTransitionTime"] = present.get("lastTransitionTime", current)
    status["conditions"] = [*(c for c in conditions if c["type"] != type_), made]


def drop_condition(status: Object, type_: str) -> None:
    kept = [c for c in status.get("conditions") or () if c["type"] != type_]
    if kept:
        status["conditions"] = kept
    else:
        status.pop("conditions", None)


def counted(deployment: Object, new: Object | None, sets: Sequence[Object]) -> Object:
    """The status as its ReplicaSets tell it, with the conditions it had and a fresh Available."""
    available = facts.total_counted(sets, "availableReplicas")
    status: Object = {field: facts.total_counted(sets, field) for field in _COUNTS}
    status["observedGeneration"] = deployment["metadata"].get("generation", 0)
    status["updatedReplicas"] = facts.counted(new, "replicas") if new is not None else 0
    status["unavailableReplicas"] = max(0, facts.total_replicas(sets) - available)
    status = {k: v for k, v in status.items() if v}
    before = deployment.get("status") or {}
    if before.get("collisionCount") is not None:
        status["collisionCount"] = before["collisionCount"]
    status["terminatingReplicas"] = facts.total_counted(sets, "terminatingReplicas")
    if before.get("conditions"):
        status["conditions"] = list(before["conditions"])
    if available >= facts.replicas(deployment) - facts.max_unavailable(deployment):
        set_condition(
            status, "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability."
        )
    else:
        set_condition(
            status,
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    return status


def complete(deployment: Object, status: Object) -> bool:
    """Whether every pod is of the newest template and available."""
    wanted = facts.replicas(deployment)
    return all(
        int(status.get(f) or 0) == wanted for f in ("updatedReplicas", "replicas", "availableReplicas")
    ) and status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)


def progressing(before: Object, status: Object) -> bool:
    """Whether a status is nearer to the goal than the one before."""

    def number(of: Object, field: str) -> int:
        return int(of.get(field) or 0)

    def outdated(of: Object) -> int:
        return number(of, "replicas") - number(of, "updatedReplicas")

    return outdated(status) < outdated(before) or any(
        number(status, f) > number(before, f)
        for f in ("updatedReplicas", "readyReplicas", "availableReplicas")
    )


def timed_out(deployment: Object, status: Object) -> bool:
    """Whether progress has been missing for longer than the deadline."""
    seconds = facts.deadline(deployment)
    found = condition({"status": status}, "Progressing")
    if seconds is None or found is None or found.get("reason") == "NewReplicaSetAvailable":
        return False
    if found.get("reason") == "ProgressDeadlineExceeded":
        return True
    return parse_time(found["lastUpdateTime"]) + seconds < time.time()


def of_rollout(deployment: Object, new: Object | None, sets: Sequence[Object]) -> Object:
    """The status during and after a rollout, with its progress."""
    status = counted(deployment, new, sets)
    before = deployment.get("status") or {}
    if facts.deadline(deployment) is None:
        drop_condition(status, "Progressing")
    else:
        present = condition(deployment, "Progressing")
        at_rest = (
            present is not None
            and present.get("reason") == "NewReplicaSetAvailable"
            and int(status.get("replicas") or 0) == int(status.get("updatedReplicas") or 0)
        )
        if not at_rest:
            _progress(deployment, new, before, status, present)
    failure = _failure(new, sets)
    if failure is None:
        drop_condition(status, "ReplicaFailure")
    else:
        set_condition(status, "ReplicaFailure", failure["status"], failure["reason"], failure["message"])
    return status


def _progress(
    deployment: Object, new: Object | None, before: Object, status: Object, present: Object | None
) -> None:
    what = (
        f'ReplicaSet "{new["metadata"]["name"]}"'
        if new is not None
        else f'Deployment "{deployment["metadata"]["name"]}"'
    )
    if complete(deployment, status):
        set_condition(
            status, "Progressing", "True", "NewReplicaSetAvailable", f"{what} has successfully progressed."
        )
    elif progressing(before, status):
        # Progress renews the deadline even where status and reason stay the same.
        since = present.get("lastTransitionTime") if present and present.get("status") == "True" else None
        drop_condition(status, "Progressing")
        set_condition(status, "Progressing", "True", "ReplicaSetUpdated", f"{what} is progressing.")
        if since is not None:
            status["conditions"][-1]["lastTransitionTime"] = since
    elif timed_out(deployment, status):
        set_condition(
            status, "Progressing", "False", "ProgressDeadlineExceeded", f"{what} has timed out progressing."
        )


def _failure(new: Object | None, sets: Sequence[Object]) -> Object | None:
    for replica_set in ([new] if new is not None else []) + list(sets):
        found = condition(replica_set, "ReplicaFailure")
        if found is not None:
            return found
    return None


def until_deadline(deployment: Object, status: Object) -> float | None:
    """Seconds until missing progress must be reported, None where it need not."""
    seconds = facts.deadline(deployment)
    found = condition({"status": status}, "Progressing")
    if seconds is None or found is None:
        return None
    if found.get("reason") == "ProgressDeadlineExceeded" or complete(deployment, status):
        return None
    return max(0.0, parse_time(found["lastUpdateTime"]) + seconds - time.time()) + 1.0
