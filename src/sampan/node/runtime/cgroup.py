"""The pods' and containers' cgroups, in both layouts: version 2 alone, and version 1 with a hierarchy a controller."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Literal

from sampan.linux.syscalls import CGROUP2_MAGIC, TMPFS_MAGIC, filesystem_type

ROOT = "/sys/fs/cgroup"


class Cgroups:
    """The host's cgroup filesystem. Paths are relative to every hierarchy's root (`/sampan/n1/pod1234`)."""

    def __init__(self, root: str = ROOT) -> None:
        self.root = root
        self.version: Literal[1, 2] = 2 if filesystem_type(root) == CGROUP2_MAGIC else 1
        self.hierarchies: tuple[str, ...] = ("",) if self.version == 2 else tuple(self._version_1())

    def _version_1(self) -> Iterator[str]:
        seen: set[tuple[int, int]] = set()
        for entry in sorted(os.scandir(self.root), key=lambda entry: entry.name):
            # `cpu` and `cpuacct` may be links to one mount; `unified` is the empty version 2 of the hybrid layout.
            if not os.path.exists(f"{entry.path}/cgroup.procs") or os.path.exists(
                f"{entry.path}/cgroup.controllers"
            ):
                continue
            status = os.stat(entry.path)
            if (key := (status.st_dev, status.st_ino)) not in seen:
                seen.add(key)
                yield entry.name

    def directories(self, path: str) -> Iterator[str]:
        for hierarchy in self.hierarchies:
            yield os.path.join(self.root, hierarchy, path.strip("/"))

    def directory(self, path: str, controller: str) -> str:
        """Where a controller's files of the cgroup are."""
        middle = "" if self.version == 2 else controller
        return os.path.join(self.root, middle, path.strip("/"))

    def create(self, path: str) -> None:
        """Make the cgroup, with all controllers on (version 2) and all cpus and memory nodes (version 1)."""
        for directory in self.directories(path):
            if self.version == 1 and not directory.startswith(f"{self.root}/cpuset/"):
                os.makedirs(directory, exist_ok=True)
                continue
            current = self.root if self.version == 2 else f"{self.root}/cpuset"
            for part in path.strip("/").split("/"):
                if self.version == 2:
                    self._delegate(current)
                parent, current = current, f"{current}/{part}"
                os.makedirs(current, exist_ok=True)
                if self.version == 1:
                    self._inherit_cpuset(parent, current)
            if self.version == 2:
                self._delegate(current)

    def _delegate(self, directory: str) -> None:
        with open(f"{directory}/cgroup.controllers") as file:
            there = set(file.read().split())
        with open(f"{directory}/cgroup.subtree_control") as file:
            missing = there - set(file.read().split())
        for controller in sorted(missing):
            # One by one: a controller that cannot be on here (cpu with realtime tasks) must not stop the others.
            with suppress(OSError), open(f"{directory}/cgroup.subtree_control", "w") as file:
                file.write(f"+{controller}")

    def _inherit_cpuset(self, parent: str, directory: str) -> None:
        for name in ("cpuset.cpus", "cpuset.mems"):
            with open(f"{directory}/{name}") as file:
                if file.read().strip():
                    continue
            with open(f"{parent}/{name}") as file:
                value = file.read()
            with open(f"{directory}/{name}", "w") as file:
                file.write(value)

    def expect_moves(self) -> None:
        """Make the kernel ready for processes to be moved soon; returns at once.

        The first move after a while waits for all processors (an RCU grace period, 10-20 ms), others soon after it
        do not. So a thread moves us to where we are already while the container is still being prepared.
        """
        threading.Thread(target=self._move_nowhere, name="cgroup", daemon=True).start()

    def _move_nowhere(self) -> None:
        with suppress(OSError), open("/proc/self/cgroup") as file:
            for line in file:
                number, controllers, path = line.rstrip("\n").split(":", 2)
                hierarchy = "" if self.version == 2 else controllers.removeprefix("name=")
                if (number == "0") is (self.version == 2) and (
                    not hierarchy or hierarchy in self.hierarchies
                ):
                    with open(f"{self.directory(path, hierarchy)}/cgroup.procs", "w") as procs:
                        procs.write("0")
                    return

    def remove(self, path: str) -> None:
        """Remove the cgroup and the empty ones below it; one that still has processes stays."""
        directories = list(self.directories(path))
        if self.version == 1:
            beside = os.path.join(self.root, "unified", path.strip("/"))
            with suppress(OSError):
                # runc makes the cgroup in the hybrid layout's version 2 as well; where that is covered, crun
                # makes ordinary files in its place.
                if filesystem_type(beside) == TMPFS_MAGIC:
                    shutil.rmtree(beside)
                else:
                    directories.append(beside)
        for directory in directories:
            for current, _, _ in os.walk(directory, topdown=False):
                try:
                    os.rmdir(current)
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.EBUSY, errno.ENOTEMPTY):
                        raise

    def processes(self, path: str) -> list[int]:
        hierarchy = "" if self.version == 2 else "pids" if "pids" in self.hierarchies else self.hierarchies[0]
        found: list[int] = []
        for current, _, _ in os.walk(self.directory(path, hierarchy)):
            with suppress(OSError), open(f"{current}/cgroup.procs") as file:
                found += map(int, file.read().split())
        return found

    def kill(self, path: str) -> None:
        """Kill every process in it and below, those they start meanwhile too."""
        if self.version == 2:
            with suppress(OSError), open(f"{self.directory(path, '')}/cgroup.kill", "w") as file:
                file.write("1")
                return
        while processes := self.processes(path):
            for pid in processes:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            # A killed process stays listed until it is reaped; look again only for ones started meanwhile.
            if set(self.processes(path)) <= set(processes):
                return

    def out_of_memory(self, path: str) -> bool:
        """Has the kernel killed a process in it for want of memory?"""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        with suppress(OSError), open(f"{self.directory(path, 'memory')}/{name}") as file:
            for line in file:
                key, _, value = line.partition(" ")
                if key == "oom_kill" and int(value):
                    return True
        return False

    def limits_swap(self) -> bool:
        """Can memory and swap together be limited?"""
        if self.version == 2:
            return True
        return os.path.exists(f"{self.root}/memory/memory.memsw.limit_in_bytes")
