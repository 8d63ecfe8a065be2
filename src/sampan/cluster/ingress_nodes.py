"""Which nodes have a front door, and what comes in at it: `--ingress-nodes`, `--no-ingress` and `--ingress-proxy-protocol`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sampan.api.front_doors import ALL, Terms

if TYPE_CHECKING:
    from sampan.cluster.config import ClusterConfig
    from sampan.cluster.wishes import Wishes

NONE = "none"


def problems(wishes: Wishes, nodes: tuple[str, ...]) -> list[str]:
    """What is wrong with what was wished for."""
    if wishes.ingress_nodes is None:
        return []
    if not wishes.ingress and wishes.ingress_nodes != NONE:
        return ["--ingress-nodes and --no-ingress: only one of them can be given"]
    unknown = [n for n in _split(wishes.ingress_nodes) if n not in (*nodes, ALL, NONE)]
    allowed = f"allowed are all, or some of {', '.join(nodes)}"
    return [f"--ingress-nodes: there is no node {n!r}; {allowed}" for n in unknown]


def wished(wishes: Wishes) -> dict[str, object]:
    """The changes to a configuration."""
    changes: dict[str, object] = {}
    if wishes.ingress_proxy_protocol is not None:
        changes["ingress_proxy_protocol"] = wishes.ingress_proxy_protocol
    if not wishes.ingress:
        changes["ingress_nodes"] = (NONE,)
    elif wishes.ingress_nodes is not None:
        changes["ingress_nodes"] = _split(wishes.ingress_nodes)
    return changes


def chosen(config: ClusterConfig) -> bool:
    """Whether the cluster has a front door at all."""
    return NONE not in config.ingress_nodes


def on(config: ClusterConfig, node: str) -> bool:
    """Whether a node has one."""
    return chosen(config) and terms(config).choose(node)


def terms(config: ClusterConfig) -> Terms:
    """What nodes on other machines are told, of a cluster that has a front door."""
    return Terms(config.ingress_nodes, config.ingress_proxy_protocol)


def _split(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(n.strip() for n in text.split(",") if n.strip())) or (ALL,)
