"""What rules cost the front door's proxy, beside 10, 1,000 and 10,000 of them, each with a host of its own: a start with all, the memory of
HAProxy and of what drives it, one rule more from the table to its first right answer, and a request.

    python -m bench.ingress_rules [--rules 10 1000 10000] [--changes 30]

Needs `haproxy`. All on loopback; ten rules lead to each Service. Each line is a Markdown row.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.figures import quantile
from bench.ingress_certificates import memory, proxy
from sampan.ingress.table import RoutingTable
from sampan.ingress.types import (
    EVERY_PATH,
    INGRESS_SCOPE,
    Backend,
    Contribution,
    Endpoint,
    Host,
    Listener,
    Place,
    Route,
    ServicePort,
    Source,
    Target,
)

_PORT = 28080
_OF_A_SERVICE = 10
_REQUESTS = 2000


def contribution(number: int) -> tuple[Source, Contribution]:
    """An object with one rule."""
    source = Source("Ingress", "bench", f"i{number}")
    place = Place(INGRESS_SCOPE, Host.of_ingress(f"h{number}.test"), EVERY_PATH)
    target = Target(Backend(ServicePort("bench", f"s{number // _OF_A_SERVICE}", 80)), 1)
    return source, Contribution(routes=(Route(place, (target,), source, (number,)),))


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The pod behind all Services."""
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    except asyncio.IncompleteReadError:
        writer.close()


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def status(self, host: str) -> int:
        self._writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().splitlines()
            if line.startswith(b"content-length")
        )
        await self._reader.readexactly(length)
        return int(head.split()[1])


async def measure(count: int, changes: int) -> str:
    gc.collect()
    before = memory("self")
    table = RoutingTable()
    table.set_listeners([Listener("http", _PORT, INGRESS_SCOPE)])
    pod = await asyncio.start_server(_answer, "127.0.0.1", 0)
    endpoint = Endpoint("127.0.0.1", pod.sockets[0].getsockname()[1], pod="pod")

    def add(number: int) -> None:
        source, wanted = contribution(number)
        table.update(source.owner, wanted)
        table.set_endpoints(wanted.routes[0].targets[0].backend.port, (endpoint,))

    began = time.perf_counter()
    for number in range(count):
        add(number)
    with tempfile.TemporaryDirectory() as directory:
        async with proxy(table, Path(directory)) as (driver, process):
            start = time.perf_counter() - began
            ours, theirs = memory("self") - before, memory(process.worker)
            client = Client(*await asyncio.open_connection("127.0.0.1", _PORT))
            took = []
            for number in range(count, count + changes):
                began = time.perf_counter()
                add(number)
                driver.apply(table.routing, table.take_change())
                while await client.status(f"h{number}.test") != 200:
                    pass
                took.append(1000 * (time.perf_counter() - began))
            began = time.perf_counter()
            for number in range(_REQUESTS):
                assert await client.status(f"h{number * 7919 % count}.test") == 200
            request = 1000 * (time.perf_counter() - began) / _REQUESTS
            reloads = driver.reloads
    pod.close()
    middle, p99 = statistics.median(took), quantile(took, 0.99)
    return f"| {count:,} | {1000 * start:,.0f} | {theirs:.1f} | {ours:.1f} | {middle:.1f} | {p99:.1f} | {request:.2f} | {reloads} |"


async def run(counts: Sequence[int], changes: int) -> None:
    print(
        "| rules | start, ms | HAProxy, MB | driver, MB more | one rule more, ms | p99 | a request, ms | reloads |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for count in counts:
        print(await measure(count, changes), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ingress_rules", description=__doc__)
    parser.add_argument("--rules", type=int, nargs="+", default=[10, 1000, 10000])
    parser.add_argument("--changes", type=int, default=30)
    o = parser.parse_args()
    asyncio.run(run(o.rules, o.changes))


if __name__ == "__main__":
    main()
