"""HTTP/2 without TLS, as gRPC speaks it: a backend, and a client."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events

from sampan.ingress.types import Endpoint


class Http2Upstream:
    """Answers each request on HTTP/2 with its name, the path and the headers `x-m-...`, and trailers, as gRPC does."""

    def __init__(
        self, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1", name: str = "two"
    ) -> None:
        self._tls, self._address, self._name = tls, address, name

    async def __aenter__(self) -> Http2Upstream:
        self._server = await asyncio.start_server(self._serve, self._address, 0, ssl=self._tls)
        self.endpoint = Endpoint(self._address, self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *args: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
        )
        connection.initiate_connection()
        asked: dict[int, str] = {}
        with contextlib.suppress(OSError, h2.exceptions.ProtocolError):
            writer.write(connection.data_to_send())
            while data := await reader.read(65536):
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.RequestReceived):
                        headers = [(str(k), str(v)) for k, v in event.headers]
                        shown = [f"{k}={v}" for k, v in headers if k.startswith("x-m-")]
                        asked[event.stream_id] = " ".join([self._name, dict(headers)[":path"], *shown])
                    elif isinstance(event, h2.events.StreamEnded):
                        stream = event.stream_id
                        connection.send_headers(
                            stream, [(":status", "200"), ("content-type", "application/grpc")]
                        )
                        connection.send_data(stream, asked.pop(stream).encode())
                        connection.send_headers(stream, [("grpc-status", "0")], end_stream=True)
                writer.write(connection.data_to_send())
        writer.close()


@dataclass
class Answered:
    """What a call came to: its status of HTTP, the body, and the trailers."""

    status: str = ""
    body: str = ""
    trailers: dict[str, str] = field(default_factory=dict)


async def call(
    port: int, path: str = "/pkg.Svc/Call", *metadata: tuple[str, str], host: str = "foo.com"
) -> Answered:
    """A call over HTTP/2 from the client on."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    headers = [(":method", "POST"), (":scheme", "http"), (":authority", host), (":path", path)]
    connection.send_headers(
        1, [*headers, ("content-type", "application/grpc"), ("te", "trailers"), *metadata]
    )
    connection.send_data(1, b"\0" * 5, end_stream=True)
    writer.write(connection.data_to_send())
    found = Answered()
    try:
        async with asyncio.timeout(10):
            while data := await reader.read(65536):
                for event in connection.receive_data(data):
                    if isinstance(event, h2.events.ResponseReceived):
                        found.status = {str(k): str(v) for k, v in event.headers}[":status"]
                    elif isinstance(event, h2.events.DataReceived):
                        found.body += event.data.decode()
                    elif isinstance(event, h2.events.TrailersReceived):
                        found.trailers = {str(k): str(v) for k, v in event.headers}
                    elif isinstance(event, h2.events.StreamEnded):
                        return found
    finally:
        writer.close()
    raise ConnectionError("the answer has no end")
