"""One node's speaker as a process of its own, for tests: `speaker_process.py NODE NODE=ADDRESS,... ADDRESS,...`.

It has an API to itself, in memory, with these nodes and one Service that has these addresses; every process is told the same.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

from sampan.api.resources import NODES, SERVICES
from sampan.apiserver.app import App
from sampan.client.types import Client
from sampan.loadbalancer.requests import FROM_POOL
from sampan.loadbalancer.speaker import Speaker
from sampan.network import links
from sampan.network.netlink import NETLINK_ROUTE, Netlink
from sampan.store.memory import MemoryStore
from tests.apiserver.conftest import config


async def main(node: str, nodes: dict[str, str], addresses: list[str]) -> None:
    app = App(MemoryStore(), config())
    await app.start()
    client = app.client()
    await _fill(client, nodes, addresses)
    netlink = Netlink(NETLINK_ROUTE)
    networks = links.networks_of(netlink, "eth0")
    netlink.close()
    speaker = Speaker(client, node_name=node, address=nodes[node], uplink="eth0", networks=networks)
    task = asyncio.ensure_future(speaker.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        await app.close()


async def _fill(client: Client, nodes: dict[str, str], addresses: list[str]) -> None:
    for name, address in nodes.items():
        status = {"addresses": [{"type": "InternalIP", "address": address}]}
        await client.create(
            NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status}
        )
    service: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default", "annotations": {FROM_POOL: "default"}},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    }
    await client.create(SERVICES, service)
    ingress = [{"ip": a, "ipMode": "VIP"} for a in addresses]
    await client.patch(
        SERVICES, "default", "web", {"status": {"loadBalancer": {"ingress": ingress}}}, subresource="status"
    )


if __name__ == "__main__":
    known = {name: address for name, _, address in (t.partition("=") for t in sys.argv[2].split(","))}
    asyncio.run(main(sys.argv[1], known, sys.argv[3].split(",")))
