"""NodePorts offered on the host (`--publish`): a plain TCP forwarder for each, in the control-plane process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

from sampan.cluster.config import Publication

log = logging.getLogger(__name__)
_CHUNK = 1 << 16
_Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Publisher:
    """Forwards each publication's port to its NodePort on `node_address`."""

    def __init__(self, publications: Sequence[Publication], node_address: str) -> None:
        self._publications = publications
        self._node_address = node_address

    async def run(self) -> None:
        """Until cancelled. Raises OSError where a port cannot be had."""
        async with contextlib.AsyncExitStack() as servers:
            for one in self._publications:
                server = await asyncio.start_server(self._handler(one.node_port), one.address, one.port)
                await servers.enter_async_context(server)
            await asyncio.Event().wait()

    def _handler(self, node_port: int) -> _Serve:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                there = await asyncio.open_connection(self._node_address, node_port)
            except OSError as e:
                log.debug("node port %d: %s", node_port, e)
                writer.transport.abort()  # the client sees a reset, as from the NodePort itself
                return
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_pump(reader, there[1]))
                    group.create_task(_pump(there[0], writer))
            except* OSError:
                pass
            finally:
                for w in (writer, there[1]):
                    w.close()

        return serve


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the end, and pass the end on."""
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
