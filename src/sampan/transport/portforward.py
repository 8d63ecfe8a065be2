"""port-forward: connections to a pod's ports as streams of one connection.

Over SPDY each forwarded connection is a pair of streams (`data`, and `error` for what went wrong) with a common
`requestid`; newer clients tunnel that same SPDY through a WebSocket. The older WebSocket form has two channels
for each port that the request names, hence one connection a port.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from sampan.api.errors import bad_request
from sampan.transport import spdy, websocket
from sampan.transport.bytestream import CHUNK, ByteStream, SocketStream
from sampan.transport.remotecommand import V4, spdy_headers, spdy_protocol
from sampan.transport.types import Request, Upgrade

log = logging.getLogger("sampan.transport.portforward")

PORT_FORWARD = "portforward.k8s.io"
TUNNEL = "SPDY/3.1+portforward.k8s.io"
_PAIR_TIMEOUT = 30.0

OpenPort = Callable[[int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""Connects to a port of the pod's localhost. Raises OSError (or whatever tells the user why not)."""


def upgrade(request: Request, open_port: OpenPort, pod: str) -> Upgrade:
    """The answer that forwards ports on the connection of `request`; `pod` names the target in messages. Raises
    StatusError where the client asks for no upgrade, or speaks none of our protocols."""
    if websocket.is_websocket(request):
        if TUNNEL in websocket.offered(request.headers):

            async def run_tunnel(socket: websocket.WebSocket) -> None:
                await _SpdyForward(websocket.Tunnel(socket), open_port, pod).run()

            return websocket.upgrade(request, (TUNNEL,), run_tunnel)
        ports = _ports(request)

        async def run(socket: websocket.WebSocket) -> None:
            await _ChannelForward(socket, open_port, pod, ports).run()

        return websocket.upgrade(request, (V4,), run)
    protocol = spdy_protocol(request, (PORT_FORWARD,))

    async def run_spdy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _SpdyForward(SocketStream(reader, writer), open_port, pod).run()

    return Upgrade(run_spdy, spdy_headers(protocol))


def _ports(request: Request) -> list[int]:
    given = [p for name in ("port", "ports") for v in request.params.get(name, ()) for p in v.split(",") if p]
    if not given:
        raise bad_request('query parameter "port" is required')
    for text in given:
        if not text.isdigit() or not 0 < int(text) < 65536:
            raise bad_request(f"invalid port {text!r}: it must be from 1 to 65535")
    return [int(text) for text in given]


def _problem(port: int, pod: str, failure: Exception) -> str:
    return f"error forwarding port {port} to pod {pod}: {failure or type(failure).__name__}"


class _SpdyForward:
    """The forwarded connections of one SPDY session."""

    def __init__(self, transport: ByteStream, open_port: OpenPort, pod: str) -> None:
        self._transport = transport
        self._open_port = open_port
        self._pod = pod
        self._waiting: dict[str, dict[str, spdy.Stream]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._session = spdy.Session(transport, server=True, accept=self._opened)

    async def run(self) -> None:
        try:
            await self._session.run()
        except (ConnectionError, spdy.ProtocolError) as failure:
            log.info("port-forward to %s ended: %s", self._pod, failure)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _opened(self, stream: spdy.Stream) -> None:
        kind, request = stream.headers.get("streamtype", ""), stream.headers.get("requestid", "")
        port = stream.headers.get("port", "")
        pair = self._waiting.get(request, {})
        valid = kind in ("data", "error") and kind not in pair and port.isdigit() and 0 < int(port) < 65536
        if not valid or not request:
            stream.reset()
            return
        pair[kind] = stream
        self._waiting[request] = pair
        if len(pair) == 1:
            asyncio.get_running_loop().call_later(_PAIR_TIMEOUT, self._give_up, request, pair)
            return
        del self._waiting[request]
        task = asyncio.create_task(self._forward(pair["data"], pair["error"], int(port)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _give_up(self, request: str, pair: dict[str, spdy.Stream]) -> None:
        if self._waiting.get(request) is pair:
            del self._waiting[request]
            for stream in pair.values():
                stream.reset()

    async def _forward(self, data: spdy.Stream, error: spdy.Stream, port: int) -> None:
        error.ignore()
        try:
            reader, writer = await self._open_port(port)
        except Exception as failure:  # the opener is the caller's: whatever it raises is the client's to read
            log.info("%s", _problem(port, self._pod, failure))
            error.write(_problem(port, self._pod, failure).encode())
            data.ignore()
        else:
            upload = asyncio.create_task(_upload(data, writer))
            try:
                while chunk := await reader.read(CHUNK):
                    data.write(chunk)
                    await data.drain()
            except ConnectionError as failure:
                error.write(_problem(port, self._pod, failure).encode())
            finally:
                # The pod's end has closed: nobody is left to take what the client still sends.
                upload.cancel()
                await asyncio.gather(upload, return_exceptions=True)
                data.ignore()
                writer.close()
        data.close()
        error.close()
        with suppress(ConnectionError):
            await data.drain()


async def _upload(data: spdy.Stream, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await data.read():
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


class _ChannelForward:
    """The older form: port number i of the request is channel 2i, its errors are channel 2i + 1."""

    def __init__(self, socket: websocket.WebSocket, open_port: OpenPort, pod: str, ports: list[int]) -> None:
        self._socket = socket
        self._open_port = open_port
        self._pod = pod
        self._ports = ports
        self._uploads: list[asyncio.Queue[bytes]] = [asyncio.Queue(maxsize=16) for _ in ports]
        self._done = [False] * len(ports)

    async def run(self) -> None:
        for number, port in enumerate(self._ports):
            for channel in (2 * number, 2 * number + 1):
                self._socket.send(bytes((channel,)) + port.to_bytes(2, "little"))
        tasks = [asyncio.create_task(self._forward(n, port)) for n, port in enumerate(self._ports)]
        receiving = asyncio.create_task(self._receive())
        everything = asyncio.gather(*tasks)
        try:
            await asyncio.wait((receiving, everything), return_when=asyncio.FIRST_COMPLETED)
        finally:
            everything.cancel()
            receiving.cancel()
            await asyncio.gather(*tasks, receiving, return_exceptions=True)

    async def _receive(self) -> None:
        while (message := await self._socket.receive()) is not None:
            if not message.data:
                continue
            number, is_error = divmod(message.data[0], 2)
            if not is_error and number < len(self._ports) and not self._done[number] and message.data[1:]:
                await self._uploads[number].put(message.data[1:])

    async def _forward(self, number: int, port: int) -> None:
        try:
            reader, writer = await self._open_port(port)
        except Exception as failure:  # the opener is the caller's: whatever it raises is the client's to read
            self._fail(number, port, failure)
            return
        upload = asyncio.create_task(self._upload(number, writer))
        try:
            while chunk := await reader.read(CHUNK):
                self._socket.send(bytes((2 * number,)) + chunk)
                await self._socket.drain()
        except ConnectionError as failure:
            self._fail(number, port, failure)
        finally:
            self._done[number] = True
            upload.cancel()
            await asyncio.gather(upload, return_exceptions=True)
            queue = self._uploads[number]
            while not queue.empty():
                queue.get_nowait()
            writer.close()

    def _fail(self, number: int, port: int, failure: Exception) -> None:
        self._done[number] = True
        self._socket.send(bytes((2 * number + 1,)) + _problem(port, self._pod, failure).encode())

    async def _upload(self, number: int, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while True:
                writer.write(await self._uploads[number].get())
                await writer.drain()
