"""What the server tells by HTTP, where its Corefile says so: `prometheus`, `health` and `ready`."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from sampan.dns import metrics, settings
from sampan.dns.answering import Answering
from sampan.dns.listeners import Bind, family_of

log = logging.getLogger(__name__)
_LONGEST_HEAD = 8192
_PATIENCE = 5.0
_LOOPBACK = {"localhost": "127.0.0.1"}


class Pages:
    """Listens at what the configuration says; an address without a host stands for those of the server itself, so that the
    ports stay free for Pods in the node's network."""

    def __init__(self, bind: Bind, addresses: Sequence[str], answering: Answering, version: str) -> None:
        self._bind = bind
        self._addresses = addresses
        self._answering = answering
        self._version = version
        self._servers: dict[tuple[str, str], list[asyncio.Server]] = {}
        self.ready = False

    async def use(self, configuration: settings.Settings) -> None:
        """Listen where this says, and nowhere else. What cannot be had is logged."""
        wanted = {
            (name, address)
            for name, address in (
                ("/metrics", configuration.prometheus),
                ("/health", configuration.health),
                ("/ready", configuration.ready),
            )
            if address
        }
        for key in self._servers.keys() - wanted:
            for server in self._servers.pop(key):
                server.close()
        for path, address in wanted - self._servers.keys():
            try:
                self._servers[path, address] = [s async for s in self._listen(path, address)]
            except OSError as e:
                log.error("%s is not served at %s: %s", path, address, e)

    async def _listen(self, path: str, address: str) -> AsyncIterator[asyncio.Server]:
        host, _, port = address.rpartition(":")
        host = _LOOPBACK.get(host, host).strip("[]")
        hosts = [host] if host and not ipaddress.ip_address(host).is_unspecified else self._addresses
        page = {"/metrics": self._metrics, "/health": self._health, "/ready": self._is_ready}[path]
        for one in hosts:
            sock = self._bind(family_of(one), socket.SOCK_STREAM, one, int(port))
            yield await asyncio.start_server(_serving(path, page), sock=sock, limit=_LONGEST_HEAD)

    def close(self) -> None:
        for servers in self._servers.values():
            for server in servers:
                server.close()

    def _metrics(self) -> tuple[int, str]:
        self._answering.count_kept()
        return 200, metrics.text(self._answering.counts, self._answering.resolver, self._version)

    def _health(self) -> tuple[int, str]:
        return 200, "OK"

    def _is_ready(self) -> tuple[int, str]:
        return (200, "OK") if self.ready else (503, "kubernetes")


def _serving(
    path: str, page: Callable[[], tuple[int, str]]
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
                words = head.split(b"\r\n", 1)[0].split()
                known = len(words) > 1 and words[0] in (b"GET", b"HEAD") and words[1].partition(b"?")[0] == path.encode()  # fmt: skip
                code, text = page() if known else (404, "404 page not found\n")
                body = text.encode()
                kind = "text/plain; version=0.0.4" if path == "/metrics" else "text/plain"
                reason = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}[code]
                writer.write(
                    f"HTTP/1.1 {code} {reason}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
                    "Connection: close\r\n\r\n".encode()
                    + (b"" if words[:1] == [b"HEAD"] else body)
                )
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    return serve
