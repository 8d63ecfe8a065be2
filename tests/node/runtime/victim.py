"""A process that makes and removes pods until it is killed. Prints a line before each step."""

from __future__ import annotations

import asyncio
import itertools
import sys

from runtime.conftest import Images, LoopbackNetwork, Place
from runtime.contract import container


async def main(directory: str, rootfs: str, cgroup: str) -> None:
    place = Place(directory, Images(rootfs), LoopbackNetwork())
    place.cgroup = cgroup
    runtime = await place.runtime()
    for number in itertools.count():
        print("sandbox", flush=True)
        sandbox = await runtime.run_pod_sandbox(place.sandbox(f"pod{number}"))
        print("create", flush=True)
        id = await runtime.create_container(sandbox.id, container("sleep", "1000"))
        print("start", flush=True)
        await runtime.start_container(id)
        print("running", flush=True)
        if number % 3 == 2:
            print("remove", flush=True)
            await runtime.remove_pod_sandbox(sandbox.id)


asyncio.run(main(*sys.argv[1:]))
