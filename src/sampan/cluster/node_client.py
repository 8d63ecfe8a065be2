"""A node's own client of the API, for the processes that are the node: its agent and its DNS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.cluster.config import ClusterConfig

if TYPE_CHECKING:
    from sampan.client.https import HttpsClient


def node_client(config: ClusterConfig, node: str, agent: str) -> HttpsClient:
    """With the node's certificate, at the address of the cluster's bridge. `agent` says in logs who it is."""
    from sampan.client.access import Access
    from sampan.client.https import HttpsClient

    pki = config.directory / "pki"
    own = pki / "nodes" / node
    return HttpsClient(
        Access(
            f"https://{config.bridge_address}:{config.api_port}",
            ca=pki / "ca.crt",
            certificate=own / "client.crt",
            key=own / "client.key",
        ),
        user_agent=f"{agent}/{node}",
    )
