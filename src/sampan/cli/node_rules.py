"""`sampan node rules`: what a node's proxy has in the kernel, in words."""

from __future__ import annotations


def show(cluster: str, service: str, node: str) -> str:
    """The rules of a Service (`name` or `namespace/name`; "": of all) on a node ("": the first). Raises ClusterError."""
    from sampan.cluster import config as configuration
    from sampan.cluster.errors import ClusterError
    from sampan.network.netlink import NETLINK_NETFILTER, Netlink
    from sampan.proxy import words

    config = configuration.existing(cluster)
    node = node or config.nodes[0]
    if node not in config.nodes:
        raise ClusterError(f"cluster {cluster} has no node {node} here: it has {', '.join(config.nodes)}")
    try:
        netlink = Netlink.inside(str(config.node_netns(node)), NETLINK_NETFILTER)
    except FileNotFoundError:
        raise ClusterError(f"node {node} is not running: sampan up --name {cluster}") from None
    try:
        key = service if not service or "/" in service else f"default/{service}"
        shown = words.explain(words.read(netlink), key)
    finally:
        netlink.close()
    if not shown:
        raise ClusterError(
            f"node {node} has no rules for Service {key}: it may be headless or another's"
            if key
            else f"node {node} has no rules"
        )
    return shown
