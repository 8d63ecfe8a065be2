"""Connections into a pod's network namespace (port-forward)."""

from __future__ import annotations

import asyncio
import os
import socket

from sampan.linux.syscalls import CLONE_NEWNET, setns
from sampan.node.runtime.pause import in_own_thread


def _socket(netns: str, family: socket.AddressFamily) -> socket.socket:
    descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(descriptor, CLONE_NEWNET)
    finally:
        os.close(descriptor)
    return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


async def connect(netns: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to localhost:`port` of the namespace at `netns`, or of our own where that is empty: IPv4 first,
    then IPv6. Raises OSError that says why neither took it."""
    loop = asyncio.get_running_loop()
    refused: OSError | None = None
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        # Only making the socket needs the namespace; it stays in it wherever it is used.
        if netns:
            connection = await in_own_thread(lambda family=family: _socket(netns, family))  # type: ignore[misc]
        else:
            connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await loop.sock_connect(connection, (address, port))
        except OSError as error:
            connection.close()
            refused = refused or error
            continue
        return await asyncio.open_connection(sock=connection)
    assert refused
    why = os.strerror(refused.errno or 0).lower()
    raise type(refused)(f"failed to connect to localhost:{port} inside the pod: {why}")
