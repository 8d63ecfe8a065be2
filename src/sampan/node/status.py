"""What a pod's status says, computed from what runs. A pure function; `status_writer` sends it.

Upstream: `pkg/kubelet/status/generate.go` and `kubelet_pods.go` (generateAPIPodStatus, getPhase).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sampan.api.errors import Object
from sampan.api.objects import format_time, now
from sampan.node import pods
from sampan.node.cgroups import qos_class
from sampan.node.runtime.types import ContainerState, ContainerStatus

CONTAINER_ID_PREFIX = "sampan://"
IMAGE_NAME = "sampan.dev/image-name"
"""Annotation of a container in the runtime: the image as the status shows it."""
IMAGE_ID = "sampan.dev/image-id"

CONDITIONS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a container does not run (yet)."""

    reason: str
    message: str = ""


@dataclass(slots=True)
class PodView:
    """What is known of a pod on this node. `containers` holds, by name, the runtime's records, newest first."""

    host_ips: tuple[str, ...]
    sandbox_ready: bool = False
    ips: tuple[str, ...] = ()
    containers: Mapping[str, Sequence[ContainerStatus]] = field(default_factory=dict)
    waiting: Mapping[str, Waiting] = field(default_factory=dict)
    started: Mapping[str, bool] = field(default_factory=dict)
    ready: Mapping[str, bool] = field(default_factory=dict)
    messages: Mapping[str, str] = field(default_factory=dict)
    """Termination messages by container id."""
    start_time: str = ""
    failed: Waiting | None = None
    """The pod as a whole was failed by this node (deadline, ...)."""
    terminated: bool = False
    """Nothing of the pod runs any more, and nothing will."""


def pod_status(pod: Object, view: PodView) -> Object:
    """The whole status of a pod, with the transition times of `pod`'s own where nothing changed."""
    old = pod.get("status") or {}
    inits = [_container_status(pod, c, view, init=True) for c in pods.init_containers(pod)]
    mains = [_container_status(pod, c, view) for c in pods.containers(pod)]
    ephemeral = [_container_status(pod, c, view) for c in pods.ephemeral_containers(pod)]
    phase = "Failed" if view.failed else _phase(pod, inits, mains, view)
    if old.get("phase") in pods.TERMINAL:
        phase = old["phase"]
    status: dict[str, Any] = {"phase": phase}
    generation = pod["metadata"].get("generation")
    if generation:
        status["observedGeneration"] = generation
    if view.failed:
        status["reason"] = view.failed.reason
        status["message"] = view.failed.message
    else:
        for name in ("reason", "message"):
            if old.get(name):
                status[name] = old[name]
    status["conditions"] = _conditions(pod, old, phase, inits, mains, view)
    status["hostIP"] = view.host_ips[0]
    status["hostIPs"] = [{"ip": ip} for ip in view.host_ips]
    if view.ips:
        status["podIP"] = view.ips[0]
        status["podIPs"] = [{"ip": ip} for ip in view.ips]
    status["startTime"] = old.get("startTime") or view.start_time or now()
    status["qosClass"] = qos_class(pod)
    if inits:
        status["initContainerStatuses"] = inits
    status["containerStatuses"] = mains
    if ephemeral:
        status["ephemeralContainerStatuses"] = ephemeral
    return status


def terminated_state(record: ContainerStatus, message: str) -> Object:
    """`state.terminated` of a container that ended."""
    out: dict[str, Any] = {
        "exitCode": record.exit_code,
        "reason": record.reason or ("Error" if record.exit_code else "Completed"),
        "startedAt": format_time(record.started_at) if record.started_at else None,
        "finishedAt": format_time(record.finished_at) if record.finished_at else None,
        "containerID": CONTAINER_ID_PREFIX + record.id,
    }
    if message:
        out["message"] = message
    return {k: v for k, v in out.items() if v is not None}


def _container_status(pod: Object, container: Object, view: PodView, *, init: bool = False) -> Object:
    name = container["name"]
    records = view.containers.get(name) or ()
    newest = records[0] if records else None
    if newest is None and view.terminated:
        told = _ended_before(pod, name)
        if told is not None:
            return told
    waiting = view.waiting.get(name)
    out: dict[str, Any] = {
        "name": name,
        "state": {},
        "lastState": {},
        "ready": False,
        "restartCount": newest.attempt if newest else 0,
        "image": container.get("image", ""),
        "imageID": "",
        "started": False,
    }
    ended = [r for r in records if r.state is ContainerState.EXITED]
    if newest is not None:
        out["image"] = newest.annotations.get(IMAGE_NAME) or newest.image or out["image"]
        out["imageID"] = newest.annotations.get(IMAGE_ID) or newest.image_id
        out["containerID"] = CONTAINER_ID_PREFIX + newest.id
    if newest is not None and newest.state is ContainerState.RUNNING:
        out["state"] = {"running": {"startedAt": format_time(newest.started_at)}}
        out["started"] = view.started.get(name, False)
        out["ready"] = view.ready.get(name, False) if not init or pods.is_sidecar(container) else False
        last = ended[0] if ended else None
    elif newest is not None and newest.state is ContainerState.EXITED and waiting is None:
        out["state"] = {"terminated": terminated_state(newest, _message(newest, view))}
        out["ready"] = init and newest.exit_code == 0 and not pods.is_sidecar(container)
        last = ended[1] if len(ended) > 1 else None
    elif view.terminated and newest is None:
        gone = "The container could not be located when the pod was terminated"
        out["state"] = {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown", "message": gone}}
        last = None
    else:
        if waiting is None:
            initializing = not init and pods.init_containers(pod)
            waiting = Waiting("PodInitializing" if initializing else "ContainerCreating")
        out["state"] = {"waiting": {"reason": waiting.reason}}
        if waiting.message:
            out["state"]["waiting"]["message"] = waiting.message
        last = ended[0] if ended else None
    if last is not None:
        out["lastState"] = {"terminated": terminated_state(last, _message(last, view))}
    if container.get("resources") and newest is not None:
        out["resources"] = container["resources"]
    return out


def _ended_before(pod: Object, name: str) -> Object | None:
    """What the status says of a container that has ended and that the runtime has forgotten since."""
    status = pod.get("status") or {}
    for group in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for told in status.get(group) or ():
            if told["name"] == name and "terminated" in (told.get("state") or {}):
                return told  # type: ignore[no-any-return]
    return None


def _message(record: ContainerStatus, view: PodView) -> str:
    return view.messages.get(record.id) or record.message


def _exit_code(status: Object) -> int | None:
    """The exit code that counts: of the present state, or of the last one for a container that waits."""
    state = status["state"].get("terminated")
    if state is None and "waiting" in status["state"]:
        state = status["lastState"].get("terminated")
    return None if state is None else int(state["exitCode"])


def _phase(pod: Object, inits: Sequence[Object], mains: Sequence[Object], view: PodView) -> str:
    pending_init, failed_for_good, pending_sidecars = 0, 0, 0
    running = waiting = stopped = stopped_for_good = succeeded = 0
    for spec, status in zip(pods.init_containers(pod), inits, strict=True):
        code = _exit_code(status)
        if pods.is_sidecar(spec):
            if "running" in status["state"]:
                running += 1
                pending_sidecars += not status["started"]
            elif "waiting" in status["state"] and code is None:
                pending_sidecars += 1
                waiting += 1
        elif "running" in status["state"] or code is None:
            pending_init += 1
        elif code != 0 and not pods.should_restart(pod, spec, code, init=True):
            failed_for_good += 1
    initialized = any(_was_started(s) for s in mains)
    for spec, status in zip(pods.containers(pod), mains, strict=True):
        code = _exit_code(status)
        if "running" in status["state"]:
            running += 1
        elif code is None:
            waiting += 1
        else:
            stopped += 1
            succeeded += code == 0
            stopped_for_good += not pods.should_restart(pod, spec, code)
    if failed_for_good:
        return "Failed"
    if view.terminated and stopped + waiting == len(mains):
        return "Succeeded" if stopped == succeeded and not waiting else "Failed"
    if pending_init or (pending_sidecars and not initialized) or waiting:
        return "Pending"
    if running:
        return "Running"
    if stopped != stopped_for_good:
        return "Running"
    if stopped:
        return "Succeeded" if stopped == succeeded else "Failed"
    return "Pending"


def _was_started(status: Object) -> bool:
    return "running" in status["state"] or _exit_code(status) is not None


def _conditions(
    pod: Object, old: Object, phase: str, inits: Sequence[Object], mains: Sequence[Object], view: PodView
) -> list[Object]:
    previous = {c["type"]: c for c in old.get("conditions") or ()}
    containers_ready = _containers_ready(pod, phase, inits, mains)
    wanted = {
        "PodReadyToStartContainers": (view.sandbox_ready, "", ""),
        "Initialized": _initialized(pod, phase, inits, mains),
        "Ready": _pod_ready(pod, containers_ready, previous),
        "ContainersReady": containers_ready,
        "PodScheduled": (True, "", ""),
    }
    generation = pod["metadata"].get("generation")
    out = []
    for type_ in CONDITIONS:
        true, reason, message = wanted[type_]
        status = "True" if true else "False"
        before = previous.get(type_) or {}
        condition: dict[str, Any] = {
            "type": type_,
            "status": status,
            "lastProbeTime": None,
            "lastTransitionTime": before.get("lastTransitionTime")
            if before.get("status") == status and before.get("lastTransitionTime")
            else now(),
        }
        if generation:
            condition["observedGeneration"] = generation
        for key, value in (("reason", reason), ("message", message)):
            if value:
                condition[key] = value
            elif before.get(key):
                condition[key] = None
        out.append(condition)
    return out


def _listed(names: Sequence[str]) -> str:
    return "[" + " ".join(names) + "]"


def _containers_ready(
    pod: Object, phase: str, inits: Sequence[Object], mains: Sequence[Object]
) -> tuple[bool, str, str]:
    if phase == "Succeeded":
        return False, "PodCompleted", ""
    if phase == "Failed":
        return False, "PodFailed", ""
    sidecars = {c["name"] for c in pods.init_containers(pod) if pods.is_sidecar(c)}
    watched = [s for s in inits if s["name"] in sidecars] + list(mains)
    unready = [s["name"] for s in watched if not s["ready"]]
    if unready:
        return False, "ContainersNotReady", f"containers with unready status: {_listed(unready)}"
    return True, "", ""


def _pod_ready(
    pod: Object, containers_ready: tuple[bool, str, str], previous: Mapping[str, Object]
) -> tuple[bool, str, str]:
    if not containers_ready[0]:
        return containers_ready
    problems = []
    for gate in pod["spec"].get("readinessGates") or ():
        type_ = gate["conditionType"]
        condition = previous.get(type_)
        if condition is None:
            problems.append(f'corresponding condition of pod readiness gate "{type_}" does not exist.')
        elif condition["status"] != "True":
            problems.append(
                f'the status of pod readiness gate "{type_}" is not "True", but {condition["status"]}'
            )
    if problems:
        return False, "ReadinessGatesNotReady", ", ".join(problems)
    return True, "", ""


def _initialized(
    pod: Object, phase: str, inits: Sequence[Object], mains: Sequence[Object]
) -> tuple[bool, str, str]:
    if phase == "Succeeded":
        return True, "PodCompleted", ""
    if any(_was_started(s) for s in mains):
        return True, "", ""
    incomplete = [
        status["name"]
        for spec, status in zip(pods.init_containers(pod), inits, strict=True)
        if not (status["started"] if pods.is_sidecar(spec) else status["ready"])
    ]
    if incomplete:
        return False, "ContainersNotInitialized", f"containers with incomplete status: {_listed(incomplete)}"
    return True, "", ""
