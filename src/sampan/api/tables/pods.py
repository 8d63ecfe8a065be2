"""The table of Pods: one word for what a Pod is doing, from the states of its containers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sampan.api.errors import Object
from sampan.api.objects import condition, condition_true, parse_time
from sampan.api.tables.cells import AGE, NAME, NONE, Column, age, human_duration, name, section, wide

COLUMNS = (
    NAME,
    Column("Ready", description="How many of the containers are ready to serve."),
    Column("Status", description="What the containers are doing, in one word."),
    Column("Restarts", description="How often containers were restarted, and when last."),
    AGE,
    wide("IP", "The address of the pod."),
    wide("Node", "The node that the pod runs on."),
    wide("Nominated Node", "The node on which room is being made for the pod."),
    wide("Readiness Gates", "How many of the extra conditions for readiness hold."),
)
_COMPLETED = {
    "Succeeded": "The pod has completed successfully.",
    "Failed": "The pod failed.",
}


class _Restarts:
    """Counts restarts and remembers when the last container that was restarted had ended."""

    def __init__(self) -> None:
        self.count = 0
        self.last = 0.0

    def add(self, status: Mapping[str, Any]) -> None:
        self.count += status.get("restartCount") or 0
        finished = ((status.get("lastState") or {}).get("terminated") or {}).get("finishedAt")
        if finished:
            self.last = max(self.last, parse_time(finished))

    def text(self, now: float) -> str:
        if self.count and self.last:
            return f"{self.count} ({human_duration(now - self.last)} ago)"
        return str(self.count)


def _ended(terminated: Mapping[str, Any]) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode') or 0}"


def _initializing(
    statuses: Iterable[Mapping[str, Any]],
    sidecars: set[str],
    total: int,
    all_: _Restarts,
    of_sidecars: _Restarts,
) -> tuple[str, int]:
    """The word for the init container that the pod waits for ('' once all are through), and how many sidecars are
    ready."""
    ready = 0
    for index, status in enumerate(statuses):
        all_.add(status)
        sidecar = status.get("name") in sidecars
        if sidecar:
            of_sidecars.add(status)
        state = status.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting")
        if terminated is not None and not terminated.get("exitCode"):
            continue
        if sidecar and status.get("started"):
            ready += bool(status.get("ready"))
            continue
        if terminated is not None:
            return f"Init:{_ended(terminated)}", ready
        if waiting is not None and waiting.get("reason") not in (None, "", "PodInitializing"):
            return f"Init:{waiting['reason']}", ready
        return f"Init:{index}/{total}", ready
    return "", ready


def row(pod: Object, now: float) -> list[Any]:
    spec, status = section(pod, "spec"), section(pod, "status")
    phase = status.get("phase") or ""
    reason = status.get("reason") or phase
    scheduled = condition(pod, "PodScheduled")
    if scheduled is not None and scheduled.get("reason") == "SchedulingGated":
        reason = "SchedulingGated"
    init = spec.get("initContainers") or []
    sidecars = {c["name"] for c in init if c.get("restartPolicy") == "Always"}
    total = len(spec.get("containers") or ()) + len(sidecars)

    restarts, of_sidecars = _Restarts(), _Restarts()
    word, ready = _initializing(
        status.get("initContainerStatuses") or (), sidecars, len(init), restarts, of_sidecars
    )
    if word:
        reason = word
    if not word or condition_true(pod, "Initialized"):
        restarts = of_sidecars
        running = False
        for container in reversed(status.get("containerStatuses") or ()):
            restarts.add(container)
            state = container.get("state") or {}
            if (state.get("waiting") or {}).get("reason"):
                reason = state["waiting"]["reason"]
            elif state.get("terminated") is not None:
                reason = _ended(state["terminated"])
            elif container.get("ready") and state.get("running") is not None:
                running = True
                ready += 1
        if reason == "Completed" and running:
            reason = "Running" if condition_true(pod, "Ready") else "NotReady"
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif phase not in _COMPLETED:
            reason = "Terminating"

    addresses = status.get("podIPs") or ()
    gates = spec.get("readinessGates") or ()
    met = sum(condition_true(pod, g.get("conditionType", "")) for g in gates)
    return [
        name(pod),
        f"{ready}/{total}",
        reason,
        restarts.text(now),
        age(pod, now),
        (addresses[0].get("ip") if addresses else status.get("podIP")) or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        f"{met}/{len(gates)}" if gates else NONE,
    ]


def row_conditions(pod: Object) -> list[Object]:
    """Marks the row of a pod that has ended, so that clients can leave it out."""
    phase = section(pod, "status").get("phase")
    if phase not in _COMPLETED:
        return []
    return [{"type": "Completed", "status": "True", "reason": phase, "message": _COMPLETED[phase]}]
