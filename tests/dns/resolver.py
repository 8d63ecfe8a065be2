"""Name servers of other people, as tests want them: what they answer is said beforehand, and they tell what they were asked."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

Reply = Callable[[dns.message.Message], dns.message.Message | bytes | None]


class Upstream:
    """Listens by UDP and TCP at one address. `records` are lines of a zone file; a name that has none does not exist."""

    def __init__(self, address: str, *records: str) -> None:
        self.address = address
        self.records = [line.split(None, 4) for line in records]
        self.asked: list[str] = []
        self.sources: list[int] = []
        self.ids: list[int] = []
        self.reply: Reply = self.usual
        self.by_tcp: Reply = self.usual
        self._transport: asyncio.DatagramTransport | None = None

    def usual(self, query: dns.message.Message) -> dns.message.Message | bytes | None:
        question = query.question[0]
        made = dns.message.make_response(query, recursion_available=True)
        name = question.name.to_text().lower()
        known = [r for r in self.records if r[0].lower() == name]
        for owner, ttl, class_, kind, data in known:
            if kind in (dns.rdatatype.to_text(question.rdtype), "CNAME"):
                made.answer.append(dns.rrset.from_text(owner, int(ttl), class_, kind, data))
        if not made.answer:
            made.authority.append(dns.rrset.from_text("example.", 600, "IN", "SOA", "ns. mail. 1 2 3 4 77"))
        if not known:
            made.set_rcode(dns.rcode.NXDOMAIN)
        return made

    def note(self, query: dns.message.Message, port: int) -> None:
        question = query.question[0]
        self.asked.append(f"{question.name} {dns.rdatatype.to_text(question.rdtype)}")
        self.sources.append(port)
        self.ids.append(query.id)

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        self.note(query, peer[1])
        answer = self.reply(query)
        if answer is not None:
            assert self._transport is not None
            self._transport.sendto(
                answer if isinstance(answer, bytes) else answer.to_wire(max_size=65535), peer
            )

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None: ...

    def error_received(self, error: Exception) -> None: ...

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            (size,) = struct.unpack("!H", await reader.readexactly(2))
            query = dns.message.from_wire(await reader.readexactly(size))
            self.note(query, 0)
            answer = self.by_tcp(query)
            assert isinstance(answer, dns.message.Message)
            data = answer.to_wire(max_size=65535)
            writer.write(struct.pack("!H", len(data)) + data)
            await writer.drain()
        writer.close()

    @contextlib.asynccontextmanager
    async def running(self, port: int = 53) -> AsyncIterator[Upstream]:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, (self.address, port))  # type: ignore[arg-type]
        server = await asyncio.start_server(self._serve_tcp, self.address, port)
        try:
            yield self
        finally:
            transport.close()
            server.close()


async def ask(
    address: str, name: str, kind: str = "A", *, port: int = 53, tcp: bool = False, source: str = "", timeout: float = 5,
    message: dns.message.Message | None = None,
) -> dns.message.Message:  # fmt: skip
    """One question to a server, as a client of no imagination asks it."""
    asked = message or dns.message.make_query(name, kind, use_edns=0, payload=1232)
    loop = asyncio.get_running_loop()
    kind_ = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind_) as sock:
        sock.setblocking(False)
        if source:
            sock.bind((source, 0))
        async with asyncio.timeout(timeout):
            await loop.sock_connect(sock, (address, port))
            data = asked.to_wire()
            await loop.sock_sendall(sock, struct.pack("!H", len(data)) + data if tcp else data)
            answer = await loop.sock_recv(sock, 65535)
            if tcp:
                while len(answer) < 2 + int.from_bytes(answer[:2], "big"):
                    answer += await loop.sock_recv(sock, 65535)
                answer = answer[2:]
    return dns.message.from_wire(answer, one_rr_per_rrset=True)


def lines(message: dns.message.Message) -> list[str]:
    """The answer section, sorted, its code before it."""
    return [dns.rcode.to_text(message.rcode()), *sorted(str(r) for r in message.answer)]
