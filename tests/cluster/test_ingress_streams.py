"""What is no plain request and answer, from a client through the cluster's front door to a backend of it (each in detail: tests/ingress)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.cluster.front_door import NEEDED, FrontDoor, outside
from tests.ingress.http2 import Http2Upstream
from tests.ingress.test_streams import Streams, send_events, talk, upgrade
from tests.real_cluster import run

pytestmark = NEEDED
LARGE = 100_000_000
PIECE = b"x" * 1_000_000


def lead_to(door: FrontDoor, name: str, port: int, **service_port: object) -> None:
    """Have a host lead to a port of this machine, and wait until it does."""
    backend = outside(name, door.cluster.config.bridge_address, port, **service_port)
    door.apply(*backend, door.ingress(name, [(f"{name}.org", "/", "Prefix", name)]))
    door.wait_address(name)


@asynccontextmanager
async def conversation(door: FrontDoor, name: str, request: bytes) -> AsyncIterator[tuple[Streams, Streams]]:
    """A request for a host of this name, which a backend has got the head of: the client's streams, and the backend's."""
    arrived: asyncio.Queue[Streams] = asyncio.Queue()
    server = await asyncio.start_server(
        lambda *streams: arrived.put_nowait(streams), door.cluster.config.bridge_address, 0
    )
    await asyncio.to_thread(lead_to, door, name, server.sockets[0].getsockname()[1])
    async with asyncio.timeout(60):
        while True:  # until the node that has the address knows the host
            client = await asyncio.open_connection(door.address, 80)
            client[1].write(request)
            answered, came = asyncio.ensure_future(client[0].read(1)), asyncio.ensure_future(arrived.get())
            await asyncio.wait((answered, came), return_when=asyncio.FIRST_COMPLETED)
            answered.cancel()
            await asyncio.gather(answered, return_exceptions=True)
            if came.done():
                break
            came.cancel()
            client[1].close()
        backend = came.result()
        await backend[0].readuntil(b"\r\n\r\n")
        yield client, backend
    for _, writer in (client, backend):
        writer.close()
    server.close()


async def test_a_websocket(front_door: FrontDoor) -> None:
    async with conversation(front_door, "socket", upgrade("socket.org")) as (client, backend):
        await talk(client, backend)


async def test_events_come_as_they_are_sent(front_door: FrontDoor) -> None:
    asked = b"GET /events HTTP/1.1\r\nHost: events.org\r\nAccept: text/event-stream\r\n\r\n"
    async with conversation(front_door, "events", asked) as (client, backend):
        await send_events(client, backend)


async def test_a_large_upload_is_not_kept_back(front_door: FrontDoor) -> None:
    asked = b"POST /up HTTP/1.1\r\nHost: upload.org\r\nContent-Length: %d\r\n\r\n" % LARGE
    async with conversation(front_door, "upload", asked) as ((reader, writer), (got, say)):
        # The first piece is there before the second one is sent.
        writer.write(PIECE)
        assert await got.readexactly(len(PIECE)) == PIECE

        async def send() -> None:
            for _ in range(LARGE // len(PIECE) - 1):
                writer.write(PIECE)
                await writer.drain()

        sending = asyncio.ensure_future(send())
        left = LARGE - len(PIECE)
        while left:
            left -= len(await got.read(1 << 20))
        await sending
        say.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert b" 204 " in await reader.readuntil(b"\r\n\r\n")


async def test_a_grpc_call(front_door: FrontDoor) -> None:
    """HTTP/2 from end to end, as the Service's port says, with what comes after the body."""
    call = ["-X", "POST", "-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary", "x"]

    def called(*options: str) -> str:
        url = ["--connect-to", f"::{front_door.address}:", *options]
        return run(["curl", "-skS", "-m", "5", "-D", "-", *call, *url]).out

    async with Http2Upstream(address=front_door.cluster.config.bridge_address) as upstream:
        port = upstream.endpoint.port
        await asyncio.to_thread(lead_to, front_door, "grpc", port, appProtocol="kubernetes.io/h2c")
        for url in (
            ("--http2-prior-knowledge", "http://grpc.org/pkg.Svc/Call"),
            ("--http2", "https://grpc.org/pkg.Svc/Call"),
        ):
            async with asyncio.timeout(20):
                while (said := await asyncio.to_thread(called, *url)).startswith("HTTP/2 404"):
                    pass
            assert said.startswith("HTTP/2 200"), said
            assert "two /pkg.Svc/Call" in said
            assert "grpc-status: 0" in said
