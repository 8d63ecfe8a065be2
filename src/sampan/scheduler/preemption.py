"""Making room: which pods of lower priority would have to leave which node for a pod that fits nowhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sampan.api.objects import condition, parse_time
from sampan.scheduler.cache import NodeInfo, PodInfo
from sampan.scheduler.diagnosis import NO_VICTIMS, NOT_HELPFUL, Diagnosis, histogram

REASON = "PreemptionByScheduler"

Fits = Callable[[NodeInfo, Mapping[str, NodeInfo]], bool]
"""Whether the pod could go to a node in a state of all nodes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The pods that leave `node`, the most important first."""

    node: str
    victims: tuple[PodInfo, ...]


def refusal(pod: PodInfo, nodes: Mapping[str, NodeInfo]) -> str:
    """Why the pod may not have others leave, or "" if it may."""
    if pod.spec.get("preemptionPolicy") == "Never":
        return "not eligible due to preemptionPolicy=Never."
    nominated = nodes.get((pod.obj.get("status") or {}).get("nominatedNodeName") or "")
    if nominated is not None and any(
        other.priority < pod.priority and other.terminating and _preempted(other)
        for other in nominated.pods.values()
    ):
        return "not eligible due to a terminating pod on the nominated node."
    return ""


def _preempted(pod: PodInfo) -> bool:
    found = condition(pod.obj, "DisruptionTarget")
    return found is not None and found.get("status") == "True" and found.get("reason") == REASON


def plan(pod: PodInfo, nodes: Mapping[str, NodeInfo], diagnosis: Diagnosis, fits: Fits) -> Plan | str:
    """The plan that hurts least, or (as text for the message) why there is none."""
    found: list[Plan] = []
    reasons: list[str] = []
    for name, rejection in diagnosis.rejections.items():
        victims = None if rejection.final else _victims(pod, nodes[name], nodes, fits)
        if victims:
            found.append(Plan(name, victims))
        else:
            reasons.append(NOT_HELPFUL if rejection.final else NO_VICTIMS)
    if not found:
        return histogram(len(reasons), reasons)
    return min(found, key=_pain)


def _victims(
    pod: PodInfo, node: NodeInfo, nodes: Mapping[str, NodeInfo], fits: Fits
) -> tuple[PodInfo, ...] | None:
    """The fewest pods of lower priority without which `pod` fits, or None if it never does."""
    tried = node.copy()
    state = {**nodes, node.name: tried}
    lower = sorted((p for p in node.pods.values() if p.priority < pod.priority), key=importance)
    if not lower:
        return None
    for other in lower:
        tried.remove(other)
    if not fits(tried, state):
        return None
    victims = []
    for other in lower:  # the most important is the first to be allowed to stay
        tried.add(other)
        if not fits(tried, state):
            tried.remove(other)
            victims.append(other)
    return tuple(victims)


def importance(pod: PodInfo) -> tuple[int, float]:
    """A sort key: the most important first (higher priority, then longer running)."""
    started = (pod.obj.get("status") or {}).get("startTime") or pod.obj["metadata"]["creationTimestamp"]
    return -pod.priority, parse_time(started)


def _pain(made: Plan) -> tuple[int, int, int, float]:
    first = made.victims[0]
    # Priorities are counted from the lowest there is: otherwise a few important pods of negative priority would weigh
    # less than none.
    total = sum(v.priority + 2**31 for v in made.victims)
    return first.priority, total, len(made.victims), -importance(first)[1]
