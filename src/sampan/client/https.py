"""The client for those who are not in the API server's process: HTTPS with kept-alive connections.

Each watch has a connection of its own and is read line by line. Nothing is retried here but what the HTTP library
may repeat safely: who asked knows what a repetition would mean.
"""

from __future__ import annotations

import asyncio
import builtins
import random
import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import quote, urlencode

import msgspec

from sampan.api.errors import Object, StatusError
from sampan.api.resources import Resource
from sampan.client.access import Access, Identity
from sampan.client.types import MERGE_PATCH, ConnectionLost, EventType, ObjectList, WatchEvent

if TYPE_CHECKING:
    import aiohttp

REQUEST_SECONDS = 60.0
"""How long an ordinary request may take before the connection counts as lost."""
CONNECT_SECONDS = 10.0
MOST_AT_ONCE = 16
"""Ordinary requests under way, hence their connections; more wait for their turn. Watches do not count."""
IDLE_SECONDS = 30.0
"""An unused connection is kept for this long: well below the server's time, or a request could meet its end."""
_KEEPALIVE = (
    (socket.TCP_KEEPIDLE, 10),
    (socket.TCP_KEEPINTVL, 5),
    (socket.TCP_KEEPCNT, 3),
    (socket.TCP_USER_TIMEOUT, 10_000),
)
"""After 10 s of silence the peer is asked, and it is given up when it has taken nothing for as long."""
WATCH_SECONDS = 300
"""A watch is asked for this long, and up to twice as long, so that not all end together."""
_WATCH_GRACE = 30.0

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Gone",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class HttpsClient:
    """A `Client` over the network. Connections are made when first needed; `close` ends them all."""

    def __init__(self, access: Access, *, user_agent: str = "") -> None:
        self.access = access
        self._identity = Identity(access)
        self._server = access.server.rstrip("/")
        self._headers = {
            "User-Agent": user_agent or "sampan",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
        }
        self._session: aiohttp.ClientSession | None = None
        self._under_way: set[_Exchange] = set()
        self._closed = False
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)

    @classmethod
    def from_kubeconfig(
        cls, path: Path | Sequence[Path] | None = None, context: str = "", *, user_agent: str = ""
    ) -> HttpsClient:
        """A client for a context of a kubeconfig; by default the files and the context that kubectl would take.
        Raises KubeconfigError."""
        from sampan.client.kubeconfig import load

        return cls(load(path, context), user_agent=user_agent)

    async def get(self, resource: Resource, namespace: str, name: str, *, subresource: str = "") -> Object:
        return await self._object("GET", resource.path(namespace, name, subresource))

    async def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str = "",
        limit: int = 0,
        continue_: str = "",
    ) -> ObjectList:
        query = {
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
            "resourceVersion": resource_version,
            "limit": str(limit or ""),
            "continue": continue_,
        }
        found = await self._object("GET", resource.path(namespace), query)
        items = found.get("items") or []
        for item in items:  # a list says once what its items are; an object by itself must say it too
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
        meta = found.get("metadata") or {}
        return ObjectList(
            items,
            meta.get("resourceVersion", ""),
            meta.get("continue", ""),
            meta.get("remainingItemCount") or 0,
        )

    async def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncIterator[WatchEvent]:
        seconds = random.randint(WATCH_SECONDS, 2 * WATCH_SECONDS)
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(seconds),
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
        }
        # A peer that vanished without a word is noticed when even the agreed end does not come.
        target = _target(resource.path(namespace), query)
        watching = _Exchange(self, "GET", target, b"", {}, seconds + _WATCH_GRACE)
        async with watching as response:
            if response.status != 200:
                raise _error(response.status, await response.read(), response.headers)
            rest: builtins.list[bytes] = []
            async for chunk in response.content.iter_any():
                start = 0
                while (end := chunk.find(b"\n", start)) >= 0:
                    line = chunk[start:end]
                    if rest:
                        line = b"".join((*rest, line))
                        rest.clear()
                    start = end + 1
                    if line.strip():
                        yield _event(line)
                if start < len(chunk):
                    rest.append(chunk[start:])
            if b"".join(rest).strip():
                raise ConnectionLost(f"{self._server}: a watch broke off in the middle of an event")

    async def create(
        self,
        resource: Resource,
        obj: Object,
        *,
        namespace: str = "",
        name: str = "",
        subresource: str = "",
        field_manager: str = "",
    ) -> Object:
        meta = obj.get("metadata") or {}
        place = resource.path(
            namespace or meta.get("namespace", ""), name if subresource else "", subresource
        )
        query = {"fieldManager": field_manager}
        return await self._object("POST", place, query=query, body=_encode(obj))

    async def update(self, resource: Resource, obj: Object, *, subresource: str = "") -> Object:
        meta = obj["metadata"]
        place = resource.path(meta.get("namespace", ""), meta["name"], subresource)
        return await self._object("PUT", place, body=_encode(obj))

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        patch: Any,
        *,
        content_type: str = MERGE_PATCH,
        subresource: str = "",
        field_manager: str = "",
        force: bool = False,
    ) -> Object:
        """As the contract says; `patch` may also be bytes that are sent as they are."""
        query = {"fieldManager": field_manager, "force": "true" if force else ""}
        body = patch if isinstance(patch, bytes) else _encode(patch)
        return await self._object(
            "PATCH", resource.path(namespace, name, subresource), query, body=body, content_type=content_type
        )

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        grace_period_seconds: int | None = None,
        propagation_policy: Literal["", "Background", "Foreground", "Orphan"] = "",
        uid: str = "",
        resource_version: str = "",
    ) -> Object:
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if grace_period_seconds is not None:
            options["gracePeriodSeconds"] = grace_period_seconds
        if propagation_policy:
            options["propagationPolicy"] = propagation_policy
        held_to = {"uid": uid, "resourceVersion": resource_version}
        if preconditions := {k: v for k, v in held_to.items() if v}:
            options["preconditions"] = preconditions
        return await self._object("DELETE", resource.path(namespace, name), body=_encode(options))

    async def raw(
        self,
        method: str,
        path: str,
        query: str | Mapping[str, str] = "",
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Any request: (HTTP status, body). `path` and a text `query` are sent as given, percent-encoded by the
        caller. Raises ConnectionLost only."""
        text = query if isinstance(query, str) else urlencode(query)
        target = f"{path}?{text}" if text else path
        async with self._request(method, target, body, headers or {}) as response:
            return response.status, await response.read()

    async def reconnect(self) -> None:
        """Let go of every connection, so that new ones show a renewed certificate. What is under way is ConnectionLost."""
        session, self._session = self._session, None
        # aiohttp wakes nobody who waits on a connection that it closes.
        for exchange in self._under_way:
            exchange.break_off()
        if session is not None:
            await session.close()

    async def close(self) -> None:
        self._closed = True
        await self.reconnect()

    async def _object(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: bytes = b"",
        content_type: str = "application/json",
    ) -> Object:
        headers = {"Content-Type": content_type} if body else {}
        async with self._request(method, _target(path, query or {}), body, headers) as response:
            data = await response.read()
            if response.status >= 300:
                raise _error(response.status, data, response.headers)
        try:
            found = _decode(data)
        except msgspec.DecodeError as e:
            raise StatusError(500, "InternalError", f"{method} {path}: the answer is not JSON: {e}") from e
        return cast(Object, found)

    @asynccontextmanager
    async def _request(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        async with (
            self._turns,
            _Exchange(self, method, target, body, dict(headers or {}), REQUEST_SECONDS) as response,
        ):
            yield response

    async def _send(
        self, method: str, target: str, body: bytes, headers: dict[str, str], timeout: float
    ) -> aiohttp.ClientResponse:
        import aiohttp  # heavy: processes that hold an in-process client never need it
        from yarl import URL

        if self._closed:
            raise ConnectionLost(f"{self._server}: the client is closed")
        try:
            context = self._identity.context()
            if token := self._identity.token():
                headers["Authorization"] = f"Bearer {token}"
        except (OSError, ssl.SSLError, ValueError) as e:
            raise ConnectionLost(f"{self._server}: the client's credentials cannot be read: {e}") from e
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,
                    keepalive_timeout=IDLE_SECONDS,
                    ssl=context or True,
                    socket_factory=_attentive_socket,
                ),
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=True,
            )
        return await self._session.request(
            method,
            URL(self._server + target, encoded=True),
            data=body or None,
            headers=headers,
            allow_redirects=False,
            server_hostname=self.access.tls_server_name or None,
            timeout=aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_SECONDS),
        )


def _attentive_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """One that notices within half a minute that its peer is out of reach: a watch that sends nothing never would, and who
    was cut off goes on with new connections instead of waiting for old ones to try again."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made


class _Exchange:
    """One request and its answer; what breaks inside is ConnectionLost."""

    def __init__(
        self,
        client: HttpsClient,
        method: str,
        target: str,
        body: bytes,
        headers: dict[str, str],
        timeout: float,
    ) -> None:
        self._client = client
        self._request = method, target, body, headers, timeout
        self._response: aiohttp.ClientResponse | None = None

    async def __aenter__(self) -> aiohttp.ClientResponse:
        try:
            self._response = await self._client._send(*self._request)
        except Exception as e:  # what is the network's gets our name, all else is raised as it is
            self._translate(e)
            raise
        self._client._under_way.add(self)
        return self._response

    def break_off(self) -> None:
        """Whoever reads the answer has lost its connection."""
        import aiohttp

        if self._response is not None:
            self._response.content.set_exception(aiohttp.ClientConnectionError("the connection was let go"))

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        response = self._response
        assert response is not None
        self._client._under_way.discard(self)
        if error is None:
            response.release()  # the connection is kept if the answer was read to its end
            return
        response.close()
        if isinstance(error, Exception):
            self._translate(error)

    @property
    def _closed(self) -> bool:
        if self._response is None:
            return self._client._session is None
        connection = self._response.connection
        return connection is None or connection.transport is None or connection.transport.is_closing()

    def _translate(self, error: Exception) -> None:
        import aiohttp

        broken = isinstance(error, aiohttp.ClientError | OSError | TimeoutError)
        # Who reads on after we have closed the connection ourselves gets a RuntimeError from aiohttp.
        if broken or (isinstance(error, RuntimeError) and self._closed):
            method, target = self._request[:2]
            why = str(error) or type(error).__name__
            raise ConnectionLost(
                f"{method} {self._client._server}{target.partition('?')[0]}: {why}"
            ) from error


def _target(path: str, query: Mapping[str, str]) -> str:
    target = quote(path, safe="/:@!$&'()*+,;=~")
    given = urlencode({k: v for k, v in query.items() if v})
    return f"{target}?{given}" if given else target


def _event(line: bytes) -> WatchEvent:
    try:
        told = _decode(line)
        kind, obj = told["type"], told["object"]
    except (msgspec.DecodeError, KeyError, TypeError) as e:
        raise ConnectionLost(f"a watch sent what is no event: {line[:100]!r}") from e
    if kind == "ERROR":
        raise StatusError.from_status(obj)
    return WatchEvent(cast(EventType, kind), obj)


def _error(status: int, body: bytes, headers: Mapping[str, str]) -> StatusError:
    """The error that an answer stands for, be it a Status or the words of some proxy on the way."""
    try:
        found = _decode(body)
    except msgspec.DecodeError:
        found = None
    if isinstance(found, dict) and found.get("kind") == "Status":
        return StatusError.from_status({"code": status, **found})
    message = body.decode(errors="replace").strip() or f"the server answered {status}"
    details: Object | None = None
    if headers.get("Retry-After", "").isdigit():
        details = {"retryAfterSeconds": int(headers["Retry-After"])}
    return StatusError(status, _REASONS.get(status, ""), message, details)
