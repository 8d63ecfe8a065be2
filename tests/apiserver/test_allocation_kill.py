"""kill -9 in the middle of making and deleting Services: nothing is given twice, and what is nobody's comes back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sampan.api.resources import IPADDRESSES, SERVICES
from sampan.apiserver.allocation.repair import GRACE_SECONDS, LEAK_ROUNDS, Repair
from sampan.apiserver.app import App
from sampan.client.events import Recorder
from sampan.store.sqlite import open_store

from .conftest import config
from .killing import run_and_kill

WRITER = """
import asyncio, sys
from pathlib import Path
from sampan.api.errors import StatusError
from sampan.api.resources import SERVICES
from sampan.apiserver.app import App
from sampan.store.sqlite import open_store
from tests.apiserver.conftest import config

async def write(client, n):
    i = 0
    while True:
        i += 1
        body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"s{n}-{i}", "namespace": "default"},
                "spec": {"type": "NodePort", "ports": [{"port": 80}]}}
        await client.create(SERVICES, body)
        if i % 3 == 0:
            await client.delete(SERVICES, "default", f"s{n}-{i - 1}")
        if n == 0 and i == 10:
            print("enough", flush=True)

async def main():
    app = App(await open_store(Path(sys.argv[1])), config())
    await app.start()
    async with asyncio.TaskGroup() as group:
        for n in range(16):
            group.create_task(write(app.client(), n))

asyncio.run(main())
"""


@pytest.mark.parametrize("after", [0.0, 0.005, 0.02])
async def test_killed_in_the_middle(tmp_path: Path, after: float) -> None:
    await run_and_kill(WRITER, tmp_path, after)

    store = await open_store(tmp_path / "db")
    app = App(store, config())
    await app.start()
    services = [s for s in app.cache.list(SERVICES) if s["metadata"]["name"] != "kubernetes"]
    ips = [s["spec"]["clusterIP"] for s in services]
    ports = [p["nodePort"] for s in services for p in s["spec"]["ports"]]
    assert len(services) > 100
    assert len(set(ips)) == len(ips)
    assert len(set(ports)) == len(ports)
    for service in services:
        address = app.cache.get(IPADDRESSES, "", service["spec"]["clusterIP"])
        assert address is not None
        assert address["spec"]["parentRef"]["name"] == service["metadata"]["name"]
    allocator = app._allocator
    assert set(ports) <= set(await allocator.node_ports.read() or ())

    later = time.time() + GRACE_SECONDS + 1
    recorder = Recorder(app.client(), "test")
    repair = Repair(store, app.cache, allocator, recorder, recorder, clock=lambda: later)
    for _ in range(LEAK_ROUNDS + 1):
        await repair.once()
    left = {a["metadata"]["name"] for a in app.cache.list(IPADDRESSES)}
    assert left == {*ips, "10.96.0.1"}
    assert set(await allocator.node_ports.read() or ()) == set(ports)
    await app.close()
    await store.close()
