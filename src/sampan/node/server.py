"""The node's own HTTPS server (port 10250): logs, exec, attach and port-forward for the API server, on upstream's paths.

Only the API server is let in (and whoever belongs to system:masters), by client certificate. What runs on the node is
asked of `NodeStreams`, which the node agent implements.
Upstream: `k8s.io/kubernetes/pkg/kubelet/server` and `Kubelet.GetKubeletContainerLogs`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Protocol, cast

from sampan.api.errors import (
    Object,
    StatusError,
    bad_request,
    page_not_found,
    unauthorized,
)
from sampan.api.objects import parse_time
from sampan.node.logs import LogOptions, read_log
from sampan.transport import portforward, remotecommand
from sampan.transport.http import Address, HttpServer
from sampan.transport.tls import server_context
from sampan.transport.types import Answer, Request, Response, Stream, StreamingResponse

API_SERVER = "sampan-apiserver-node-client"
"""Common name of the certificate that the API server shows to nodes."""
_MASTERS = "system:masters"
PORT = 10250


class NodeStreams(Protocol):
    """What the node agent offers to its server. A container id is the runtime's, without the `scheme://` that the
    Pod's status puts before it."""

    def pods(self) -> Sequence[Object]:
        """The pods of this node, each with its newest status."""

    def pod(self, namespace: str, name: str) -> Object | None:
        """One of them."""

    async def log_path(self, container_id: str) -> Path:
        """Where the container's log is. Raises an error that says why there is none."""

    async def wait_ended(self, container_id: str) -> None:
        """Return when the container has ended (at once if it has, or is gone)."""

    async def exec(
        self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool
    ) -> remotecommand.Process: ...

    async def attach(self, container_id: str) -> remotecommand.Process: ...

    async def open_port(
        self, namespace: str, name: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to localhost:`port` inside the pod."""


class NodeServer:
    """Serves one node's streams. `start` returns the address; `close` cuts what is still open after `grace`."""

    def __init__(self, streams: NodeStreams, *, certificate: Path, key: Path, client_ca: Path) -> None:
        self._streams = streams
        self._http = HttpServer(
            self.handle, ssl_context=server_context(certificate, key, client_ca), name="node"
        )

    async def start(self, host: str = "0.0.0.0", port: int = PORT) -> Address:
        return await self._http.listen(host, port)

    async def close(self, grace: float = 1.0) -> None:
        await self._http.close(grace)

    def handle(self, request: Request) -> Answer | Awaitable[Answer]:
        shown = request.certificate
        if shown is None:
            raise unauthorized()
        if shown.common_name != API_SERVER and _MASTERS not in shown.organizations:
            message = f'user "{shown.common_name}" may not use the node\'s server'
            raise StatusError(403, "Forbidden", message)
        match request.path.strip("/").split("/"):
            case ["healthz"]:
                return Response(200, b"ok", "text/plain; charset=utf-8")
            case ["pods"]:
                items = list(self._streams.pods())
                found = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}
                return Response(200, json.dumps(found, separators=(",", ":")).encode())
            case ["containerLogs", namespace, name, container]:
                return self._logs(request, self._pod(namespace, name), container)
            case ["exec", namespace, name, container] | ["exec", namespace, name, _, container]:
                return self._exec(request, self._pod(namespace, name), container)
            case ["attach", namespace, name, container] | ["attach", namespace, name, _, container]:
                return self._attach(request, self._pod(namespace, name), container)
            case ["portForward", namespace, name] | ["portForward", namespace, name, _]:
                return self._port_forward(request, self._pod(namespace, name))
        raise page_not_found()

    def _pod(self, namespace: str, name: str) -> Object:
        pod = self._streams.pod(namespace, name)
        if pod is None:
            raise StatusError(404, "NotFound", f'pod "{name}" does not exist')
        return pod

    async def _logs(self, request: Request, pod: Object, container: str) -> Answer:
        if _spec_of(pod, container) is None:
            name = pod["metadata"]["name"]
            raise StatusError(404, "NotFound", f'container "{container}" not found in pod "{name}"')
        container_id = log_container(pod, container, previous=_flag(request, "previous"))
        options = log_options(request)
        path = await self._streams.log_path(container_id)

        async def send(stream: Stream) -> None:
            ended = self._streams.wait_ended(container_id) if options.follow else None
            async with aclosing(read_log(path, options, ended)) as pieces:
                async for piece in pieces:
                    stream.write(piece)
                    await stream.drain()

        return StreamingResponse(send, content_type="text/plain")

    def _exec(self, request: Request, pod: Object, container: str) -> Answer:
        container_id = _running(pod, container)
        command = request.params.get("command", [])
        if not command:
            raise bad_request("you must specify a command to run")
        options = remotecommand.Options.of(request)

        async def start() -> remotecommand.Process:
            return await self._streams.exec(container_id, command, stdin=options.stdin, tty=options.tty)

        return remotecommand.upgrade(request, options, start)

    def _attach(self, request: Request, pod: Object, container: str) -> Answer:
        container_id = _running(pod, container)
        options = remotecommand.Options.of(request)

        async def start() -> remotecommand.Process:
            return await self._streams.attach(container_id)

        return remotecommand.upgrade(request, options, start, outcome=remotecommand.attached)

    def _port_forward(self, request: Request, pod: Object) -> Answer:
        meta = pod["metadata"]
        namespace, name = meta["namespace"], meta["name"]

        async def open_port(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await self._streams.open_port(namespace, name, port)

        return portforward.upgrade(request, open_port, f"{name}_{namespace}, uid {meta.get('uid', '')}")


def log_container(pod: Object, container: str, *, previous: bool) -> str:
    """The id of the container whose log is meant: the running one, or the last that ended. Raises StatusError 400 with
    the reason where there is none yet."""
    name = pod["metadata"]["name"]
    where = f'container "{container}" in pod "{name}"'
    status = _status_of(pod, container)
    if status is None:
        raise bad_request(f"{where} is not available")
    state, last = status.get("state") or {}, status.get("lastState") or {}
    before = (last.get("terminated") or {}).get("containerID", "")
    if previous:
        if not before:
            raise bad_request(f'previous terminated container "{container}" in pod "{name}" not found')
        return _bare(before)
    if "running" in state:
        return _bare(status.get("containerID", ""))
    if "terminated" in state:
        ended = (state["terminated"] or {}).get("containerID", "") or before
        if not ended:
            raise bad_request(f"{where} is terminated")
        return _bare(ended)
    if "terminated" in last:
        if not before:
            raise bad_request(f"{where} is terminated")
        return _bare(before)
    reason = (state.get("waiting") or {}).get("reason", "") if "waiting" in state else None
    if reason is None:
        raise bad_request(f"{where} is waiting to start - no logs yet")
    told = {
        "ErrImagePull": "image can't be pulled",
        "ImagePullBackOff": "trying and failing to pull image",
    }.get(reason, reason)
    raise bad_request(f"{where} is waiting to start: {told}")


def log_options(request: Request) -> LogOptions:
    """The options in a request's query, which the API server has checked. Raises StatusError 400."""
    try:
        seconds, moment = request.param("sinceSeconds"), request.param("sinceTime")
        since = time.time() - int(seconds) if seconds else parse_time(moment) if moment else None
        tail, limit = request.param("tailLines"), request.param("limitBytes")
        stream = request.param("stream", "All")
        if stream not in ("All", "Stdout", "Stderr"):
            raise ValueError(f"stream {stream!r}")
        return LogOptions(
            follow=_flag(request, "follow"),
            timestamps=_flag(request, "timestamps"),
            tail_lines=max(0, int(tail)) if tail else None,
            since=since,
            limit_bytes=max(0, int(limit)) if limit else None,
            stream=stream,  # type: ignore[arg-type]
        )
    except ValueError as failure:
        raise bad_request(f"unable to decode query: {failure}") from failure


def _running(pod: Object, container: str) -> str:
    """The id of a container that runs. Raises StatusError."""
    status = _status_of(pod, container)
    if status is None or "running" not in (status.get("state") or {}):
        raise StatusError(500, "InternalError", f'container not found ("{container}")')
    return _bare(status.get("containerID", ""))


def _spec_of(pod: Object, container: str) -> Object | None:
    return _find(pod["spec"], ("containers", "initContainers", "ephemeralContainers"), container)


def _status_of(pod: Object, container: str) -> Object | None:
    lists = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    return _find(pod.get("status") or {}, lists, container)


def _find(holder: Object, lists: Sequence[str], name: str) -> Object | None:
    for key in lists:
        for entry in holder.get(key) or ():
            if entry["name"] == name:
                return cast(Object, entry)
    return None


def _bare(container_id: str) -> str:
    return container_id.partition("://")[2] or container_id


def _flag(request: Request, name: str) -> bool:
    return request.param(name) in ("true", "1")
