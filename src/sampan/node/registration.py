"""The node as the API knows it: its Node object, its conditions, and the Lease that says it is alive.

Upstream: `pkg/kubelet/nodestatus`, `kubelet_node_status.go`, `component-helpers/apimachinery/lease`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from pathlib import Path
from typing import Any

from sampan.api.errors import Object, StatusError
from sampan.api.objects import condition, now, now_micro
from sampan.api.resources import LEASES, NODES
from sampan.client.informer import Informer
from sampan.client.types import STRATEGIC_MERGE_PATCH, Client, ConnectionLost
from sampan.node.config import NodeConfig
from sampan.node.images.types import ImageError, ImageService

log = logging.getLogger(__name__)

LEASE_NAMESPACE = "kube-node-lease"
_RENEWALS = 4
"""How often a Lease is renewed in the time that it promises."""
STATUS_SECONDS = 300.0
FIRST_RETRY, MOST_RETRY = 0.05, 7.0
MAX_IMAGES = 50
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def machine_memory() -> int:
    """The machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().partition("\n")[0].strip()
    except OSError:
        return ""


def _os_image() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


class Registration:
    """Keeps the Node object and its Lease. `ready` is set once the API has the node as Ready."""

    def __init__(
        self, client: Client, config: NodeConfig, images: ImageService, cpus: float, memory: int
    ) -> None:
        self.ready = asyncio.Event()
        self.node: Object = {}
        self._client = client
        self._config = config
        self._images = images
        self._cpus = cpus
        self._memory = memory
        self._changed = asyncio.Event()
        self._own = Informer(client, NODES, field_selector=f"metadata.name={config.name}")
        self._own.add_handler(self._own_changed)
        self._conditions: dict[str, Object] = {}

    def reference(self) -> Object:
        """The node, as events name it (upstream puts its name where the uid goes)."""
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self._config.name, "uid": self._config.name},
        }

    def changed(self) -> None:
        """Something that the status tells of (the images) has changed."""
        self._changed.set()

    async def run(self) -> None:
        """Register, then renew the lease and update the status until cancelled."""
        async with asyncio.TaskGroup() as group:
            await self._until_done(self._register)
            self.ready.set()
            # After the Node, so that the lease is the Node's from the start and goes with it.
            group.create_task(self._keep_lease())
            group.create_task(self._own.run())
            while True:
                self._changed.clear()
                try:
                    async with asyncio.timeout(STATUS_SECONDS):
                        await self._changed.wait()
                except TimeoutError:
                    pass
                await self._until_done(self._update_status)

    async def _until_done(self, work: Any) -> None:
        pause = FIRST_RETRY
        while True:
            try:
                await work()
                return
            except (StatusError, ConnectionLost) as e:
                log.warning("node %s: %s", self._config.name, e)
            await asyncio.sleep(pause)
            pause = min(pause * 2, MOST_RETRY)

    def _own_changed(self, old: Object | None, new: Object | None) -> None:
        """Say at once that we are well where somebody else says otherwise: we were cut off, and are heard again."""
        told = condition(new, "Ready") if new is not None else None
        if told is not None and told.get("status") != (self._conditions.get("Ready") or {}).get("status"):
            self._changed.set()

    # The Node object.

    def _labels(self) -> dict[str, str]:
        machine = platform.machine()
        arch = _ARCHITECTURES.get(machine, machine)
        return {
            "beta.kubernetes.io/arch": arch,
            "beta.kubernetes.io/os": "linux",
            "kubernetes.io/arch": arch,
            "kubernetes.io/hostname": self._config.name,
            "kubernetes.io/os": "linux",
            **self._config.labels,
        }

    async def _register(self) -> None:
        config = self._config
        spec: dict[str, Any] = {}
        if config.pod_cidrs:
            spec = {"podCIDR": config.pod_cidrs[0], "podCIDRs": list(config.pod_cidrs)}
        if config.taints:
            spec["taints"] = list(config.taints)
        node: Object = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": config.name,
                "labels": self._labels(),
                "annotations": {"volumes.kubernetes.io/controller-managed-attach-detach": "true"},
            },
            "spec": spec,
            "status": await self._status(),
        }
        try:
            self.node = await self._client.create(NODES, node)
        except StatusError as e:
            if e.reason != "AlreadyExists":
                raise
            self.node = await self._client.get(NODES, "", config.name)
            self._remember(self.node)
            await self._reconcile()
            await self._update_status()
        else:
            if "conditions" not in (self.node.get("status") or {}):
                # A server that keeps status out of creation gets it now.
                await self._update_status()

    async def _reconcile(self) -> None:
        """Give an existing Node our labels and address range; the rest is its users'."""
        meta, spec = self.node["metadata"], self.node.get("spec") or {}
        have = meta.get("labels") or {}
        patch: dict[str, Any] = {}
        missing = {k: v for k, v in self._labels().items() if have.get(k) != v}
        if missing:
            patch["metadata"] = {"labels": missing}
        own = self._config.pod_cidrs
        if own and not spec.get("podCIDR"):
            patch["spec"] = {"podCIDR": own[0], "podCIDRs": list(own)}
        if patch:
            self.node = await self._client.patch(
                NODES, "", self._config.name, patch, content_type=STRATEGIC_MERGE_PATCH
            )

    async def _update_status(self) -> None:
        status = await self._status()
        # Addresses are merged by their type, of which a node with both families has two of one (upstream: `PatchNodeStatus`).
        status["addresses"] = [{"$patch": "replace"}, *status["addresses"]]
        patch = {"status": status}
        try:
            self.node = await self._client.patch(
                NODES,
                "",
                self._config.name,
                patch,
                content_type=STRATEGIC_MERGE_PATCH,
                subresource="status",
            )
        except StatusError as e:
            if e.code != 404:
                raise
            # Someone deleted the Node; an agent that runs registers again.
            await self._register()

    def _remember(self, node: Object) -> None:
        for told in (node.get("status") or {}).get("conditions") or ():
            self._conditions.setdefault(told["type"], told)

    async def _status(self) -> Object:
        config = self._config
        uname = os.uname()
        stat = os.statvfs(config.root if config.root.exists() else "/")
        disk = stat.f_blocks * stat.f_frsize
        cpus = f"{self._cpus:g}" if self._cpus == int(self._cpus) else f"{int(self._cpus * 1000)}m"
        amounts = {
            "cpu": cpus,
            "ephemeral-storage": f"{disk // 1024}Ki",
            "hugepages-1Gi": "0",
            "hugepages-2Mi": "0",
            "memory": f"{self._memory // 1024}Ki",
            "pods": str(config.max_pods),
        }
        return {
            "addresses": [
                *({"type": "InternalIP", "address": ip} for ip in config.ips),
                {"type": "Hostname", "address": config.name},
            ],
            "capacity": amounts,
            "allocatable": dict(amounts),
            "conditions": self._node_conditions(),
            "daemonEndpoints": {"kubeletEndpoint": {"Port": config.port}},
            "nodeInfo": {
                "architecture": _ARCHITECTURES.get(uname.machine, uname.machine),
                "bootID": _first_line("/proc/sys/kernel/random/boot_id"),
                "containerRuntimeVersion": config.runtime_version,
                "kernelVersion": uname.release,
                "kubeProxyVersion": "",
                "kubeletVersion": config.version,
                "machineID": _first_line("/etc/machine-id"),
                "operatingSystem": "linux",
                "osImage": _os_image(),
                "systemUUID": _first_line("/sys/class/dmi/id/product_uuid") or _first_line("/etc/machine-id"),
            },
            "images": await self._image_list(),
        }

    async def _image_list(self) -> list[Object]:
        try:
            images = sorted(await self._images.list_images(), key=lambda i: i.size, reverse=True)
        except (ImageError, OSError) as e:
            log.warning("images: %s", e)
            return []
        return [{"names": [*i.digests, *i.tags][:5], "sizeBytes": i.size} for i in images[:MAX_IMAGES]]

    def _node_conditions(self) -> list[Object]:
        moment = now()
        wanted = [
            ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ]  # fmt: skip
        out = []
        for type_, status, reason, message in wanted:
            before = self._conditions.get(type_) or {}
            made = {
                "type": type_,
                "status": status,
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": moment,
                "lastTransitionTime": before["lastTransitionTime"]
                if before.get("status") == status
                else moment,
            }
            self._conditions[type_] = made
            out.append(made)
        return out

    # The Lease.

    async def _keep_lease(self) -> None:
        lease: Object | None = None
        pause = FIRST_RETRY
        while True:
            try:
                lease = await self._renew(lease)
                pause = FIRST_RETRY
            except (StatusError, ConnectionLost) as e:
                log.warning("lease of node %s: %s", self._config.name, e)
                lease = None
                await asyncio.sleep(pause)
                pause = min(pause * 2, MOST_RETRY)
                continue
            await asyncio.sleep(self._config.lease_seconds / _RENEWALS)

    async def _renew(self, lease: Object | None) -> Object:
        if lease is None:
            try:
                lease = await self._client.get(LEASES, LEASE_NAMESPACE, self._config.name)
            except StatusError as e:
                if e.code != 404:
                    raise
                return await self._client.create(LEASES, self._lease({}), namespace=LEASE_NAMESPACE)
        return await self._client.update(LEASES, self._lease(lease))

    def _lease(self, lease: Object) -> Object:
        meta: dict[str, Any] = dict(lease.get("metadata") or {})
        meta.update(name=self._config.name, namespace=LEASE_NAMESPACE)
        if not meta.get("ownerReferences") and self.node.get("metadata", {}).get("uid"):
            # With the Node goes its lease.
            meta["ownerReferences"] = [
                {
                    "apiVersion": "v1",
                    "kind": "Node",
                    "name": self._config.name,
                    "uid": self.node["metadata"]["uid"],
                }
            ]
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": meta,
            "spec": {
                "holderIdentity": self._config.name,
                "leaseDurationSeconds": self._config.lease_seconds,
                "renewTime": now_micro(),
            },
        }
