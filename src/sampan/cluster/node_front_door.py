"""A node's front door while the node runs: open, shut, or, on a machine that joined, as the cluster's owner has it at the moment.

It is no reason for the node to end, whatever it meets, and nothing waits for it at the start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sampan.api.front_doors import CLASS, Terms, terms_of

if TYPE_CHECKING:
    from sampan.client.types import Client
    from sampan.cluster.node_parts import NodePlace
    from sampan.node.registration import Registration

NONE_THERE = "the cluster has no front door (--no-ingress of `sampan up`)"
NOT_CHOSEN = "--ingress-nodes of `sampan up` does not name this node"


async def run(client: Client, place: NodePlace, registration: Registration) -> None:
    """Until cancelled; a proxy that serves goes on."""
    await registration.ready.wait()
    from sampan.client.restarting import again_and_again

    log_file = place.ingress_log
    work: Callable[[], Coroutine[Any, Any, None]]
    if log_file is None:
        work = partial(_none, client, place, registration)
    elif place.ingress_as_told:
        work = partial(_as_told, client, place, log_file)
    else:
        work = partial(_open, client, place, log_file, place.ingress_proxy_protocol)
    await again_and_again("ingress", work)


async def _open(client: Client, place: NodePlace, log_file: Path, proxy_protocol: bool) -> None:
    from sampan.ingress.front_door import FrontDoor

    await FrontDoor(
        client,
        node_name=place.name,
        addresses=place.addresses,
        directory=_directory(place),
        access_log_file=log_file,
        own_networks=(*place.cluster_pod_cidrs, *place.service_cidrs, *place.addresses),
        proxy_protocol=proxy_protocol,
        # Of a machine that joined, strangers see no more than was asked for.
        metrics_address="127.0.0.1" if place.ingress_as_told else "",
    ).run()


async def _none(client: Client, place: NodePlace, registration: Registration) -> None:
    """Nobody is led to this node, which may have had a front door before."""
    from sampan.ingress import serving

    await _shut(place)
    await serving.take_back(client, registration.node)
    await asyncio.Event().wait()


async def _shut(place: NodePlace) -> None:
    """End the proxy that whoever was here before us left, if any."""
    if not _directory(place).exists():
        return
    from sampan.ingress.haproxy.files import Files
    from sampan.ingress.haproxy.process import Process

    files = Files(_directory(place), place.addresses)
    process = Process(files, "haproxy", files.directory / "haproxy.log")
    if process.adopt():
        await process.end()


async def _as_told(client: Client, place: NodePlace, log_file: Path) -> None:
    """As the class of the front doors says it, which goes with the last of them."""
    from sampan.api.resources import INGRESSCLASSES
    from sampan.client.informer import Informer

    changed = asyncio.Event()
    classes = Informer(client, INGRESSCLASSES, field_selector=f"metadata.name={CLASS}")

    def told() -> Terms | None:
        there = classes.get("", CLASS)
        return None if there is None else terms_of(there)

    async with asyncio.TaskGroup() as group:
        group.create_task(classes.run(), name="class of front doors")
        await classes.synced.wait()
        classes.add_handler(lambda old, new: changed.set())
        while True:
            terms = told()
            door = group.create_task(_under(terms, client, place, log_file), name="front door")
            while told() == terms:
                changed.clear()
                await changed.wait()
            door.cancel()
            await asyncio.wait([door])


async def _under(terms: Terms | None, client: Client, place: NodePlace, log_file: Path) -> None:
    if terms is not None and terms.choose(place.name):
        await _open(client, place, log_file, terms.proxy_protocol)
        return
    from sampan.ingress import serving

    await _shut(place)
    await serving.tell(client, place.name, False, NONE_THERE if terms is None else NOT_CHOSEN)
    await asyncio.Event().wait()


def _directory(place: NodePlace) -> Path:
    return place.run / "ingress"
