"""Ending containers: the preStop hook, the stop signal, the grace period, the kill.

Upstream: `kuberuntime_container.go` (killContainer) and `kuberuntime_termination_order.go`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from sampan.api.errors import Object
from sampan.node import pods
from sampan.node.context import NodeContext
from sampan.node.hooks import HookFailure, run_hook
from sampan.node.runtime.types import ContainerState, ContainerStatus, RuntimeFailure

log = logging.getLogger(__name__)

MINIMUM_SECONDS = 2.0
"""Every container gets at least this long after its stop signal."""


async def stop_container(
    node: NodeContext,
    pod: Object,
    record: ContainerStatus,
    grace: float,
    pod_ip: str,
    message: str = "",
    *,
    exact: bool = False,
) -> None:
    """End one running container within about `grace` seconds, the preStop hook included. With `exact` no minimum is
    granted (a probe's own grace period)."""
    spec = pods.container(pod, record.name)
    node.container_event(
        pod, record.name, "Normal", "Killing", message or f"Stopping container {record.name}"
    )
    loop = asyncio.get_running_loop()
    hook = ((spec or {}).get("lifecycle") or {}).get("preStop")
    if spec is not None and hook:
        began = loop.time()
        try:
            async with asyncio.timeout(grace):
                await run_hook(node, spec, record.id, pod_ip, hook)
        except TimeoutError:
            log.info("preStop hook of %s in %s took too long", record.name, pods.full_name(pod))
        except HookFailure as e:
            log.info("preStop hook of %s in %s: %s", record.name, pods.full_name(pod), e)
            node.container_event(pod, record.name, "Warning", "FailedPreStopHook", "PreStopHook failed")
        grace -= loop.time() - began
    try:
        await node.runtime.stop_container(record.id, grace if exact else max(grace, MINIMUM_SECONDS))
    except RuntimeFailure as e:
        log.warning("container %s of %s could not be stopped: %s", record.name, pods.full_name(pod), e)


async def stop_pod_containers(
    node: NodeContext, pod: Object, records: Sequence[ContainerStatus], grace: float, pod_ip: str
) -> None:
    """End all running containers of a pod side by side; sidecars after the others, the last declared first."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + grace
    running = [r for r in records if r.state is ContainerState.RUNNING]
    sidecars = {c["name"]: i for i, c in enumerate(pods.init_containers(pod)) if pods.is_sidecar(c)}
    async with asyncio.TaskGroup() as group:
        for record in running:
            if record.name not in sidecars:
                group.create_task(stop_container(node, pod, record, grace, pod_ip))
    for record in sorted(
        (r for r in running if r.name in sidecars), key=lambda r: sidecars[r.name], reverse=True
    ):
        await stop_container(node, pod, record, max(0.0, deadline - loop.time()), pod_ip)
