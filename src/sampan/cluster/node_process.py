"""The process of a node of `sampan up`, inside the node's network and mount namespaces; what runs in it: `node_parts`."""

from __future__ import annotations

import logging
import os

from sampan.cluster import ingress_nodes, logs, node_monitoring, node_parts, preflight, processes
from sampan.cluster.config import ClusterConfig
from sampan.cluster.link import PartLink
from sampan.cluster.node_client import node_client
from sampan.cluster.node_parts import NodePlace
from sampan.cluster.owner import stop_event
from sampan.network import namespaces

log = logging.getLogger(__name__)


def run(config: ClusterConfig, node: str) -> None:
    """Run a node until SIGTERM; its containers go on. Blocks; makes its own loop. The process must have one thread,
    and its namespaces must be there."""
    logs.configure(config.logging_format)
    processes.join(f"{config.node_cgroup(node)}/agent")
    namespaces.enter(config.node_netns(node), config.node_mntns(node))
    # conmon writes a file named `oom` where it is started when a container is killed for want of memory.
    directory = config.run_directory / "nodes" / node
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chdir(directory)
    import uvloop

    uvloop.run(_serve(config, node))


async def _serve(config: ClusterConfig, node: str) -> None:

    stop = stop_event()
    pki = config.directory / "pki"
    own = pki / "nodes" / node
    client = node_client(config, node, "sampan-node")
    place = NodePlace(
        name=node,
        addresses=config.node_addresses(node),
        pod_cidrs=config.node_pod_cidrs(node),
        cluster_pod_cidrs=config.pod_cidrs,
        service_cidrs=config.service_cidrs,
        dns_addresses=config.dns_addresses,
        nodeport_addresses=config.nodeport_addresses,
        root=config.node_directory(node),
        run=config.run_directory / "nodes" / node,
        cgroup=config.node_cgroup(node),
        images=config.images_directory,
        registries=config.registries_file,
        certificate=own / "server.crt",
        key=own / "server.key",
        client_ca=pki / "ca.crt",
        ingress_log=config.directory / "logs" / f"ingress-{node}.log"
        if ingress_nodes.on(config, node) and preflight.program("haproxy")
        else None,
        ingress_proxy_protocol=config.ingress_proxy_protocol,
        lease_seconds=node_monitoring.lease_seconds(config.node_monitor_grace_period),
    )
    link = PartLink(config.run_directory, node)
    link.ready(True)
    try:
        await node_parts.run(place, client, stop, {"link": link.run()})
    finally:
        await client.close()
