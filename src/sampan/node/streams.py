"""What the node's server offers of the pods: their logs, and connections into their containers (`NodeStreams`)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from sampan.api.errors import Object, StatusError
from sampan.node.context import NodeContext
from sampan.node.pod_workers import PodWorkers
from sampan.node.runtime.types import ContainerState, NotFound, Process


class AgentStreams:
    """The node agent's side of `sampan.node.server.NodeStreams`."""

    def __init__(self, node: NodeContext, workers: PodWorkers) -> None:
        self._node = node
        self._workers = workers

    def pods(self) -> Sequence[Object]:
        return [worker.current() for worker in self._workers]

    def pod(self, namespace: str, name: str) -> Object | None:
        worker = self._workers.find(namespace, name)
        return None if worker is None else worker.current()

    async def log_path(self, container_id: str) -> Path:
        try:
            status = await self._node.runtime.container_status(container_id)
        except NotFound:
            raise StatusError(
                404, "NotFound", f"unable to retrieve container logs for {container_id}"
            ) from None
        for worker in self._workers:
            if worker.owns(status.sandbox_id):
                return self._node.config.log_directory(worker.pod) / status.log_path
        raise StatusError(404, "NotFound", f"unable to retrieve container logs for {container_id}")

    async def wait_ended(self, container_id: str) -> None:
        ended = self._workers.ended(container_id)
        try:
            status = await self._node.runtime.container_status(container_id)
        except NotFound:
            return
        if status.state in (ContainerState.RUNNING, ContainerState.CREATED):
            await ended.wait()

    async def exec(self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool) -> Process:
        return await self._node.runtime.exec(container_id, command, stdin=stdin, tty=tty)

    async def attach(self, container_id: str) -> Process:
        return await self._node.runtime.attach(container_id)

    async def open_port(
        self, namespace: str, name: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        worker = self._workers.find(namespace, name)
        if worker is None or worker.sandbox is None:
            raise NotFound(f'pod "{name}" has no sandbox')
        return await self._node.runtime.open_port(worker.sandbox.id, port)
