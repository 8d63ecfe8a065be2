"""exec and attach: a process's streams as channels of one connection.

Over WebSocket (`v5.channel.k8s.io`, `v4.channel.k8s.io` and the older ones) a message's first byte is its channel; over
SPDY every channel is a stream of its own. The outcome goes out last, on the error channel, as a `Status` (from v4 on).
Upstream: `k8s.io/apimachinery/pkg/util/remotecommand` and `k8s.io/kubelet/pkg/cri/streaming/remotecommand`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import enum
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from sampan.api.errors import Object, StatusError, bad_request, internal
from sampan.transport import spdy, websocket
from sampan.transport.bytestream import CHUNK, SocketStream
from sampan.transport.types import Request, Upgrade

log = logging.getLogger("sampan.transport.remotecommand")

V5 = "v5.channel.k8s.io"
V4 = "v4.channel.k8s.io"
WEBSOCKET_PROTOCOLS = (V5, V4, "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io")
SPDY_PROTOCOLS = (V4, "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
SPDY_31 = "SPDY/3.1"
_STREAM_TIMEOUT = 30.0


class Channel(enum.IntEnum):
    STDIN = 0
    STDOUT = 1
    STDERR = 2
    ERROR = 3
    RESIZE = 4
    CLOSE = 255
    """From v5 on: the byte that follows names a channel that gets no more data."""


class Process(Protocol):
    """What is served: a process with its streams (the node runtime's `Process`). With a tty `stderr` is None."""

    stdin: asyncio.StreamWriter | None
    stdout: asyncio.StreamReader | None
    stderr: asyncio.StreamReader | None

    async def wait(self) -> int: ...

    def resize(self, columns: int, rows: int) -> None: ...

    async def close(self) -> None: ...


Start = Callable[[], Awaitable[Process]]
"""Starts the process; called when the connection is up, so that what it raises is told on the error channel."""


@dataclass(frozen=True, slots=True)
class Options:
    """Which streams the client wants."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    @classmethod
    def of(cls, request: Request) -> Options:
        """From a request in the node's form (`input`, `output`, `error`, `tty`). Raises StatusError 400 for none."""
        on = {n: request.param(n) in ("1", "true") for n in ("input", "output", "error", "tty")}
        if not (on["input"] or on["output"] or on["error"]):
            raise bad_request("you must specify at least 1 of stdin, stdout, stderr")
        return cls(on["input"], on["output"], on["error"] and not on["tty"], on["tty"])


def is_spdy(request: Request) -> bool:
    return request.headers.get("upgrade", "").lower() == "spdy/3.1"


def exit_status(code: int) -> Object:
    """The Status of a command that has ended."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: command terminated with exit code {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def attached(code: int) -> Object:
    """The Status of an attachment that has ended: how the container ended is told by the Pod's status alone."""
    return exit_status(0)


def upgrade(
    request: Request, options: Options, start: Start, *, outcome: Callable[[int], Object] = exit_status
) -> Upgrade:
    """The answer that serves a process on the connection of `request`; `outcome` makes the last word of its exit code.
    Raises StatusError where the client asks for no upgrade, or speaks none of our protocols."""
    if websocket.is_websocket(request):

        async def run(socket: websocket.WebSocket) -> None:
            await _serve(_WebSocketChannels(socket, options), options, start, outcome)

        return websocket.upgrade(request, WEBSOCKET_PROTOCOLS, run)
    protocol = spdy_protocol(request, SPDY_PROTOCOLS)

    async def run_spdy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channels = _SpdyChannels(SocketStream(reader, writer), options, protocol)
        await _serve(channels, options, start, outcome)

    return Upgrade(run_spdy, spdy_headers(protocol))


def spdy_protocol(request: Request, known: tuple[str, ...]) -> str:
    """The protocol to speak over SPDY. Raises StatusError 400 for a request that is no upgrade to it, 403 for none in
    common."""
    if not is_spdy(request):
        raise bad_request("Upgrade request required")
    offered = [
        p.strip() for p in request.headers.get("x-stream-protocol-version", "").split(",") if p.strip()
    ]
    chosen = websocket.choose(offered, known)
    if chosen is None:
        message = f"unable to upgrade: unable to negotiate protocol: client supports {offered}, server supports {list(known)}"
        raise StatusError(403, "Forbidden", message)
    return chosen or known[-1]


def spdy_headers(protocol: str) -> list[tuple[str, str]]:
    return [("Upgrade", SPDY_31), ("X-Stream-Protocol-Version", protocol)]


class _Channels(Protocol):
    """The channels as the service sees them, whatever carries them."""

    async def run(self) -> None:
        """Take in what the client sends; returns when it has gone."""

    async def ready(self) -> None:
        """Wait until all channels are there. Raises TimeoutError."""

    async def read_stdin(self) -> bytes:
        """b"" where the client has ended it; does not return when the client has gone without a word."""

    def sizes(self) -> AsyncIterator[tuple[int, int]]:
        """Columns and rows, as the client's terminal changes."""

    async def write(self, channel: Channel, data: bytes) -> None: ...

    async def finish(self, status: Object) -> None:
        """Send the outcome; returns when the client has taken it, or has gone."""


async def _serve(
    channels: _Channels, options: Options, start: Start, outcome: Callable[[int], Object]
) -> None:
    peer = asyncio.create_task(channels.run())
    work = asyncio.create_task(_outcome(channels, options, start, outcome))
    try:
        await asyncio.wait((peer, work), return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            status = work.result()
            with contextlib.suppress(ConnectionError):
                await channels.finish(status)  # `run` goes on meanwhile: it reads the client's goodbye.
    finally:
        for task in (peer, work):
            task.cancel()
        for result in await asyncio.gather(peer, work, return_exceptions=True):
            if isinstance(result, Exception) and not isinstance(result, ConnectionError):
                log.info("remote command ended: %s", result)


async def _outcome(
    channels: _Channels, options: Options, start: Start, outcome: Callable[[int], Object]
) -> Object:
    """Run the process to its end; the Status that tells of it."""
    try:
        await channels.ready()
        process = await start()
        try:
            # A command that is not there is found out here only: the runtime starts it and fails.
            return outcome(await _attend(process, channels, options))
        finally:
            await process.close()
    except StatusError as failure:
        return failure.status()
    except Exception as failure:  # the runtime is the caller's: whatever it raises is the client's to read
        return internal(f"error executing command in container: {failure}").status()


async def _attend(process: Process, channels: _Channels, options: Options) -> int:
    """Carry the streams until the process has ended and its output has been sent."""
    background = []
    if options.stdin:
        background.append(asyncio.create_task(_stdin(process, channels)))
    if options.tty:
        background.append(asyncio.create_task(_resize(process, channels)))
    try:
        async with asyncio.TaskGroup() as outputs:
            for reader, channel, wanted in (
                (process.stdout, Channel.STDOUT, options.stdout),
                (process.stderr, Channel.STDERR, options.stderr),
            ):
                if reader is not None:
                    outputs.create_task(_output(reader, channels, channel if wanted else None))
        return await process.wait()
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)


async def _output(reader: asyncio.StreamReader, channels: _Channels, channel: Channel | None) -> None:
    gone = channel is None
    while data := await reader.read(CHUNK):
        if not gone:
            try:
                await channels.write(channel or Channel.STDOUT, data)
            except ConnectionError:
                gone = True  # `run` sees it too; until the process is let go it must not block.


async def _stdin(process: Process, channels: _Channels) -> None:
    writer = process.stdin
    while data := await channels.read_stdin():
        if writer is not None:
            try:
                writer.write(data)
                await writer.drain()
            except ConnectionError:
                writer = None  # The process reads no more; the client's input is thrown away.
    if writer is not None:
        writer.close()


async def _resize(process: Process, channels: _Channels) -> None:
    async for columns, rows in channels.sizes():
        process.resize(columns, rows)


class _Sizes:
    """Terminal sizes out of a stream of JSON objects, wherever it is cut."""

    def __init__(self) -> None:
        self._text = ""
        self._decoder = json.JSONDecoder()

    def feed(self, data: bytes) -> list[tuple[int, int]]:
        self._text = (self._text + data.decode("utf-8", "replace")).lstrip()
        out: list[tuple[int, int]] = []
        while self._text:
            try:
                size, end = self._decoder.raw_decode(self._text)
            except ValueError:
                if len(self._text) > 4096:
                    self._text = ""
                break
            self._text = self._text[end:].lstrip()
            if isinstance(size, dict) and size.get("Width") and size.get("Height"):
                out.append((int(size["Width"]), int(size["Height"])))
        return out


class _WebSocketChannels:
    def __init__(self, socket: websocket.WebSocket, options: Options) -> None:
        self._socket = socket
        self._options = options
        self._base64 = "base64" in socket.protocol
        self._json_status = socket.protocol.startswith(("v4.", "v5."))
        self._stdin: asyncio.Queue[bytes] = asyncio.Queue(maxsize=16)
        self._stdin_ended = not options.stdin
        self._resizes: asyncio.Queue[bytes] = asyncio.Queue()

    async def run(self) -> None:
        while (message := await self._socket.receive()) is not None:
            if not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            if self._base64:
                channel -= ord("0")
                try:
                    data = base64.b64decode(data, validate=True)
                except binascii.Error:
                    self._socket.close(websocket.CloseCode.INVALID_DATA)
                    return
            if channel == Channel.STDIN and not self._stdin_ended:
                if data:
                    await self._stdin.put(data)
            elif channel == Channel.RESIZE:
                self._resizes.put_nowait(data)
            elif channel == Channel.CLOSE and self._closes_stdin(data):
                self._stdin_ended = True
                await self._stdin.put(b"")

    def _closes_stdin(self, data: bytes) -> bool:
        return self._socket.protocol == V5 and data[:1] == b"\0" and not self._stdin_ended

    async def ready(self) -> None:
        # An empty message tells the client that the channels are up. Those that speak v5 need no such word, and
        # kubectl complains of it ("Unknown stream id 1") if it comes before kubectl has made its own streams.
        if self._socket.protocol == V5:
            return
        options = self._options
        lowest = Channel.STDOUT if options.stdout else Channel.STDERR if options.stderr else Channel.ERROR
        await self.write(lowest, b"")

    async def read_stdin(self) -> bytes:
        return await self._stdin.get()

    async def sizes(self) -> AsyncIterator[tuple[int, int]]:
        decoder = _Sizes()
        while True:
            for size in decoder.feed(await self._resizes.get()):
                yield size

    async def write(self, channel: Channel, data: bytes) -> None:
        if self._base64:
            text = str(int(channel)).encode() + base64.b64encode(data)
            self._socket.send(text, websocket.Opcode.TEXT)
        else:
            self._socket.send(bytes((channel,)) + data)
        await self._socket.drain()

    async def finish(self, status: Object) -> None:
        if (text := _status_text(status, self._json_status)) is not None:
            await self.write(Channel.ERROR, text)
        self._socket.close()


class _SpdyChannels:
    def __init__(self, transport: SocketStream, options: Options, protocol: str) -> None:
        self._transport = transport
        self._session = spdy.Session(transport, server=True, accept=self._opened)
        self._json_status = protocol == V4
        self._streams: dict[str, spdy.Stream] = {}
        self._complete = asyncio.Event()
        self._over = asyncio.Event()
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wanted = {"error"}
        self._wanted |= {n for n in ("stdin", "stdout", "stderr") if getattr(options, n)}
        if options.tty and protocol in (V4, "v3.channel.k8s.io"):
            self._wanted.add("resize")

    def _opened(self, stream: spdy.Stream) -> None:
        kind = stream.headers.get("streamtype", "")
        if kind not in ("error", "stdin", "stdout", "stderr", "resize") or kind in self._streams:
            stream.reset()
            return
        self._streams[kind] = stream
        if self._wanted <= self._streams.keys():
            self._complete.set()

    async def run(self) -> None:
        try:
            await self._session.run()
        finally:
            self._over.set()

    async def ready(self) -> None:
        try:
            async with asyncio.timeout(_STREAM_TIMEOUT):
                await self._complete.wait()
        except TimeoutError:
            raise TimeoutError("timed out waiting for client to create streams") from None

    async def read_stdin(self) -> bytes:
        stream = self._streams["stdin"]
        data = await stream.read()
        if not data and not stream.ended:
            await self._gone  # Lost, not ended: an attached container's input stays open.
        return data

    async def sizes(self) -> AsyncIterator[tuple[int, int]]:
        if (stream := self._streams.get("resize")) is not None:
            decoder = _Sizes()
            while data := await stream.read():
                for size in decoder.feed(data):
                    yield size

    async def write(self, channel: Channel, data: bytes) -> None:
        if (stream := self._streams.get(channel.name.lower())) is not None:
            stream.write(data)
            await stream.drain()

    async def finish(self, status: Object) -> None:
        if (stdin := self._streams.get("stdin")) is not None:
            stdin.ignore()
        if (text := _status_text(status, self._json_status)) is not None:
            await self.write(Channel.ERROR, text)
        for stream in self._streams.values():
            stream.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                await self._over.wait()  # Closing before the client does could cut off what it has not read.


def _status_text(status: Object, as_json: bool) -> bytes | None:
    if as_json:
        return json.dumps(status, separators=(",", ":")).encode()
    return None if status.get("status") == "Success" else str(status.get("message", "")).encode()
