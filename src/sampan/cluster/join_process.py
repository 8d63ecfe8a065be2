"""The process of a machine that joined: the parts of a node (`node_parts`) on the machine's own network, in the foreground.

It needs the API for news only: what it was told last is kept, so that it comes back while the cluster is away. Where its own
address or the range of its pods changes, or a renewed certificate says something else of whether it may be a front door, the parts
begin anew; containers go on all the while.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import logging
import os
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sampan.cluster import dns_process, logs, node_parts, preflight, processes
from sampan.cluster.errors import ClusterError
from sampan.cluster.joined import DIRECTORY, IMAGES, RUN_DIRECTORY, JoinedNode, registries_file
from sampan.cluster.node_parts import HIDDEN_FROM_NODES, NodePlace
from sampan.cluster.owner import stop_event
from sampan.network import host, namespaces, own_address

if TYPE_CHECKING:
    from sampan.api.errors import Object
    from sampan.client.https import HttpsClient

log = logging.getLogger(__name__)
PORT = 10250
_FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
_ASK_AGAIN = 1.0


def problems_of_machine(addresses: tuple[str, ...]) -> list[str]:
    """What keeps this machine from being a node, beside what keeps it from having one."""
    found = []
    for version in sorted({ipaddress.ip_address(a).version for a in addresses} or {4}):
        setting = _FORWARDING[version]
        if Path("/proc/sys", setting.replace(".", "/")).read_text().strip() != "1":
            found.append(f"{setting} is 0: pods could reach nobody; set it: sysctl -w {setting}=1")
    for address in addresses:
        if not own_address.link_of(address):
            found.append(f"--address {address} is none of this machine's addresses")
        elif why := _busy(address, PORT):
            found.append(f"port {PORT} of {address} {why}")
    return found


def check_machine(addresses: tuple[str, ...]) -> None:
    """Raises ClusterError that lists all that keeps this machine from being a node."""
    found = preflight.problems_of_host()
    if not found:
        found = problems_of_machine(addresses)
    if found:
        raise ClusterError("this machine cannot be a node: " + "; ".join(found))


def _busy(address: str, port: int) -> str:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((address, port))
        except OSError as e:
            return f"is not free: {os.strerror(e.errno or 0)}"
    return ""


def addresses_of(node: JoinedNode) -> tuple[str, ...]:
    """The addresses by which this machine is known now: given ones, or the one that it reaches the API by, and one of the
    other family where the cluster has it and the machine too. Raises ClusterError."""
    if node.addresses:
        return node.addresses
    where = urlsplit(node.server).hostname or ""
    try:
        first = own_address.towards(where)
    except OSError as e:
        raise ClusterError(f"this machine has no way to {where}: {e.strerror or e}") from e
    versions = {ipaddress.ip_network(c).version for c in node.cluster_pod_cidrs}
    found = [first]
    for version in versions - {ipaddress.ip_address(first).version}:
        # Documentation prefixes: nobody is asked anything, only which way a packet would go.
        probe = "192.0.2.1" if version == 4 else "2001:db8::1"
        with contextlib.suppress(OSError):
            found.append(own_address.towards(probe))
    return tuple(found)


def run(node: JoinedNode) -> None:
    """Be the node until SIGTERM or SIGINT; its containers go on. Blocks; makes its own loop. The process must have a single
    thread and hold the node (`joined.held`). Raises ClusterError."""
    from sampan.node.certificate import held

    logs.configure()
    check_machine(addresses_of(node))
    certificate = held(node.client_certificate)
    if certificate is None or not certificate.valid():
        raise ClusterError(
            "the certificate of this node has ended, or is not there: join again with a new token (`sampan token create`"
            " where the cluster runs prints the command)"
        )
    processes.join(f"{node.cgroup}/agent")
    namespaces.prepare_directories(RUN_DIRECTORY / "ns")
    namespaces.create(None, node.mntns, sysctls={}, hide=HIDDEN_FROM_NODES)
    namespaces.enter(None, node.mntns)
    # conmon writes a file named `oom` where it is started when a container is killed for want of memory.
    os.chdir(RUN_DIRECTORY)
    import uvloop

    uvloop.run(_serve(node))


async def _serve(node: JoinedNode) -> None:
    from sampan.client.access import Access
    from sampan.client.https import HttpsClient

    stop = stop_event()
    own = node.client_certificate
    while not stop.is_set():
        # Connections of an address that is gone would wait for answers for minutes: a new client each time.
        client = HttpsClient(
            Access(node.server, ca=node.ca, certificate=own, key=own), user_agent=f"sampan-node/{node.name}"
        )
        try:
            node = await _told(node, client, stop)
            if not stop.is_set():
                node = await _once(node, client, stop)
        finally:
            await client.close()


async def _once(node: JoinedNode, client: HttpsClient, stop: asyncio.Event) -> JoinedNode:
    """Run the node until it has to begin anew or end; what it is then."""
    from sampan.node.certificate import NodeCertificate, Wanted

    addresses = addresses_of(node)
    uplink = own_address.link_of(addresses[0])
    if len(addresses) < len(node.cluster_pod_cidrs):
        log.warning(
            "this machine has no address of its pods' second family: they reach nobody beyond it by that"
        )
    log.info(
        "node %s at %s (%s), pods %s", node.name, ", ".join(addresses), uplink, ", ".join(node.pod_cidrs)
    )
    await asyncio.to_thread(host.masquerade_pods_here, uplink, node.cluster_pod_cidrs)
    anew = asyncio.Event()
    ingress_log = _access_log(node)
    changes = _Changes(node, addresses, client, anew, front_door=ingress_log is not None)
    wanted = Wanted(node.name, front_door=node.ingress)
    own = NodeCertificate(client, wanted, node.client_certificate, renewed=changes.certificate_renewed)
    serving = NodeCertificate(client, Wanted(node.name, (node.name, *addresses)), node.server_certificate)
    place = NodePlace(
        name=node.name,
        addresses=addresses,
        pod_cidrs=node.pod_cidrs,
        ranges_given=True,
        cluster_pod_cidrs=node.cluster_pod_cidrs,
        service_cidrs=node.service_cidrs,
        dns_addresses=tuple(str(ipaddress.ip_network(cidr)[10]) for cidr in node.service_cidrs),
        uplink=uplink,
        root=DIRECTORY / "node",
        run=RUN_DIRECTORY / "node",
        cgroup=node.cgroup,
        images=IMAGES,
        registries=registries_file(),
        certificate=node.server_certificate,
        key=node.server_certificate,
        client_ca=node.ca,
        labels=node.labels,
        taints=node.taints,
        ingress_log=ingress_log,
        ingress_as_told=True,
    )
    more: dict[str, Coroutine[Any, Any, None]] = {
        "client certificate": own.run(),
        "serving certificate": serving.run(),
        "links": own_address.follow(changes.addresses_changed.set),
        "address": changes.follow_addresses(),
        "ranges": changes.follow_node(),
        "end": _when(stop, anew),
        "dns": dns_process.here(client, node.name, place.dns_addresses),
    }
    await node_parts.run(place, client, anew, more, serving.ready)
    return changes.node


def _access_log(node: JoinedNode) -> Path | None:
    """That of the machine's front door; None where it cannot be one or is not to be."""
    from sampan.node.certificate import held

    if not node.ingress:
        return None
    certificate = held(node.client_certificate)
    if certificate is None or not certificate.front_door:
        log.warning("this machine is no front door: its certificate does not say any more that it may be one")
        return None
    if not preflight.program("haproxy"):
        log.warning("this machine is no front door: haproxy is missing: apt-get install haproxy")
        return None
    directory = DIRECTORY / "logs"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory / "ingress.log"


async def _when(stop: asyncio.Event, anew: asyncio.Event) -> None:
    await stop.wait()
    anew.set()
    await asyncio.Event().wait()


class _Changes:
    """Tells by `anew` that the node's parts must begin anew, as `node`."""

    def __init__(
        self,
        node: JoinedNode,
        addresses: tuple[str, ...],
        client: HttpsClient,
        anew: asyncio.Event,
        *,
        front_door: bool,
    ) -> None:
        self.node = node
        self._addresses = addresses
        self._client = client
        self._anew = anew
        self._front_door = front_door
        self.addresses_changed = asyncio.Event()
        """Or links, or routes."""

    async def follow_addresses(self) -> None:
        """One that is gone without another in its place changes nothing: there would be no way to tell anybody."""
        while True:
            await self.addresses_changed.wait()
            self.addresses_changed.clear()
            try:
                now = await asyncio.to_thread(addresses_of, self.node)
            except ClusterError:
                continue
            if now != self._addresses and all(map(own_address.link_of, now)):
                log.info("the address of this machine is %s now", ", ".join(now))
                self._anew.set()

    async def certificate_renewed(self) -> None:
        """The cluster's owner may have taken back, or given, the right to be a front door since."""
        await self._client.reconnect()
        if (_access_log(self.node) is not None) != self._front_door:
            self._anew.set()

    async def follow_node(self) -> None:
        """Watch what the control plane says the ranges of this node's pods are."""
        from sampan.api.resources import NODES
        from sampan.client.informer import Informer

        def changed(old: Object | None, new: Object | None) -> None:
            ranges = _ranges(new)
            if ranges and ranges != self.node.pod_cidrs:
                self.node = dataclasses.replace(self.node, pod_cidrs=ranges)
                self.node.save()
                self._anew.set()

        nodes = Informer(self._client, NODES, field_selector=f"metadata.name={self.node.name}")
        nodes.add_handler(changed)
        await nodes.run()


async def _told(node: JoinedNode, client: HttpsClient, stop: asyncio.Event) -> JoinedNode:
    """The node with ranges for its pods: those it had, or, the first time, what the control plane gives to its Node."""
    if node.pod_cidrs:
        return node
    from sampan.api.errors import StatusError
    from sampan.client.types import ConnectionLost

    asking = asyncio.create_task(_registered(node, client))
    stopping = asyncio.create_task(stop.wait())
    try:
        while not stop.is_set():
            await asyncio.wait((asking, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                break
            try:
                return asking.result()
            except (StatusError, ConnectionLost) as e:
                log.warning("node %s: %s", node.name, e)
            await asyncio.sleep(_ASK_AGAIN)
            asking = asyncio.create_task(_registered(node, client))
    finally:
        for task in (asking, stopping):
            task.cancel()
        await asyncio.gather(asking, stopping, return_exceptions=True)
    return node


async def _registered(node: JoinedNode, client: HttpsClient) -> JoinedNode:
    """Make the Node, with nothing in it but what is the user's wish, and wait for its ranges. The agent fills it later."""
    from sampan.api.errors import StatusError
    from sampan.api.resources import NODES
    from sampan.client.informer import Informer

    wanted: Object = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": {"kubernetes.io/hostname": node.name, **node.labels}},
        "spec": {"taints": list(node.taints)} if node.taints else {},
    }
    try:
        await client.create(NODES, wanted)
    except StatusError as e:
        if e.reason != "AlreadyExists":
            raise
    nodes = Informer(client, NODES, field_selector=f"metadata.name={node.name}")
    given: asyncio.Future[tuple[str, ...]] = asyncio.get_running_loop().create_future()

    def changed(old: Object | None, new: Object | None) -> None:
        if (ranges := _ranges(new)) and not given.done():
            given.set_result(ranges)

    nodes.add_handler(changed)
    following = asyncio.create_task(nodes.run())
    try:
        log.info("node %s waits for a range for its pods", node.name)
        told = dataclasses.replace(node, pod_cidrs=await given)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    told.save()
    return told


def _ranges(node: Object | None) -> tuple[str, ...]:
    return tuple(((node or {}).get("spec") or {}).get("podCIDRs") or ())
