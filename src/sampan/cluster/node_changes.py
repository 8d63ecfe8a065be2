"""Nodes that come and go while their cluster runs: one more on this machine, or one less of any kind."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import shutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sampan.api.errors import Object, StatusError
from sampan.api.objects import condition_true
from sampan.api.resources import NODES
from sampan.cluster import asking, dns_process, link, pki, processes, teardown
from sampan.cluster import config as configuration
from sampan.cluster.config import MOST_NODES, ClusterConfig
from sampan.cluster.drain import drain
from sampan.cluster.errors import ClusterError
from sampan.linux.mounts import remove_tree, unmount_below
from sampan.network import host, namespaces

if TYPE_CHECKING:
    from sampan.client.types import Client

READY_TIMEOUT = 60.0


def add(config: ClusterConfig, say: Callable[[str], None]) -> str:
    """Start one more node of a cluster that runs on this machine; returns its name when it is Ready. To be called under
    `locked()`. Raises ClusterError, with nothing left behind."""
    if len(config.nodes) >= MOST_NODES:
        raise ClusterError(
            f"cluster {config.name} has {MOST_NODES} nodes on this machine: more are not allowed"
        )

    async def present(client: Client) -> Sequence[Object]:
        return (await client.list(NODES)).items

    node = _free_name(config, asking.ask(config, present))
    grown = dataclasses.replace(config, nodes=(*config.nodes, node))
    grown.save()
    try:
        pki.ensure(grown)
        for part in (node, dns_process.part(node)):
            link.ask(config.run_directory, "start", part=part)
        say(f"starting {node}")
        asking.ask(config, lambda client: _until_ready(client, node))
    except BaseException as e:
        problem = _problem(config, node)
        _end(grown, node)
        config.save()
        with contextlib.suppress(ClusterError):
            asking.ask(config, lambda client: _forget(client, node))
        if isinstance(e, TimeoutError):
            raise ClusterError(
                f"{node} is not Ready after {READY_TIMEOUT:.0f} s{f': {problem}' if problem else ''}"
            ) from None
        raise
    return node


def remove(
    config: ClusterConfig, node: str, *, force: bool, timeout: float, say: Callable[[str], None]
) -> bool:
    """Drain a node and delete it; whether it was one of this machine's. Raises ClusterError, where pods cannot leave it with
    the node as it was, but for new pods."""
    ours = node in config.nodes
    if ours and node == config.nodes[0]:
        raise ClusterError(
            f"{node} cannot be removed: this host reaches the cluster's Services and published ports through it"
        )

    async def empty(client: Client) -> None:
        try:
            await client.get(NODES, "", node)
        except StatusError as e:
            if e.code == 404 and ours:
                return
            if e.code == 404:
                raise ClusterError(f"cluster {config.name} has no node {node!r}") from None
            raise
        await drain(client, node, force=force, timeout=timeout, say=say)

    # Without the lock, for which every other cluster of this machine would wait: pods may take their time.
    asking.ask(config, empty)
    with configuration.locked(say):
        config = configuration.existing(config.name)
        if node in config.nodes:
            _end(config, node)
            dataclasses.replace(config, nodes=tuple(n for n in config.nodes if n != node)).save()
        asking.ask(config, lambda client: _forget(client, node))
    return ours


def _free_name(config: ClusterConfig, present: Sequence[Object]) -> str:
    """The first name whose addresses and ranges nobody has; a machine that joined may have been given such a range."""
    names = {n["metadata"]["name"] for n in present}
    taken = [
        ipaddress.ip_network(cidr) for n in present for cidr in (n.get("spec") or {}).get("podCIDRs") or ()
    ]
    pods = [ipaddress.ip_network(cidr) for cidr in config.pod_cidrs]
    for number in range(1, MOST_NODES + 1):
        name = f"node-{number}"
        if name in config.nodes or name in names:
            continue
        ranges = [ipaddress.ip_network(cidr) for cidr in config.node_pod_cidrs(name)]
        inside = all(
            int(whole.network_address) <= int(part.network_address)
            and int(part.broadcast_address) <= int(whole.broadcast_address)
            for part, whole in zip(ranges, pods, strict=True)
        )
        if inside and not any(a.version == b.version and a.overlaps(b) for a in ranges for b in taken):
            return name
    raise ClusterError(f"no pod range of {', '.join(config.pod_cidrs)} is free for one more node")


async def _until_ready(client: Client, node: str) -> None:
    """Raises TimeoutError."""
    from sampan.client.informer import Informer

    nodes = Informer(client, NODES, field_selector=f"metadata.name={node}")
    ready = asyncio.Event()
    nodes.add_handler(
        lambda old, new: ready.set() if new is not None and condition_true(new, "Ready") else None
    )
    following = asyncio.create_task(nodes.run())
    try:
        async with asyncio.timeout(READY_TIMEOUT):
            await ready.wait()
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _forget(client: Client, node: str) -> None:
    try:
        await client.delete(NODES, "", node)
    except StatusError as e:
        if e.code != 404:
            raise


def _problem(config: ClusterConfig, node: str) -> str:
    try:
        parts = link.ask(config.run_directory, "status")["parts"]
    except link.NotRunning:
        return ""
    return next((str(p["problem"]) for p in parts if p["name"] == node), "")


def _end(config: ClusterConfig, node: str) -> None:
    """Take a node of this machine away: its processes, its network, its files. May be repeated."""
    with contextlib.suppress(link.NotRunning):
        for part in (node, dns_process.part(node)):
            link.ask(config.run_directory, "end", part=part)
    processes.end_all(config.node_cgroup(node), grace=teardown.CONTAINER_GRACE)
    namespaces.remove(config.node_netns(node), config.node_mntns(node))
    host.remove_node(config.node_host_link(node), config.node_pod_cidrs(node))
    processes.remove_cgroups(config.node_cgroup(node))
    for directory in (config.node_directory(node), config.run_directory / "nodes" / node):
        unmount_below(directory)
        remove_tree(directory)
    shutil.rmtree(config.directory / "pki" / "nodes" / node, ignore_errors=True)
    for part in (node, dns_process.part(node)):
        (config.directory / "logs" / f"{part}.log").unlink(missing_ok=True)
