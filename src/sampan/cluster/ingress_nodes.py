"""Which nodes have a front door, and what comes in at it: `--ingress-nodes`, `--no-ingress` and `--ingress-proxy-protocol`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sampan.api.front_doors import ALL, Terms

if TYPE_CHECKING:
    from sampan.client.types import Client
    from sampan.cluster.config import ClusterConfig
    from sampan.cluster.wishes import Wishes

NONE = "none"
_NAME_HERE = re.compile(r"node-[0-9]+")
"""The names that nodes on the cluster's own machine get."""


def problems(wishes: Wishes, nodes: tuple[str, ...], *, new: bool = True) -> list[str]:
    """What is wrong with what was wished for. `nodes` are those on this machine; a cluster that is not new may have others."""
    if wishes.ingress_nodes is None:
        return []
    if not wishes.ingress and wishes.ingress_nodes != NONE:
        return ["--ingress-nodes and --no-ingress: only one of them can be given"]
    unknown = [n for n in _split(wishes.ingress_nodes) if n not in (*nodes, ALL, NONE)]
    if not new:
        from sampan.api.validation.formats import dns1123_subdomain

        unknown = [n for n in unknown if _NAME_HERE.fullmatch(n) or dns1123_subdomain(n)]
    allowed = f"allowed are all, or some of {', '.join(nodes)}{'' if new else ' and machines that joined'}"
    return [f"--ingress-nodes: there is no node {n!r}; {allowed}" for n in unknown]


async def not_there(client: Client, config: ClusterConfig) -> list[str]:
    """Those that were chosen and are no nodes. Raises StatusError, ConnectionLost."""
    from sampan.api.resources import NODES

    there = {str(n["metadata"]["name"]) for n in (await client.list(NODES)).items}
    return [n for n in on_other_machines(config) if n not in there]


def on_other_machines(config: ClusterConfig) -> list[str]:
    """The chosen ones that are not on this machine."""
    return [n for n in config.ingress_nodes if n not in (*config.nodes, ALL, NONE)]


def warning_for_machines(config: ClusterConfig) -> str:
    """What keeps a machine that joins from being a front door, "" if nothing does."""
    if not chosen(config):
        return (
            f"cluster {config.name} has no front door (--no-ingress): the machine's stays shut until"
            " `sampan up --ingress-nodes ...` opens it"
        )
    if ALL not in config.ingress_nodes:
        given = ",".join(config.ingress_nodes)
        return (
            f"cluster {config.name} has front doors on {given} only: a machine's stays shut unless its name is one of them"
            f" (sampan up --ingress-nodes {given},NAME)"
        )
    return ""


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
    """Who may be a front door, and what nodes on other machines are told; of a cluster without any, nobody: a machine may be named `none`."""
    return Terms(config.ingress_nodes if chosen(config) else (), config.ingress_proxy_protocol)


def _split(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(n.strip() for n in text.split(",") if n.strip())) or (ALL,)
