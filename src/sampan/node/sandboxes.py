"""The sandbox of a pod: what its configuration says to the runtime."""

from __future__ import annotations

from sampan.api.errors import Object
from sampan.network.types import PortMapping
from sampan.node import pods
from sampan.node.config import NodeConfig
from sampan.node.runtime.types import SandboxConfig

POD_NAME = "io.kubernetes.pod.name"
POD_NAMESPACE = "io.kubernetes.pod.namespace"
POD_UID = "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"


def pod_labels(pod: Object) -> dict[str, str]:
    """The labels by which a sandbox and its containers are known as the pod's."""
    meta = pod["metadata"]
    return {POD_NAME: meta["name"], POD_NAMESPACE: meta["namespace"], POD_UID: meta["uid"]}


def sandbox_config(pod: Object, config: NodeConfig, attempt: int, cgroup: str) -> SandboxConfig:
    meta, spec = pod["metadata"], pod["spec"]
    log_directory = config.log_directory(pod)
    log_directory.mkdir(parents=True, exist_ok=True)
    name, fqdn = pods.hostname(pod)
    if pods.host_network(pod):
        hostname = ""
    elif spec.get("setHostnameAsFQDN") and fqdn:
        hostname = f"{fqdn}.{config.cluster_domain}"
    else:
        hostname = name
    return SandboxConfig(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        attempt=attempt,
        hostname=hostname,
        log_directory=str(log_directory),
        network="node" if pods.host_network(pod) else "pod",
        ipc="node" if spec.get("hostIPC") else "pod",
        pid="node" if spec.get("hostPID") else "pod" if spec.get("shareProcessNamespace") else "container",
        cgroup_parent=cgroup,
        port_mappings=_port_mappings(pod),
        sysctls={s["name"]: s["value"] for s in pods.security(pod).get("sysctls") or ()},
        labels={**(meta.get("labels") or {}), **pod_labels(pod)},
        annotations=dict(meta.get("annotations") or {}),
    )


def _port_mappings(pod: Object) -> tuple[PortMapping, ...]:
    """The ports of the node that lead to the pod; a container's port on the node's own network needs none."""
    if pods.host_network(pod):
        return ()
    running = [*pods.containers(pod), *filter(pods.is_sidecar, pods.init_containers(pod))]
    return tuple(
        PortMapping(
            port["containerPort"], port["hostPort"], port.get("protocol") or "TCP", port.get("hostIP") or ""
        )
        for container in running
        for port in container.get("ports") or ()
        if port.get("hostPort")
    )
