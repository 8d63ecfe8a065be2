"""Quality of service, and the cgroups that give it: kubepods[/burstable|/besteffort]/podUID below the node's own.

Upstream: `pkg/kubelet/cm` and `pkg/kubelet/qos`.
"""

from __future__ import annotations

import logging
import os

from sampan.api import qos
from sampan.api.errors import Object
from sampan.api.quantity import milli as millicores_of
from sampan.api.quantity import value as bytes_of
from sampan.node import pods
from sampan.node.runtime.cgroup import Cgroups
from sampan.node.runtime.types import Resources

log = logging.getLogger(__name__)

PERIOD = 100_000
MIN_SHARES, MIN_QUOTA = 2, 1000


def qos_class(pod: Object) -> str:
    """`Guaranteed`, `Burstable` or `BestEffort`; what the status says already stays."""
    return str((pod.get("status") or {}).get("qosClass") or qos.of(pod))


def _shares(millicores: int) -> int:
    return max(MIN_SHARES, min(millicores * 1024 // 1000, 262144))


def _quota(millicores: int) -> int:
    return max(MIN_QUOTA, millicores * PERIOD // 1000) if millicores else 0


def container_resources(pod: Object, container: Object, machine_memory: int) -> Resources:
    """The cgroup settings of one container. A cpu request that is missing is the limit, else the least share."""
    resources = container.get("resources") or {}
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    cpu_limit = millicores_of(limits.get("cpu", 0))
    cpu_request = millicores_of(requests.get("cpu", limits.get("cpu", 0)))
    memory_request = bytes_of(requests.get("memory", limits.get("memory", 0)))
    quality = qos_class(pod)
    if quality == "Guaranteed":
        oom = -997
    elif quality == "BestEffort":
        oom = 1000
    else:
        oom = 1000 - 1000 * memory_request // max(machine_memory, 1)
        oom = 3 if oom < 3 else 999 if oom == 1000 else oom
    return Resources(
        cpu_shares=_shares(cpu_request),
        cpu_quota=_quota(cpu_limit),
        cpu_period=PERIOD,
        memory_bytes=bytes_of(limits.get("memory", 0)),
        oom_score_adj=oom,
    )


def pod_limits(pod: Object) -> tuple[int, int, int]:
    """(cpu shares, cpu quota, memory bytes) of the whole pod; a limit counts only if every container has one."""
    shares, quota, memory = 0, 0, 0
    all_cpu, all_memory = True, True
    for c in [*pods.containers(pod), *(i for i in pods.init_containers(pod) if pods.is_sidecar(i))]:
        resources = c.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        shares += millicores_of(requests.get("cpu", limits.get("cpu", 0)))
        quota += millicores_of(limits.get("cpu", 0))
        memory += bytes_of(limits.get("memory", 0))
        all_cpu = all_cpu and "cpu" in limits
        all_memory = all_memory and "memory" in limits
    for i in pods.init_containers(pod):
        if not pods.is_sidecar(i):
            limits = (i.get("resources") or {}).get("limits") or {}
            requests = (i.get("resources") or {}).get("requests") or {}
            shares = max(shares, millicores_of(requests.get("cpu", limits.get("cpu", 0))))
            quota = max(quota, millicores_of(limits.get("cpu", 0)))
            memory = max(memory, bytes_of(limits.get("memory", 0)))
            all_cpu = all_cpu and "cpu" in limits
            all_memory = all_memory and "memory" in limits
    return _shares(shares), _quota(quota) if all_cpu else 0, memory if all_memory else 0


class PodCgroups:
    """Makes and removes the cgroups of pods. `root` is the node's cgroup, relative to every hierarchy's root."""

    def __init__(self, root: str, filesystem: Cgroups | None = None) -> None:
        self._base = f"{root.strip('/')}/kubepods".lstrip("/")
        self._filesystem = filesystem or Cgroups()

    def path(self, pod: Object) -> str:
        """The pod's cgroup, relative to every hierarchy's root."""
        quality = qos_class(pod)
        middle = "" if quality == "Guaranteed" else f"/{quality.lower()}"
        return f"{self._base}{middle}/pod{pods.uid(pod)}"

    def create(self, pod: Object) -> str:
        """Make the pod's cgroup with its limits; returns its path. A limit that the kernel refuses is a warning.
        Raises OSError."""
        path = self.path(pod)
        parent = path.rpartition("/")[0]
        new_parent = not all(os.path.isdir(d) for d in self._filesystem.directories(parent))
        self._filesystem.create(path)
        if new_parent and parent.endswith("/besteffort"):
            self._write(parent, "cpu", "cpu.shares", "2", "cpu.weight", "1")
        shares, quota, memory = pod_limits(pod)
        weight = 1 + (shares - 2) * 9999 // 262142
        self._write(path, "cpu", "cpu.shares", str(shares), "cpu.weight", str(weight))
        if quota:
            self._write(path, "cpu", "cpu.cfs_quota_us", str(quota), "cpu.max", f"{quota} {PERIOD}")
        if memory:
            self._write(path, "memory", "memory.limit_in_bytes", str(memory), "memory.max", str(memory))
        return path

    def remove(self, path: str) -> None:
        """Remove a pod's cgroup and what is left below it; one that still has processes stays."""
        self._filesystem.remove(path)

    def left_over(self, known: set[str]) -> set[str]:
        """Paths of pod cgroups whose uid is not in `known`."""
        found = set()
        for middle in ("", "/burstable", "/besteffort"):
            for top in self._filesystem.directories(self._base + middle):
                for entry in os.scandir(top) if os.path.isdir(top) else ():
                    if entry.name.startswith("pod") and entry.name[3:] not in known:
                        found.add(f"{self._base}{middle}/{entry.name}")
        return found

    def _write(self, path: str, controller: str, name: str, value: str, name2: str, value2: str) -> None:
        """Set a version 1 file, or its version 2 counterpart."""
        unified = self._filesystem.version == 2
        file = os.path.join(self._filesystem.directory(path, controller), name2 if unified else name)
        if not os.path.isdir(os.path.dirname(file)):
            return
        try:
            with open(file, "w") as opened:
                opened.write(value2 if unified else value)
        except OSError as e:
            log.warning("%s: %s", file, e.strerror)
