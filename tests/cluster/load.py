"""Requests without pause, counted: what became of them while something happens to the cluster."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

from bench import rolling_update
from bench.rolling_update import Outcome


@contextmanager
def asked(*addresses: str, host: str) -> Iterator[dict[str, Outcome]]:
    """Ask each address for a host, at port 80, as long as the block lasts; what became of it, by address."""
    made: SimpleQueue[tuple[dict[tuple[str, int], Outcome], asyncio.AbstractEventLoop, asyncio.Event]] = (
        SimpleQueue()
    )

    async def go() -> None:
        over = asyncio.Event()
        async with rolling_update.load([(address, 80) for address in addresses], 1, host) as found:
            made.put((found, asyncio.get_running_loop(), over))
            await over.wait()

    thread = threading.Thread(target=asyncio.run, args=(go(),), daemon=True)
    thread.start()
    found, loop, over = made.get(timeout=10)
    try:
        yield {address: found[address, 80] for address in addresses}
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
