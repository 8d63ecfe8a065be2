"""The members of an etcd: calls and streams over gRPC to whichever of them answers.

One member is used until it fails; then it goes to the end of the line. Payloads are bytes; `messages` knows what they
mean.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from urllib.parse import urlsplit

from sampan.store import grpc
from sampan.store.grpc import Connection, RpcError
from sampan.store.types import StoreError, StoreFull, ValueTooLarge

CONNECT_TIMEOUT = 3.0
_RETRY = 0.05
"""Seconds between two rounds of asking everybody."""
_NEVER_DONE = ("etcdserver: no leader", "etcdserver: not capable")
"""What an error says of a request that had no effect and never will have."""
_NOT_THIS_MEMBER = (grpc.UNAVAILABLE, grpc.DEADLINE_EXCEEDED, grpc.CANCELLED, grpc.UNKNOWN, grpc.INTERNAL)
_NO_TLS = "the two do not accept each other's certificates"


class OutOfRange(StoreError):
    """etcd's answer about a revision that it no longer has, or not yet."""


class LeaseNotFound(StoreError):
    """etcd's answer to a write with a lease that has ended. Nothing was written."""


class MayHaveHappened(StoreError):
    """A write of which nobody knows whether it took effect, or will."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths of PEM files: who may sign the members' certificates, and what to show of ourselves. Read anew for each
    connection, so that renewed files are taken up."""

    ca: str = ""
    cert: str = ""
    key: str = ""

    def context(self) -> ssl.SSLContext:
        """Raises StoreError where a file cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            if self.cert:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as e:
            files = ", ".join(f for f in (self.ca, self.cert, self.key) if f)
            raise StoreError(f"the TLS files for etcd cannot be used ({files}): {e}") from e
        context.set_alpn_protocols(["h2"])
        return context


class Members:
    """Requests to the members at `endpoints` (`http://host:port` or `https://...`). `timeout` (seconds) is for one
    request to one member."""

    def __init__(self, endpoints: Sequence[str], tls: Tls | None, timeout: float) -> None:
        if not endpoints:
            raise StoreError("no etcd endpoint given")
        self._line = [e.rstrip("/") for e in endpoints]
        self._tls = tls or Tls()
        self._timeout = timeout
        self.patience = 0.0
        """Seconds for which members are asked again while none of them is there."""
        self._connections: dict[str, Connection] = {}
        self._connecting: dict[str, asyncio.Task[Connection]] = {}

    @property
    def names(self) -> str:
        """All endpoints, for people."""
        return ", ".join(sorted(self._line))

    @property
    def first(self) -> str:
        """The endpoint that is asked first at present."""
        return self._line[0]

    async def call(self, method: str, request: bytes, *, again: bool = True) -> bytes:
        """The answer to one request (`KV/Range`). What must not be done twice (`again` False) goes to a further member
        only where the one before cannot have done it. Raises OutOfRange, StoreFull, ValueTooLarge, MayHaveHappened,
        StoreError."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.patience
        while True:
            try:
                return await self._call(method, request, again)
            except _NoneAnswers as e:
                if loop.time() >= deadline:
                    raise StoreError(f"no etcd answers ({e})") from None
                await asyncio.sleep(_RETRY)

    async def _call(self, method: str, request: bytes, again: bool) -> bytes:
        """Ask each member once. Raises as `call`, and _NoneAnswers where none can have done it."""
        causes = []
        for endpoint in tuple(self._line):
            try:
                connection = self._connections.get(endpoint)
                if connection is None or connection.closed:
                    connection = await self._connect(endpoint)
                return await connection.call(method, request, self._timeout)
            except _Unreachable as e:
                causes.append(f"{endpoint}: {e}")
            except RpcError as e:
                refused = _refusal(endpoint, e)
                if refused is not None:
                    raise refused from e
                cause = f"{endpoint}: {e.message}"
                if not (again or e.never_done or any(text in e.message for text in _NEVER_DONE)):
                    self._put_last(endpoint)
                    raise MayHaveHappened(
                        f"etcd was lost during a write, which may have taken effect: {cause}"
                    ) from e
                causes.append(cause)
            self._put_last(endpoint)
        raise _NoneAnswers("; ".join(causes))

    async def stream(self, method: str, request: bytes) -> AsyncGenerator[list[bytes], None]:
        """What the first member in line sends for one long request, in batches as they arrive, until it has sent all.
        Raises StoreError when the connection is lost and when the member has no leader; the next stream then goes to
        another member."""
        endpoint = self._line[0]
        try:
            connection = await self._connect(endpoint)
            async with aclosing(connection.stream(method, request)) as batches:
                async for batch in batches:
                    yield batch
        except _Unreachable as e:
            self._put_last(endpoint)
            raise StoreError(f"etcd at {endpoint} does not answer: {e}") from e
        except RpcError as e:
            refused = _refusal(endpoint, e)
            if refused is not None:
                raise refused from e
            self._put_last(endpoint)
            raise StoreError(f"the connection to etcd at {endpoint} was lost: {e.message}") from e

    def put_last(self) -> None:
        """Let another member be first: this one answers, but not as it should."""
        self._line.append(self._line.pop(0))

    async def close(self) -> None:
        for task in self._connecting.values():
            task.cancel()
        if self._connecting:
            await asyncio.wait(tuple(self._connecting.values()))
        for connection in self._connections.values():
            connection.close()

    async def _connect(self, endpoint: str) -> Connection:
        """The connection to a member. Before anything is asked: what fails here has had no effect. Raises _Unreachable,
        StoreError."""
        connection = self._connections.get(endpoint)
        if connection is not None and not connection.closed:
            return connection
        task = self._connecting.get(endpoint)
        if task is None:
            task = self._connecting[endpoint] = asyncio.create_task(self._make(endpoint))
            task.add_done_callback(lambda _: self._connecting.pop(endpoint, None))
        return await asyncio.shield(task)

    async def _make(self, endpoint: str) -> Connection:
        parts = urlsplit(endpoint)
        context = self._tls.context() if parts.scheme == "https" else None
        try:
            made = await grpc.connect(
                parts.hostname or "", parts.port or 2379, context, min(CONNECT_TIMEOUT, self._timeout)
            )
        except TimeoutError:
            raise _Unreachable("no connection in time") from None
        except ConnectionRefusedError:
            raise _Unreachable("connection refused") from None
        except OSError as e:
            why = e.strerror or str(e)
            raise _Unreachable(f"{_NO_TLS} ({why})" if context else why) from None
        self._connections[endpoint] = made
        return made

    def _put_last(self, endpoint: str) -> None:
        self._line.remove(endpoint)
        self._line.append(endpoint)


def _refusal(endpoint: str, error: RpcError) -> StoreError | None:
    """The error that a member's answer stands for; None where it is only that member's, or the connection's."""
    message = f"etcd at {endpoint}: {error.message}"
    if "space exceeded" in error.message:
        return StoreFull(f"{message} (NOSPACE alarm: compact, defragment, disarm)")
    if "request is too large" in error.message or "larger than max" in error.message:
        return ValueTooLarge(message)
    if "lease not found" in error.message:
        return LeaseNotFound(message)
    if error.code == grpc.OUT_OF_RANGE:
        return OutOfRange(message)
    return None if error.code in _NOT_THIS_MEMBER else StoreError(message)


class _NoneAnswers(Exception):
    """No member is there just now."""


class _Unreachable(Exception):
    """No connection to a member came about."""
