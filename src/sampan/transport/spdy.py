"""SPDY/3.1 as `kubectl` speaks it for exec, attach and port-forward: the framing as values (`Framer`), and `Session`,
its streams on asyncio.

Like the library on the other end, neither side limits what it sends by SPDY's windows: TCP holds back whoever is
too fast, for the whole session at once. WINDOW_UPDATE and SETTINGS are read and let pass.
"""

from __future__ import annotations

import asyncio
import enum
import struct
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from sampan.transport.bytestream import CHUNK, ByteStream

VERSION = 3
_MAX_HEADERS = 256 * 1024

_DICTIONARY_NAMES = (
    "options|head|post|put|delete|trace|accept|accept-charset|accept-encoding|accept-language|accept-ranges|age|allow|"
    "authorization|cache-control|connection|content-base|content-encoding|content-language|content-length|"
    "content-location|content-md5|content-range|content-type|date|etag|expect|expires|from|host|if-match|"
    "if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|location|max-forwards|pragma|"
    "proxy-authenticate|proxy-authorization|range|referer|retry-after|server|te|trailer|transfer-encoding|upgrade|"
    "user-agent|vary|via|warning|www-authenticate|method|get|status|200 OK|version|HTTP/1.1|url|public|set-cookie|"
    "keep-alive|origin"
)
_DICTIONARY_TAIL = (
    b"100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    b"203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    b"403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    b"Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    b"chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    b"text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = (
    b"".join(struct.pack(">I", len(n)) + n.encode() for n in _DICTIONARY_NAMES.split("|")) + _DICTIONARY_TAIL
)
"""What both sides' header compression starts from (draft-mbelshe-httpbis-spdy-00, 2.6.10.1); Adler-32 e3c6a7c2."""


class Type(enum.IntEnum):
    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


FIN = 0x01
_PROTOCOL_ERROR = 1
_CANCEL = 5


class ProtocolError(Exception):
    """The peer broke the protocol; the session cannot go on."""


@dataclass(frozen=True, slots=True)
class Control:
    """A control frame. `value` is the ping's id, the status of a RST_STREAM or GOAWAY, the size of a WINDOW_UPDATE."""

    type: Type
    stream: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    value: int = 0
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    stream: int
    data: bytes
    fin: bool = False


class Framer:
    """One side's framing: frames to bytes and bytes to frames, with the header compression's state."""

    def __init__(self) -> None:
        self._pack = zlib.compressobj(9, zlib.DEFLATED, 15, zdict=DICTIONARY)
        self._unpack = zlib.decompressobj(15, zdict=DICTIONARY)
        self._buffer = bytearray()

    def encode(self, frame: Control | Data) -> bytes:
        if isinstance(frame, Data):
            flags = FIN if frame.fin else 0
            return struct.pack(">II", frame.stream, flags << 24 | len(frame.data)) + frame.data
        match frame.type:
            case Type.SYN_STREAM:
                body = struct.pack(">IIH", frame.stream, 0, 0) + self._pack_headers(frame.headers)
            case Type.SYN_REPLY | Type.HEADERS:
                body = struct.pack(">I", frame.stream) + self._pack_headers(frame.headers)
            case Type.PING:
                body = struct.pack(">I", frame.value)
            case Type.SETTINGS:
                body = struct.pack(">I", 0)
            case _:
                body = struct.pack(">II", frame.stream, frame.value)
        flags = FIN if frame.fin else 0
        return struct.pack(">HHI", 0x8000 | VERSION, frame.type, flags << 24 | len(body)) + body

    def feed(self, data: bytes) -> list[Control | Data]:
        """Take bytes; the frames that are complete now. Raises ProtocolError."""
        buffer = self._buffer
        buffer += data
        out: list[Control | Data] = []
        at = 0
        while len(buffer) - at >= 8:
            first, second = struct.unpack_from(">II", buffer, at)
            size = second & 0xFFFFFF
            if len(buffer) - at < 8 + size:
                break
            body = bytes(buffer[at + 8 : at + 8 + size])
            at += 8 + size
            fin = bool(second >> 24 & FIN)
            if not first & 0x80000000:
                out.append(Data(first, body, fin))
            elif (frame := self._control(first, body, fin)) is not None:
                out.append(frame)
        del buffer[:at]
        return out

    def _control(self, first: int, body: bytes, fin: bool) -> Control | None:
        if (first >> 16) & 0x7FFF != VERSION:
            raise ProtocolError(f"SPDY version {(first >> 16) & 0x7FFF} is not supported")
        try:
            kind = Type(first & 0xFFFF)
        except ValueError:
            return None  # The specification has unknown control frames ignored.
        try:
            (stream,) = struct.unpack_from(">I", body)
            stream &= 0x7FFFFFFF
            match kind:
                case Type.SYN_STREAM:
                    return Control(kind, stream, self._unpack_headers(body[10:]), fin=fin)
                case Type.SYN_REPLY | Type.HEADERS:
                    return Control(kind, stream, self._unpack_headers(body[4:]), fin=fin)
                case Type.PING:
                    return Control(kind, value=struct.unpack_from(">I", body)[0])
                case Type.SETTINGS:
                    return Control(kind)
                case _:
                    return Control(kind, stream, value=struct.unpack_from(">I", body, 4)[0])
        except (struct.error, zlib.error, ValueError) as failure:
            raise ProtocolError(f"malformed {kind.name} frame: {failure}") from failure

    def _pack_headers(self, headers: Mapping[str, str]) -> bytes:
        parts = [struct.pack(">I", len(headers))]
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                parts.append(struct.pack(">I", len(text)) + text)
        return self._pack.compress(b"".join(parts)) + self._pack.flush(zlib.Z_SYNC_FLUSH)

    def _unpack_headers(self, packed: bytes) -> dict[str, str]:
        block = self._unpack.decompress(packed, _MAX_HEADERS)
        if self._unpack.unconsumed_tail:
            raise ValueError("header block is too big")
        (count,) = struct.unpack_from(">I", block)
        at = 4
        texts: list[str] = []
        for _ in range(2 * count):
            (size,) = struct.unpack_from(">I", block, at)
            if at + 4 + size > len(block):
                raise ValueError("header block ends early")
            texts.append(block[at + 4 : at + 4 + size].decode("utf-8", "replace"))
            at += 4 + size
        return {n.lower(): v.replace("\0", ", ") for n, v in zip(texts[::2], texts[1::2], strict=True)}


class Stream:
    """One stream of a session. The peer's bytes wait in a short queue: who does not read holds up the session."""

    def __init__(self, session: Session, number: int, headers: Mapping[str, str]) -> None:
        self.number = number
        self.headers = headers
        self._session = session
        self._incoming: asyncio.Queue[bytes] = asyncio.Queue(maxsize=16)
        self._remote_ended = False  # All has been read, or nothing more will come.
        self._fin_received = False
        self._local_ended = False
        self._unread = False
        self.replied = asyncio.Event()
        """Set when the peer has answered a stream of ours."""

    @property
    def ended(self) -> bool:
        """Whether the peer has ended its half by itself; not so when it reset the stream or has gone."""
        return self._fin_received

    async def read(self) -> bytes:
        """What has come; b"" once the peer has ended its half, reset the stream or gone."""
        if self._remote_ended and self._incoming.empty():
            return b""
        data = await self._incoming.get()
        if not data:
            self._remote_ended = True
        return data

    def write(self, data: bytes) -> None:
        if not self._local_ended:
            for at in range(0, len(data), CHUNK):
                self._session._send(Data(self.number, data[at : at + CHUNK]))

    async def drain(self) -> None:
        await self._session._transport.drain()

    def close(self) -> None:
        """End our half."""
        if not self._local_ended:
            self._local_ended = True
            self._session._send(Data(self.number, b"", fin=True))
            self._forget_if_over()

    def reset(self) -> None:
        """End both halves at once."""
        self._session._send(Control(Type.RST_STREAM, self.number, value=_CANCEL))
        self._local_ended = True
        self.ignore()
        self._session._forget(self)

    def ignore(self) -> None:
        """Read no further: what still comes is thrown away and holds up nothing."""
        self._unread = True
        while not self._incoming.empty():
            self._incoming.get_nowait()
        self._end()

    async def _feed(self, data: bytes) -> None:
        if not self._unread:
            await self._incoming.put(data)

    async def _fed_all(self) -> None:
        """The peer has ended its half."""
        self._fin_received = True
        await self._feed(b"")
        self._forget_if_over()

    def _forget_if_over(self) -> None:
        if self._fin_received and self._local_ended:
            self._session._forget(self)

    def _end(self) -> None:
        """No more will come (reset, or the session is over)."""
        self._remote_ended = True
        with suppress(asyncio.QueueFull):
            self._incoming.put_nowait(b"")  # Wakes a reader; if full there is none waiting.


class Session:
    """The streams of one connection. `accept` is called with each stream that the peer opens, once it has been
    answered; it must not block."""

    def __init__(
        self, transport: ByteStream, *, server: bool, accept: Callable[[Stream], None] | None = None
    ) -> None:
        self._transport = transport
        self._framer = Framer()
        self._accept = accept
        self._streams: dict[int, Stream] = {}
        self._next = 2 if server else 1
        self._going = False

    async def run(self) -> None:
        """Read frames until the peer goes; then every stream ends. Raises ProtocolError, ConnectionError."""
        try:
            while data := await self._transport.read():
                for frame in self._framer.feed(data):
                    await self._handle(frame)
        finally:
            self._going = True
            for stream in self._streams.values():
                stream._end()
                stream.replied.set()

    def open(self, headers: Mapping[str, str], *, fin: bool = False) -> Stream:
        """Open a stream; `fin` ends our half at once."""
        stream = Stream(self, self._next, headers)
        self._next += 2
        self._streams[stream.number] = stream
        stream._local_ended = fin
        self._send(Control(Type.SYN_STREAM, stream.number, headers, fin=fin))
        return stream

    def close(self) -> None:
        """Say goodbye."""
        self._send(Control(Type.GOAWAY))
        self._going = True

    def _send(self, frame: Control | Data) -> None:
        if not self._going:
            self._transport.write(self._framer.encode(frame))

    def _forget(self, stream: Stream) -> None:
        self._streams.pop(stream.number, None)

    async def _handle(self, frame: Control | Data) -> None:
        stream = self._streams.get(frame.stream)
        if isinstance(frame, Data):
            if stream is None:
                return  # Reset by us a moment ago.
            if frame.data:
                await stream._feed(frame.data)
            if frame.fin:
                await stream._fed_all()
        elif frame.type is Type.SYN_STREAM:
            await self._opened(frame, stream)
        elif frame.type is Type.SYN_REPLY:
            if stream is not None:
                stream.replied.set()
        elif frame.type is Type.RST_STREAM:
            if stream is not None:
                stream._local_ended = True
                stream._end()
                stream.replied.set()
                self._forget(stream)
        elif frame.type is Type.PING and frame.value % 2 != self._next % 2:  # The answer to ours needs none.
            self._send(frame)
            await self._transport.drain()

    async def _opened(self, frame: Control, existing: Stream | None) -> None:
        if existing is not None or frame.stream % 2 == self._next % 2 or self._accept is None:
            self._send(Control(Type.RST_STREAM, frame.stream, value=_PROTOCOL_ERROR))
            return
        stream = Stream(self, frame.stream, frame.headers)
        self._streams[frame.stream] = stream
        self._send(Control(Type.SYN_REPLY, frame.stream))
        if frame.fin:
            await stream._fed_all()
        self._accept(stream)
