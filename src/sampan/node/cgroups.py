"""Quality of service, and the cgroups that give it: kubepods[/burstable|/besteffort]/podUID below the node's own.

Both layouts are served: one unified hierarchy, and version 1 controllers (each its own hierarchy) with or without an
extra unified one. Upstream: `pkg/kubelet/cm` and `pkg/kubelet/qos`.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from sampan.api.errors import Object
from sampan.api.quantity import milli as millicores_of
from sampan.api.quantity import value as bytes_of
from sampan.node import pods
from sampan.node.runtime.types import Resources

log = logging.getLogger(__name__)

PERIOD = 100_000
MIN_SHARES, MIN_QUOTA = 2, 1000


def qos_class(pod: Object) -> str:
    """`Guaranteed`, `Burstable` or `BestEffort`, as upstream's `qos.ComputePodQOS` for pods without pod-level
    resources; the status' own value wins, for the API server may have set it."""
    known = (pod.get("status") or {}).get("qosClass")
    if known:
        return str(known)
    any_set, guaranteed = False, True
    for c in [*pods.init_containers(pod), *pods.containers(pod)]:
        resources = c.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in ("cpu", "memory"):
            amount = millicores_of if name == "cpu" else bytes_of
            limit = amount(limits.get(name, 0))
            request = amount(requests.get(name, limits.get(name, 0)))
            any_set = any_set or limit > 0 or request > 0
            guaranteed = guaranteed and limit > 0 and request == limit
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


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
    """Makes and removes the cgroups of pods. `root` is the node's cgroup; `mount` where cgroups are mounted."""

    def __init__(self, root: str, mount: Path = Path("/sys/fs/cgroup")) -> None:
        self._base = f"{root.strip('/')}/kubepods".lstrip("/")
        self._unified: Path | None = None
        self._controllers: dict[str, Path] = {}
        if (mount / "cgroup.controllers").is_file():
            self._unified = mount
        else:
            for entry in sorted(mount.iterdir()) if mount.is_dir() else ():
                if entry.is_symlink() or not entry.is_dir():
                    continue
                if (entry / "cgroup.procs").exists():
                    self._controllers[entry.name] = entry
        self._made: set[str] = set()

    def path(self, pod: Object) -> str:
        """The pod's cgroup, relative to every controller's root."""
        quality = qos_class(pod)
        middle = "" if quality == "Guaranteed" else f"/{quality.lower()}"
        return f"{self._base}{middle}/pod{pods.uid(pod)}"

    def create(self, pod: Object) -> str:
        """Make the pod's cgroup with its limits; returns its path. A limit the kernel refuses is a warning."""
        path = self.path(pod)
        parent = path.rpartition("/")[0]
        if parent not in self._made:
            self._make(parent, recursive=True)
            if parent.endswith("besteffort"):
                self._write(parent, "cpu", "cpu.shares", "2", "cpu.weight", "1")
            self._made.add(parent)
        self._make(path, recursive=False)
        shares, quota, memory = pod_limits(pod)
        weight = 1 + (shares - 2) * 9999 // 262142
        self._write(path, "cpu", "cpu.shares", str(shares), "cpu.weight", str(weight))
        if quota:
            self._write(path, "cpu", "cpu.cfs_quota_us", str(quota), "cpu.max", f"{quota} {PERIOD}")
        if memory:
            self._write(path, "memory", "memory.limit_in_bytes", str(memory), "memory.max", str(memory))
        return path

    def remove(self, path: str) -> None:
        """Remove a pod's cgroup and what is left below it; processes must have ended."""
        for root in self._roots():
            top = root / path
            if not top.is_dir():
                continue
            for directory, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)

    def left_over(self, known: set[str]) -> set[str]:
        """Paths of pod cgroups whose uid is not in `known`."""
        found = set()
        for root in self._roots():
            for middle in ("", "/burstable", "/besteffort"):
                top = root / (self._base + middle)
                if not top.is_dir():
                    continue
                for entry in top.iterdir():
                    if entry.name.startswith("pod") and entry.name[3:] not in known:
                        found.add(f"{self._base}{middle}/{entry.name}")
        return found

    def _roots(self) -> list[Path]:
        return [self._unified] if self._unified else list(self._controllers.values())

    def _make(self, path: str, *, recursive: bool) -> None:
        for root in self._roots():
            at = root
            for part in path.split("/") if recursive else ():
                self._make_one(at / part, at)
                at = at / part
            if not recursive:
                self._make_one(root / path, (root / path).parent)

    def _make_one(self, directory: Path, parent: Path) -> None:
        try:
            directory.mkdir()
        except FileExistsError:
            return
        except FileNotFoundError:
            # Someone removed the parents (a cleaned-up node); they are made anew.
            self._made.clear()
            directory.mkdir(parents=True, exist_ok=True)
        if self._unified is not None:
            with contextlib.suppress(OSError):
                available = (parent / "cgroup.controllers").read_text().split()
                (parent / "cgroup.subtree_control").write_text(" ".join(f"+{c}" for c in available))
        elif directory.is_relative_to(self._controllers.get("cpuset", Path("/nonexistent"))):
            # A new cpuset is empty, and nothing can run in it before it gets its parent's values.
            for name in ("cpuset.cpus", "cpuset.mems"):
                with contextlib.suppress(OSError):
                    (directory / name).write_text((parent / name).read_text())

    def _write(self, path: str, controller: str, name: str, value: str, name2: str, value2: str) -> None:
        root = self._unified or self._controllers.get(controller)
        if root is None:
            return
        file = root / path / (name2 if self._unified else name)
        try:
            file.write_text(value2 if self._unified else value)
        except OSError as e:
            log.warning("%s: %s", file, e.strerror)
