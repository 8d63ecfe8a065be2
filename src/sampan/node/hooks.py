"""Life cycle hooks: what runs right after a container's start and right before its stop."""

from __future__ import annotations

import asyncio

from sampan.api.errors import Object
from sampan.node.context import NodeContext
from sampan.node.handlers import HandlerFailure, UnknownPort, http_get
from sampan.node.runtime.types import RuntimeFailure

HTTP_SECONDS = 30.0
USER_AGENT = "kube-lifecycle/1.36"


class HookFailure(Exception):
    """The hook did not do its work."""


async def run_hook(
    node: NodeContext, container: Object, container_id: str, pod_ip: str, hook: Object
) -> None:
    """Run one hook to its end. Raises HookFailure."""
    try:
        if "exec" in hook:
            command = hook["exec"].get("command") or []
            result = await node.runtime.exec_sync(container_id, command)
            if result.exit_code:
                output = (result.stdout + result.stderr).decode(errors="replace").strip()
                raise HookFailure(f"command {' '.join(command)!r} exited with {result.exit_code}: {output}")
        elif "httpGet" in hook:
            await http_get(container, hook["httpGet"], pod_ip, HTTP_SECONDS, USER_AGENT)
        elif "sleep" in hook:
            await asyncio.sleep(float(hook["sleep"].get("seconds") or 0))
        else:
            raise HookFailure(f"hook handler {', '.join(hook)} is not supported")
    except (HandlerFailure, UnknownPort, RuntimeFailure, TimeoutError) as e:
        raise HookFailure(str(e)) from None
