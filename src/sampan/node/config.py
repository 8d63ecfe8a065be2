"""What a node agent is told about its node, and where it keeps each pod's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sampan.api.errors import Object

VERSION = "v1.36.2+sampan"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """The facts of one node. Everything the agent keeps is below `root`."""

    name: str
    ip: str
    """The primary address: InternalIP, and host IP of the pods."""
    further_ips: tuple[str, ...] = ()
    """Of the other address family."""
    root: Path
    pod_cidrs: tuple[str, ...] = ()
    """The node's own, one a family; none where others give them to the Node."""
    port: int = 10250
    """Of the agent's own HTTPS server (logs, exec, attach, port-forward)."""
    cgroup_root: str = ""
    """The node's cgroup, relative to every controller's root; "" is the root itself."""
    cluster_domain: str = "cluster.local"
    cluster_dns: Sequence[str] = ()
    """Name servers for dnsPolicy ClusterFirst; where there are none, the node's own are used."""
    resolv_conf: str = "/etc/resolv.conf"
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: Sequence[Object] = ()
    """For the first registration only."""
    lease_seconds: int = 40
    """What its Lease promises; it is renewed in a quarter of that."""
    max_pods: int = 110
    cpus: float = 0
    """0 means all of the machine's."""
    memory_bytes: int = 0
    """0 means all of the machine's."""
    runtime_version: str = "sampan://0.1.0"
    version: str = VERSION

    @property
    def ips(self) -> tuple[str, ...]:
        return (self.ip, *self.further_ips)

    @property
    def pods(self) -> Path:
        return self.root / "pods"

    @property
    def logs(self) -> Path:
        return self.root / "logs" / "pods"

    def pod_directory(self, uid: str) -> Path:
        return self.pods / uid

    def log_directory(self, pod: Object) -> Path:
        """Where the container logs of a pod are: `CONTAINER/ATTEMPT.log` below it."""
        meta = pod["metadata"]
        return self.logs / f"{meta['namespace']}_{meta['name']}_{meta['uid']}"
