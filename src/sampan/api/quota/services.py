"""Services: their number, and the node ports and load balancers that they take."""

from __future__ import annotations

from sampan.api.errors import Object
from sampan.api.pod_resources import Amounts
from sampan.api.quota.evaluator import Evaluator
from sampan.api.resources import SERVICES


class Services(Evaluator):
    counts_only = False

    def __init__(self) -> None:
        super().__init__(SERVICES)
        self.names = frozenset(("services", "services.nodeports", "services.loadbalancers", self.count))

    def handles(self, operation: str, subresource: str, new: Object, old: Object | None) -> bool:
        return operation in ("CREATE", "UPDATE") and not subresource

    def usage(self, obj: Object) -> Amounts:
        spec = obj.get("spec") or {}
        ports = spec.get("ports") or ()
        node_ports = balancers = 0
        if spec.get("type") == "NodePort":
            node_ports = len(ports)
        elif spec.get("type") == "LoadBalancer":
            # Ports are not given out yet: what counts is that they will be.
            given = spec.get("allocateLoadBalancerNodePorts") is not False
            node_ports = len(ports) if given else sum(1 for p in ports if p.get("nodePort"))
            balancers = 1
        return {
            self.count: "1",
            "services": "1",
            "services.nodeports": str(node_ports),
            "services.loadbalancers": str(balancers),
        }

    def released(self, old: Object, new: Object) -> bool:
        return self.usage(old) != self.usage(new)
