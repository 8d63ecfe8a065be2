"""Durable writes a second of the store by itself, and the time that the event loop spends on each, for 1, 16 and 64
writers. Every write is on disk before it is acknowledged; writers that wait together share one commit. With `--etcd`, of an
etcd that stands, in which it leaves its keys.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from sampan.store.sqlite import open_store
from sampan.store.types import Store

_VALUE = b"x" * 600


@dataclass(frozen=True, slots=True)
class Writes:
    writers: int
    rate: float
    loop_ms: float
    """CPU of the event loop's thread for each write, in milliseconds; the commit itself is on another thread."""


async def measure(store: Store, writers: int, seconds: float = 2.0) -> Writes:
    """Each writer makes keys of its own, one after the other. Closes the store."""
    count = 0
    mark = store.revision()
    end = time.perf_counter() + seconds

    async def write(writer: int) -> None:
        nonlocal count
        number = 0
        while time.perf_counter() < end:
            number += 1
            await store.create(f"/bench/{mark}/{writer}/{number}", _VALUE)
            count += 1

    began, cpu = time.perf_counter(), time.thread_time()
    await asyncio.gather(*(write(i) for i in range(writers)))
    took, cpu = time.perf_counter() - began, time.thread_time() - cpu
    await store.close()
    return Writes(writers, count / took, cpu / count * 1000)


def run(directory: Path | None = None, etcd: str = "") -> list[Writes]:
    """For 1, 16 and 64 writers; on `directory`'s disk, else where temporary files are, or in the etcd at an endpoint."""
    import uvloop

    async def opened(path: Path) -> Store:
        if etcd:
            from sampan.store import etcd as driver

            return await driver.open_store([etcd], shared=False)
        return await open_store(path)

    async def all_of_them(path: Path) -> list[Writes]:
        return [await measure(await opened(path / f"store-{n}"), n) for n in (1, 16, 64)]

    with tempfile.TemporaryDirectory(prefix="sampan-bench-", dir=directory) as path:
        return uvloop.run(all_of_them(Path(path)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--directory", type=Path, help="on which disk; by default where temporary files are")
    parser.add_argument("--etcd", default="", help="an endpoint, such as http://127.0.0.1:2379")
    options = parser.parse_args()
    print(json.dumps([asdict(w) for w in run(options.directory, options.etcd)], indent=1))


if __name__ == "__main__":
    main()
