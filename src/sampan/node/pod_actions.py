"""What is to be done for a pod's containers, from what the pod says and what runs. Pure functions.

Upstream: `computePodActions` and `computeInitContainerActions` in `kuberuntime_manager.go`.
"""

from __future__ import annotations

from collections.abc import Callable

from sampan.api.errors import Object
from sampan.node import pods
from sampan.node.runtime.types import ContainerState, ContainerStatus

Newest = Callable[[str], ContainerStatus | None]
"""The newest container of a name."""


def work_done(pod: Object, newest: Newest) -> bool:
    """Whether every main container has ended for good, or an init container failed for good."""
    for c in pods.init_containers(pod):
        record = newest(c["name"])
        if pods.is_sidecar(c) or record is None or record.state is not ContainerState.EXITED:
            continue
        if record.exit_code and not pods.should_restart(pod, c, record.exit_code, init=True):
            return True
    for c in pods.containers(pod):
        record = newest(c["name"])
        if record is None or record.state is not ContainerState.EXITED:
            return False
        if pods.should_restart(pod, c, record.exit_code):
            return False
    return True


def wanted(pod: Object, newest: Newest, started: Callable[[str], bool]) -> list[Object]:
    """The containers that should run now and do not: the next init container, or all main ones side by side.

    `started` says whether a sidecar runs and passed its startup probe. Pauses between restarts are the caller's.
    """
    out: list[Object] = []
    initialized = any(newest(c["name"]) for c in pods.containers(pod))
    for c in pods.init_containers(pod):
        record = newest(c["name"])
        running = record is not None and record.state is ContainerState.RUNNING
        if pods.is_sidecar(c):
            if not running and _is_due(pod, c, record):
                out.append(c)
            if not initialized and not (running and started(c["name"])):
                return out
        elif not initialized:
            if record is not None and record.state is ContainerState.EXITED and record.exit_code == 0:
                continue
            return out if running or not _is_due(pod, c, record, init=True) else [*out, c]
    out += [c for c in pods.containers(pod) if _is_due(pod, c, newest(c["name"]))]
    # An ephemeral container has one life.
    out += [c for c in pods.ephemeral_containers(pod) if newest(c["name"]) is None]
    return out


def _is_due(pod: Object, container: Object, record: ContainerStatus | None, *, init: bool = False) -> bool:
    if record is None or record.state is ContainerState.CREATED:
        return True
    if record.state is ContainerState.RUNNING:
        return False
    return pods.should_restart(pod, container, record.exit_code, init=init)
