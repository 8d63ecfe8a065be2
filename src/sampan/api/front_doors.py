"""What makes a node a front door of the cluster, by which HTTP comes in: a group in its certificate, a condition of its Node, and
what the cluster's owner chose, which the class `sampan` tells to nodes on machines of their own."""

from __future__ import annotations

from dataclasses import dataclass

from sampan.api.errors import Object

FRONT_DOORS = "sampan:front-doors"
"""The group of those nodes that serve Ingresses, beside `system:nodes`: it is in their certificates. A machine may ask for it with a
token that allows it, and a node keeps it by its own certificate (`controllers/certificates/approving.py`); no node gets it by itself."""
CONDITION = "IngressServing"
"""The condition of a Node whose front door is open: whoever is led to front doors is led to these. Nodes without the group cannot set
it, and lose it when they next write their Node (`apiserver/admission/node_restriction.py`)."""
CLASS = "sampan"
"""The IngressClass (and GatewayClass) of the front doors."""
ALL = "all"
_NODES, _PROXY_PROTOCOL = "sampan.io/front-doors", "sampan.io/front-doors-proxy-protocol"


@dataclass(frozen=True, slots=True)
class Terms:
    """Which nodes may be front doors, by name (or `ALL`), and whether what comes to them begins with a PROXY header."""

    nodes: tuple[str, ...] = (ALL,)
    proxy_protocol: bool = False

    def choose(self, node: str) -> bool:
        return ALL in self.nodes or node in self.nodes

    def annotations(self) -> dict[str, str]:
        """How the class says it."""
        return {_NODES: ",".join(self.nodes), _PROXY_PROTOCOL: "true" if self.proxy_protocol else "false"}


EVERY_NODE = Terms()
"""Where nothing was chosen."""


def terms_of(ingress_class: Object) -> Terms:
    """What a class says; what it does not say is as `Terms` has it."""
    said = ingress_class["metadata"].get("annotations") or {}
    nodes = tuple(n for n in said.get(_NODES, ALL).split(",") if n)
    return Terms(nodes, said.get(_PROXY_PROTOCOL) == "true")
