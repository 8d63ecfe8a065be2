"""Which nodes have a front door, and what comes in at it, on a cluster whose owner thinks again."""

from __future__ import annotations

import os
from pathlib import Path

from tests.cluster.front_door import NEEDED, FrontDoor, ask, eventually, started, until
from tests.real_cluster import run, sampan

pytestmark = NEEDED
ROUTE = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "HTTPRoute",
    "metadata": {"name": "r"},
    "spec": {"parentRefs": [{"name": "g"}]},
}
GATEWAY = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "g"},
    "spec": {
        "gatewayClassName": "sampan",
        "listeners": [{"name": "web", "port": 8080, "protocol": "HTTP"}],
    },
}
TOLD = (
    '{{range $node := .items}}{{range .status.conditions}}{{if eq .type "IngressServing"}}'
    "{{$node.metadata.name}} {{end}}{{end}}{{end}}"
)


class Chosen:
    """A cluster of two nodes whose owner thinks again about its front doors."""

    def __init__(self, door: FrontDoor, config_file: Path) -> None:
        self.door, self._config_file = door, config_file
        self.system = door.cluster.kubectl("kube-system")

    def again(self, *flags: str) -> None:
        name = self.door.cluster.name
        sampan("stop", "--name", name, kubeconfig=self._config_file)
        assert name not in run(["ps", "-C", "haproxy", "-o", "args="]).out
        sampan("up", "--name", name, *flags, kubeconfig=self._config_file)

    def told(self) -> list[str]:
        """The nodes that say that they serve."""
        return self.system("get", "nodes", "-o", f"go-template={TOLD}").split()

    def led_to(self) -> list[str]:
        """The nodes that the front door's addresses lead to, those of either family."""
        return self.system.run(
            "get",
            "endpointslice",
            "-l",
            "kubernetes.io/service-name=sampan-ingress",
            "-o",
            "jsonpath={..nodeName}",
        ).out.split()


def test_nobody_is_led_to_a_node_without_a_front_door(tmp_path: Path) -> None:
    """Nor left with a class that nobody serves; and what was chosen first does not count any more."""
    name = f"pytest-chosen-{os.getpid()}"
    flags = (
        "--nodes",
        "2",
        "--ingress-nodes",
        "node-2",
        "--ingress-proxy-protocol",
        "--ip-families",
        "IPv4,IPv6",
    )
    with started(tmp_path, name, *flags, image="") as cluster:
        door = FrontDoor(cluster, "default")
        chosen = Chosen(door, tmp_path / "kubeconfig")
        first, second = (cluster.config.node_address(n) for n in cluster.config.nodes)
        door.apply(door.ingress("i", [("foo.org", "/", "Prefix", "nobody")]), GATEWAY, ROUTE)
        of_both = (
            door.wait_address("i"),
            door.kubectl.value("ingress/i", ".status.loadBalancer.ingress[1].ip"),
        )
        assert of_both[0] == door.address
        for place in (second, door.address, f"[{of_both[1]}]"):
            until(place, "foo.org", "/", "503", "--haproxy-protocol")
            assert ask(place, "foo.org").status in ("000", "400")
        assert ask(first, "foo.org", "/", "--haproxy-protocol").status == "000"
        assert (chosen.told(), chosen.led_to()) == (["node-2"], ["node-2", "node-2"])
        door.kubectl.wait("gateway/g", "condition=Programmed")
        accepted = ".status.parents[*].conditions[?(@.type=='Accepted')].status"
        eventually(lambda: door.kubectl.value("httproute/r", accepted), lambda found: found == "True")
        chosen.again("--no-ingress")
        eventually(chosen.told, lambda nodes: not nodes)
        left = "get", "ingressclasses,gatewayclasses,services,endpointslices", "-o", "name", "-A"
        eventually(lambda: chosen.system(*left), lambda found: "sampan" not in found)
        assert door.kubectl.value("gateway/g", ".status.conditions[*].reason") == "Pending Pending"
        assert door.kubectl.value("ingress/i", ".status.loadBalancer") == "{}"
        assert door.kubectl.value("httproute/r", ".status.parents") == "[]"
        assert {ask(place, "foo.org").status for place in (first, second)} == {"000"}
        # What the Node says of itself is complete again: two addresses of one type are no one address.
        internal = '.status.addresses[?(@.type=="InternalIP")].address'
        for node in cluster.config.nodes:
            have = door.kubectl.value(f"node/{node}", internal).split()
            assert have == list(cluster.config.node_addresses(node))
        chosen.again("--ingress-nodes", "node-1", "--no-ingress-proxy-protocol")
        until(first, "foo.org", "/", "503")
        assert door.wait_address("i") == door.address
        door.kubectl.wait("gateway/g", "condition=Programmed")
        until(door.address, "foo.org", "/", "503")
        assert (chosen.told(), chosen.led_to()) == (["node-1"], ["node-1", "node-1"])
