"""A node's process: the agent, its server and the proxy, inside the node's network and mount namespaces."""

from __future__ import annotations

import logging
import os

from sampan.cluster import logs, processes
from sampan.cluster.config import ClusterConfig
from sampan.cluster.link import PartLink
from sampan.cluster.owner import run_until_told, stop_event
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
    from sampan.client.access import Access
    from sampan.client.https import HttpsClient
    from sampan.network.pods import RoutedPodNetwork
    from sampan.network.routes import NodeRoutes
    from sampan.node.agent import NodeAgent
    from sampan.node.config import NodeConfig
    from sampan.node.images.service import LocalImages
    from sampan.node.images.store import ImageStore
    from sampan.node.runtime.oci import OciRuntime
    from sampan.node.server import NodeServer
    from sampan.proxy.proxy import Proxy

    stop = stop_event()
    pki = config.directory / "pki"
    own = pki / "nodes" / node
    root = config.node_directory(node)
    client = HttpsClient(
        Access(
            f"https://{config.bridge_address}:{config.api_port}",
            ca=pki / "ca.crt",
            certificate=own / "client.crt",
            key=own / "client.key",
        ),
        user_agent=f"sampan-node/{node}",
    )
    address = config.node_address(node)
    network = RoutedPodNetwork(config.node_pod_cidr(node), address, root / "leases")
    images = LocalImages(ImageStore(config.images_directory), config.registries_file)
    runtime = OciRuntime(
        state=str(root / "runtime"),
        run=str(config.run_directory / "nodes" / node),
        images=images.image_status,
        network=network,
        cgroup_parent=config.node_cgroup(node),
    )
    agent = NodeAgent(
        client,
        runtime,
        images,
        NodeConfig(
            name=node,
            ip=address,
            root=root,
            pod_cidr=config.node_pod_cidr(node),
            cgroup_root=config.node_cgroup(node),
        ),
    )
    server = NodeServer(
        agent.streams, certificate=own / "server.crt", key=own / "server.key", client_ca=pki / "ca.crt"
    )
    link = PartLink(config.run_directory, node)
    proxy = Proxy(
        client,
        node_name=node,
        node_address=address,
        pod_cidr=config.pod_cidr,
        service_cidr=config.service_cidr,
    )
    try:
        await server.start(address)
        link.ready(True)
        await run_until_told(
            {
                "link": link.run(),
                "agent": agent.run(),
                "proxy": proxy.run(),
                "routes": NodeRoutes(client, node).run(),
            },
            stop,
        )
    finally:
        await server.close()
        await client.close()
        network.close()
