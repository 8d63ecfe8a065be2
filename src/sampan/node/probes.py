"""Startup, readiness and liveness probes of one running container.

Each probe is a task with the spec's own period as its only timer. The startup probe, where there is one, comes before
the others; readiness is asked at once when the container has started (and its initial delay is over), not only after
the first period. Upstream: `pkg/kubelet/prober`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Literal

from sampan.api.errors import Object
from sampan.node.context import NodeContext
from sampan.node.handlers import HandlerFailure, UnknownPort, http_get, port_of, tcp_connect
from sampan.node.runtime.types import RuntimeFailure

log = logging.getLogger(__name__)

Kind = Literal["startup", "readiness", "liveness"]
USER_AGENT = "kube-probe/1.36"


class ProbeError(Exception):
    """The probe could not be carried out: says nothing about the container."""


class ContainerProbes:
    """The probes of container `container_id`.

    `changed()` is called when `started` or `ready` has changed; `unhealthy(kind)` when the container must be
    restarted because its startup or liveness probe failed too often.
    """

    def __init__(
        self,
        node: NodeContext,
        pod: Object,
        container: Object,
        container_id: str,
        pod_ip: str,
        started_at: float,
        *,
        changed: Callable[[], None],
        unhealthy: Callable[[Kind], None],
        ready: bool = False,
        started: bool = False,
    ) -> None:
        self.container_id = container_id
        self.started = started or "startupProbe" not in container
        self._readiness = "readinessProbe" not in container
        self._was_ready = ready
        self._node = node
        self._pod = pod
        self._container = container
        self._pod_ip = pod_ip
        self._started_at = started_at
        self._changed = changed
        self._unhealthy = unhealthy
        if ready:
            self._readiness = True

    @property
    def ready(self) -> bool:
        return self.started and self._readiness

    def has(self, kind: Kind) -> bool:
        return f"{kind}Probe" in self._container

    def has_any(self) -> bool:
        return self.has("startup") or self.has("readiness") or self.has("liveness")

    async def run(self) -> None:
        """Probe until cancelled."""
        if not self.started:
            await self._probe("startup")
        async with asyncio.TaskGroup() as group:
            for kind in ("readiness", "liveness"):
                if f"{kind}Probe" in self._container:
                    group.create_task(self._probe(kind))

    async def run_readiness(self) -> None:
        """Find out whether the container is ready, and nothing else, until cancelled."""
        await self._probe("readiness")

    async def _probe(self, kind: Kind) -> None:
        """Probe of one kind until cancelled; the startup probe, until it succeeded."""
        probe = self._container[f"{kind}Probe"]
        period = probe.get("periodSeconds") or 10
        delay = (probe.get("initialDelaySeconds") or 0) - (time.time() - self._started_at)
        if delay > 0:
            await asyncio.sleep(delay)
        loop = asyncio.get_running_loop()
        due = loop.time()
        run, last = 0, None
        while True:
            try:
                message = await self.once(probe)
                good = message is None
            except ProbeError as e:
                self._tell(kind, f"{kind.capitalize()} probe errored and resulted in unknown state: {e}")
                due = max(due + period, loop.time())
                await asyncio.sleep(due - loop.time())
                continue
            if message is not None:
                self._tell(kind, f"{kind.capitalize()} probe failed: {message}")
            run = run + 1 if good == last else 1
            last = good
            threshold = (probe.get("successThreshold") or 1) if good else (probe.get("failureThreshold") or 3)
            if run >= threshold:
                if kind == "readiness":
                    self._set_ready(good)
                elif kind == "startup" and good:
                    self.started = True
                    self._changed()
                    return
                elif not good:
                    self._unhealthy(kind)
                    return
            due = max(due + period, loop.time())
            await asyncio.sleep(due - loop.time())

    def _set_ready(self, ready: bool) -> None:
        if ready != self._readiness:
            self._readiness = ready
            self._changed()

    def _tell(self, kind: Kind, message: str) -> None:
        self._node.container_event(self._pod, self._container["name"], "Warning", "Unhealthy", message)

    async def once(self, probe: Object) -> str | None:
        """One try: None for success, else what was wrong. Raises ProbeError."""
        timeout = float(probe.get("timeoutSeconds") or 1)
        try:
            if "exec" in probe:
                return await self._exec(probe["exec"].get("command") or [], timeout)
            if "httpGet" in probe:
                await http_get(self._container, probe["httpGet"], self._pod_ip, timeout, USER_AGENT)
            elif "tcpSocket" in probe:
                action = probe["tcpSocket"]
                host = action.get("host") or self._pod_ip
                await tcp_connect(host, port_of(self._container, action["port"]), timeout)
            else:
                raise ProbeError(f"probe handler {', '.join(probe)} is not supported")
        except HandlerFailure as e:
            return str(e)
        except (UnknownPort, RuntimeFailure) as e:
            raise ProbeError(str(e)) from None
        return None

    async def _exec(self, command: list[str], timeout: float) -> str | None:
        try:
            result = await self._node.runtime.exec_sync(self.container_id, command, timeout)
        except TimeoutError:
            return f'command timed out: "{" ".join(command)}" timed out after {timeout:g}s'
        if result.exit_code == 0:
            return None
        return (result.stdout + result.stderr).decode(errors="replace")
