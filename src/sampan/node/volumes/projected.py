"""Volumes whose files are made from API objects: configMap, secret, downwardAPI, and several together (projected).

All are one thing: sources that give files, and the atomic writer. They differ only in where the files lie: what may be
secret is kept in memory.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from typing import Any

from sampan.api.resources import CONFIGMAPS, SECRETS
from sampan.linux.mounts import remove_tree
from sampan.node.volumes.atomic_writer import AtomicWriter, FileContent
from sampan.node.volumes.sources import DEFAULT_MODE, TokenSource, downward_files, object_files
from sampan.node.volumes.tmpfs import mount_tmpfs, unmount_tmpfs
from sampan.node.volumes.types import VolumeContext, VolumeFailure


class ContentVolume:
    """A volume with files that follow the API's objects."""

    in_memory = False

    def __init__(self, context: VolumeContext, source: dict[str, Any]) -> None:
        self.path = context.directory
        self.refresh_at = 0.0
        self.context = context
        self.source = source
        self.mode = int(source.get("defaultMode", DEFAULT_MODE))
        self._writer = AtomicWriter(self.path)

    @abstractmethod
    async def files(self) -> dict[str, FileContent]:
        """The whole content as it should be now. Raises VolumeFailure."""

    async def set_up(self) -> None:
        files = await self.files()
        if self.in_memory:
            mount_tmpfs(self.path)
        else:
            self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o777)
        self._writer.write(files, self.context.fs_group)

    def tear_down(self) -> None:
        unmount_tmpfs(self.path)
        remove_tree(self.path)


class ConfigMapVolume(ContentVolume):
    async def files(self) -> dict[str, FileContent]:
        return await object_files(
            self.context, CONFIGMAPS, self.source.get("name", ""), self.source, self.mode
        )


class SecretVolume(ContentVolume):
    in_memory = True

    async def files(self) -> dict[str, FileContent]:
        name = self.source.get("secretName", "")
        return await object_files(self.context, SECRETS, name, self.source, self.mode)


class DownwardAPIVolume(ContentVolume):
    async def files(self) -> dict[str, FileContent]:
        return downward_files(self.context, self.source.get("items") or [], self.mode)


class ProjectedVolume(ContentVolume):
    in_memory = True

    def __init__(self, context: VolumeContext, source: dict[str, Any]) -> None:
        super().__init__(context, source)
        self._tokens = {
            index: TokenSource(context, s["serviceAccountToken"])
            for index, s in enumerate(source.get("sources") or ())
            if "serviceAccountToken" in s
        }

    async def files(self) -> dict[str, FileContent]:
        out: dict[str, FileContent] = {}
        for index, source in enumerate(self.source.get("sources") or ()):
            if index in self._tokens:
                out.update(await self._tokens[index].files(self.mode))
            elif "configMap" in source:
                one = source["configMap"]
                out.update(await object_files(self.context, CONFIGMAPS, one.get("name", ""), one, self.mode))
            elif "secret" in source:
                one = source["secret"]
                out.update(await object_files(self.context, SECRETS, one.get("name", ""), one, self.mode))
            elif "downwardAPI" in source:
                out.update(downward_files(self.context, source["downwardAPI"].get("items") or [], self.mode))
            else:
                raise VolumeFailure(f"projected source {', '.join(source)} is not supported")
        times = [t.refresh_at for t in self._tokens.values()]
        self.refresh_at = max(min(times), time.time() + 1) if times else 0.0
        return out
