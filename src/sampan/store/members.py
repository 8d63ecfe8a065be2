"""The members of an etcd: calls and streams over gRPC to whichever of them answers.

One member is used until it fails; then it goes to the end of the line. Payloads are bytes; `messages` knows what they
mean. grpcio is loaded only where an etcd is used.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan.store.types import StoreError, StoreFull, ValueTooLarge

CONNECT_TIMEOUT = 3.0
_RETRY = 0.05
"""Seconds between two rounds of asking everybody."""
_SERVICE = "/etcdserverpb."
_OPTIONS = [
    # A peer that vanished without a word is noticed within 15 s. Below 5 s etcd would take it for an attack.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]
_NEVER_DONE = ("etcdserver: no leader", "etcdserver: not capable", "failed to connect", "Connection refused")
"""What an error says of a request that had no effect and never will have."""
_NO_TLS = "no connection, or the two do not accept each other's certificates"


class OutOfRange(StoreError):
    """etcd's answer about a revision that it no longer has, or not yet."""


class MayHaveHappened(StoreError):
    """A write of which nobody knows whether it took effect, or will."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths of PEM files: who may sign the members' certificates, and what to show of ourselves. Read anew for each
    connection, so that renewed files are taken up."""

    ca: str = ""
    cert: str = ""
    key: str = ""

    def read(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """(authorities, key, certificate). Raises StoreError where a file cannot be read."""
        try:
            ca, key, cert = (Path(p).read_bytes() if p else None for p in (self.ca, self.key, self.cert))
        except OSError as e:
            raise StoreError(f"the TLS files for etcd cannot be used: {e}") from e
        return ca, key, cert


class Members:
    """Requests to the members at `endpoints` (`http://host:port` or `https://...`). `timeout` (seconds) is for one
    request to one member."""

    def __init__(self, endpoints: Sequence[str], tls: Tls | None, timeout: float) -> None:
        if not endpoints:
            raise StoreError("no etcd endpoint given")
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it logs to stderr what is raised here anyway
        try:
            import grpc.aio
        except ImportError as e:
            raise StoreError(f"an etcd needs the Python package grpcio, which cannot be loaded: {e}") from e
        self._grpc: Any = grpc
        self._line = [e.rstrip("/") for e in endpoints]
        self._tls = tls
        self._timeout = timeout
        self.patience = 0.0
        """Seconds for which members are asked again while none of them is there."""
        self._channels: dict[str, Any] = {}
        self._calls: dict[tuple[str, str], Any] = {}
        self._closing: set[asyncio.Task[None]] = set()

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
                stub = await self._stub(endpoint, method)
                return await stub(request, timeout=self._timeout)  # type: ignore[no-any-return]
            except _Unreachable as e:
                causes.append(f"{endpoint}: {e}")
            except self._grpc.aio.AioRpcError as e:
                refused = self._refusal(endpoint, e)
                if refused is not None:
                    raise refused from e
                cause = f"{endpoint}: {e.details() or e.code().name}"
                if not again and not any(text in cause for text in _NEVER_DONE):
                    self._put_last(endpoint)
                    raise MayHaveHappened(
                        f"etcd was lost during a write, which may have taken effect: {cause}"
                    ) from e
                causes.append(cause)
            self._put_last(endpoint)
        raise _NoneAnswers("; ".join(causes))

    async def stream(self, method: str, request: bytes = b"") -> AsyncGenerator[bytes, None]:
        """What the first member in line sends for one long request, until it has sent all. Raises StoreError when the
        connection is lost and when the member has no leader; the next stream then goes to another member."""
        endpoint = self._line[0]
        try:
            stub = await self._stub(endpoint, method, stream=True)
            async with aclosing(self._read(stub, request)) as answers:
                async for answer in answers:
                    yield answer
        except _Unreachable as e:
            self._put_last(endpoint)
            raise StoreError(f"etcd at {endpoint} does not answer: {e}") from e
        except self._grpc.aio.AioRpcError as e:
            refused = self._refusal(endpoint, e)
            if refused is not None:
                raise refused from e
            self._put_last(endpoint)
            raise StoreError(
                f"the connection to etcd at {endpoint} was lost: {e.details() or e.code().name}"
            ) from e

    async def _read(self, stub: Any, request: bytes) -> AsyncGenerator[bytes, None]:
        call = stub(metadata=(("hasleader", "true"),))
        try:
            await call.write(request)
            while (answer := await call.read()) is not self._grpc.aio.EOF:
                yield answer
        finally:
            call.cancel()

    def put_last(self) -> None:
        """Let another member be first: this one answers, but not as it should."""
        self._line.append(self._line.pop(0))

    async def close(self) -> None:
        for endpoint in tuple(self._channels):
            self._drop(endpoint)
        if self._closing:
            await asyncio.wait(self._closing)

    async def _stub(self, endpoint: str, method: str, *, stream: bool = False) -> Any:
        """The method of a member that is connected. Raises _Unreachable, StoreError."""
        channel: Any = self._channels.get(endpoint)
        states = self._grpc.ChannelConnectivity
        state = states.SHUTDOWN if channel is None else channel.get_state(try_to_connect=True)
        if state is not states.READY:
            # Before anything is sent: what fails here has had no effect.
            if state in (states.SHUTDOWN, states.TRANSIENT_FAILURE):
                self._drop(endpoint)  # it tells of an attempt long ago, with files that may have been renewed
                channel = self._channels[endpoint] = self._connect(endpoint)
            try:
                async with asyncio.timeout(min(CONNECT_TIMEOUT, self._timeout)):
                    while (state := channel.get_state(try_to_connect=True)) is not states.READY:
                        if state in (states.TRANSIENT_FAILURE, states.SHUTDOWN):
                            raise _Unreachable(_NO_TLS if endpoint.startswith("https") else "no connection")
                        await channel.wait_for_state_change(state)
            except TimeoutError:
                raise _Unreachable("no connection in time") from None
        stub = self._calls.get((endpoint, method))
        if stub is None:
            make = channel.stream_stream if stream else channel.unary_unary
            stub = self._calls[endpoint, method] = make(_SERVICE + method, None, None)
        return stub

    def _connect(self, endpoint: str) -> Any:
        scheme, _, address = endpoint.partition("://")
        if scheme == "http":
            return self._grpc.aio.insecure_channel(address, options=_OPTIONS)
        ca, key, cert = (self._tls or Tls()).read()
        try:
            credentials = self._grpc.ssl_channel_credentials(ca, key, cert)
            return self._grpc.aio.secure_channel(address, credentials, options=_OPTIONS)
        except (ValueError, RuntimeError) as e:
            raise StoreError(f"the TLS files for etcd cannot be used: {e}") from e

    def _drop(self, endpoint: str) -> None:
        channel = self._channels.pop(endpoint, None)
        self._calls = {key: call for key, call in self._calls.items() if key[0] != endpoint}
        if channel is not None:
            task = asyncio.get_running_loop().create_task(channel.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _put_last(self, endpoint: str) -> None:
        self._line.remove(endpoint)
        self._line.append(endpoint)

    def _refusal(self, endpoint: str, error: Any) -> StoreError | None:
        """The error that a member's answer stands for; None where it is only that member's, or the connection's."""
        codes = self._grpc.StatusCode
        code, detail = error.code(), error.details() or ""
        message = f"etcd at {endpoint}: {detail}"
        if "space exceeded" in detail:
            return StoreFull(f"{message} (NOSPACE alarm: compact, defragment, disarm)")
        if "request is too large" in detail:
            return ValueTooLarge(message)
        if code is codes.OUT_OF_RANGE:
            return OutOfRange(message)
        if code in (
            codes.UNAVAILABLE,
            codes.DEADLINE_EXCEEDED,
            codes.CANCELLED,
            codes.UNKNOWN,
            codes.INTERNAL,
        ):
            return None
        return StoreError(message)


class _NoneAnswers(Exception):
    """No member is there just now."""


class _Unreachable(Exception):
    """No connection to a member came about."""
