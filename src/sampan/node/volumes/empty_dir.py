"""emptyDir: a directory that begins empty and lives exactly as long as the pod."""

from __future__ import annotations

import os
from typing import Any

from sampan.api import quantity
from sampan.linux.mounts import remove_tree
from sampan.node import pods
from sampan.node.volumes.tmpfs import is_mount, mount_tmpfs, unmount_tmpfs
from sampan.node.volumes.types import VolumeContext, VolumeFailure


class EmptyDir:
    def __init__(self, context: VolumeContext, source: dict[str, Any]) -> None:
        self.path = context.directory
        self.refresh_at = 0.0
        self._context = context
        self._medium = source.get("medium") or ""
        self._limit = quantity.value(source.get("sizeLimit") or 0)

    async def set_up(self) -> None:
        if self._medium not in ("", "Memory"):
            raise VolumeFailure(f"emptyDir medium {self._medium!r} is not supported")
        if self._medium == "Memory":
            if is_mount(self.path):
                return
            mount_tmpfs(self.path, size=self._size())
        else:
            try:
                self.path.mkdir(parents=True)
            except FileExistsError:
                return
        # Not by mkdir: the agent's umask would cut it.
        self.path.chmod(0o777)
        group = self._context.fs_group
        if group is not None:
            os.chown(self.path, -1, group)
            self.path.chmod(0o2777)

    def tear_down(self) -> None:
        unmount_tmpfs(self.path)
        remove_tree(self.path)

    def _size(self) -> int:
        """The least of the volume's limit, the pod's memory limit and the machine's memory."""
        bounds = [self._context.machine_memory]
        if self._limit:
            bounds.append(self._limit)
        limits = [
            quantity.value((c.get("resources") or {}).get("limits", {}).get("memory", 0))
            for c in pods.containers(self._context.pod)
        ]
        if limits and all(limits):
            bounds.append(sum(limits))
        return min(b for b in bounds if b)
