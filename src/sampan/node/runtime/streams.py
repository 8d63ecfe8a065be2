"""asyncio streams over descriptors that the event loop has no transports for: packet sockets, terminals."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress

CHUNK = 64 * 1024


class Source(asyncio.ReadTransport):
    """Reads a non-blocking descriptor into StreamReaders and stops while they are full.

    `receive` returns data, empty at the end; `deliver` passes it on; `ended` is called once and closes.
    """

    def __init__(
        self,
        descriptor: int,
        receive: Callable[[], bytes],
        deliver: Callable[[bytes], None],
        ended: Callable[[], None],
    ) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._receive = receive
        self._deliver = deliver
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._loop.add_reader(descriptor, self._readable)

    def _readable(self) -> None:
        try:
            data = self._receive()
        except BlockingIOError:
            return
        except OSError:
            data = b""  # a terminal whose other side has closed says EIO
        if data:
            self._deliver(data)
        else:
            self.close()

    def pause_reading(self) -> None:
        if self._open:
            self._loop.remove_reader(self._descriptor)

    def resume_reading(self) -> None:
        if self._open:
            self._loop.add_reader(self._descriptor, self._readable)

    def is_closing(self) -> bool:
        return not self._open

    def close(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._descriptor)
            self._ended()


class Sink(asyncio.WriteTransport):
    """Writes to a non-blocking descriptor what it takes and queues the rest.

    `send` returns how much was taken; `finish` is called once, when the end has been asked for and all is sent.
    """

    def __init__(self, descriptor: int, send: Callable[[bytes], int], finish: Callable[[], None]) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._send = send
        self._finish = finish
        self._loop = asyncio.get_running_loop()
        self._protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
        self._buffer = bytearray()
        self._waiting = False
        self._ending = False
        self._finished = False
        self.writer = asyncio.StreamWriter(self, self._protocol, None, self._loop)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._ending or self._finished:
            return
        self._buffer += data
        if not self._waiting:
            self._flush()

    def _flush(self) -> None:
        while self._buffer and not self._finished:
            try:
                del self._buffer[: self._send(bytes(self._buffer[:CHUNK]))]
            except BlockingIOError:
                break
            except OSError:  # nobody reads any more
                self._buffer.clear()
                self._ending = True
        if bool(self._buffer) is not self._waiting:
            self._waiting = bool(self._buffer)
            if self._waiting:
                self._protocol.pause_writing()
                self._loop.add_writer(self._descriptor, self._flush)
            else:
                self._loop.remove_writer(self._descriptor)
                self._protocol.resume_writing()
        if self._ending and not self._buffer:
            self.abort()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._ending = True
        if not self._waiting:
            self._flush()

    def is_closing(self) -> bool:
        return self._ending

    def close(self) -> None:
        self.write_eof()

    def abort(self) -> None:
        """End at once; what is queued is lost."""
        if self._finished:
            return
        self._finished = self._ending = True
        if self._waiting:
            self._loop.remove_writer(self._descriptor)
            self._waiting = False
            self._protocol.resume_writing()
        self._finish()
        self._protocol.connection_lost(None)


def pipe_reader(descriptor: int) -> tuple[asyncio.StreamReader, Source]:
    """A reader of a pipe or terminal, which it owns."""
    os.set_blocking(descriptor, False)
    reader = asyncio.StreamReader()

    def ended() -> None:
        os.close(descriptor)
        reader.feed_eof()

    source = Source(descriptor, lambda: os.read(descriptor, CHUNK), reader.feed_data, ended)
    reader.set_transport(source)  # a full reader pauses it
    return reader, source


def pipe_writer(descriptor: int) -> Sink:
    """A writer to a pipe or terminal, which it owns."""
    os.set_blocking(descriptor, False)

    def finish() -> None:
        with suppress(OSError):
            os.close(descriptor)

    return Sink(descriptor, lambda data: os.write(descriptor, data), finish)
