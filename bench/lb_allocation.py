"""What one load balancer address costs with so many others: `python -m bench.lb_allocation [SERVICES ...]`.

Prints the time of a decision to give an address and to take it back (`loadbalancer.addresses`), and of one Service from its
creation to the status that shows its address, on an API core in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from contextlib import suppress

from sampan.api.address_ranges import parse
from sampan.api.resources import SERVICES
from sampan.apiserver.app import App
from sampan.loadbalancer import requests
from sampan.loadbalancer.addresses import AddressBook
from sampan.loadbalancer.controller import LoadBalancerController
from sampan.loadbalancer.pools import Pool
from sampan.loadbalancer.requests import Request
from sampan.store.memory import MemoryStore
from tests.apiserver.conftest import config
from tests.controllers.conftest import service

RANGE = "10.200.0.0/16"


def decisions(services: int, rounds: int = 2000) -> float:
    """Microseconds for one address given and taken back."""
    book = AddressBook()
    book.set_pools([Pool("a", (parse(RANGE),))])
    request = Request("default", ("IPv4",), False, frozenset({("TCP", 80)}))
    for i in range(services):
        book.allocate(f"default/{i}", request)
    started = time.perf_counter()
    for _ in range(rounds):
        book.allocate("default/one", request)
        book.release("default/one")
    return (time.perf_counter() - started) / rounds * 1e6


async def whole(services: int, rounds: int = 30) -> float:
    """Milliseconds from the creation of a Service to its status, at the median."""
    app = App(MemoryStore(), config(service_cidrs=("10.96.0.0/12",)))
    await app.start()
    client = app.client()
    task = asyncio.ensure_future(LoadBalancerController(client, [RANGE]).run())
    took: list[float] = []
    for i in range(services + rounds):
        name = f"s{i}"
        started = time.perf_counter()
        made = await client.create(
            SERVICES, service(name, type="LoadBalancer", allocateLoadBalancerNodePorts=False)
        )
        async for event in client.watch(
            SERVICES,
            "default",
            resource_version=made["metadata"]["resourceVersion"],
            field_selector=f"metadata.name={name}",
        ):
            if event.type == "MODIFIED" and requests.given(event.object):
                break
        if i >= services:
            took.append(time.perf_counter() - started)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await app.close()
    return statistics.median(took) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("services", nargs="*", type=int, default=[10, 1000, 10000])
    for services in parser.parse_args().services:
        decided = decisions(services)
        shown = asyncio.run(whole(services))
        print(
            f"{services:6} Services: {decided:6.1f} us a decision, {shown:6.2f} ms from creation to the address"
        )


if __name__ == "__main__":
    main()
