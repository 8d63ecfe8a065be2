"""All volumes of one pod: set up side by side before its containers start, kept fresh, torn down after them."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from sampan.api.errors import Object, StatusError
from sampan.client.types import ConnectionLost
from sampan.linux.mounts import remove_tree, unmount_below
from sampan.node import pods
from sampan.node.environment import expand
from sampan.node.runtime.types import Mount
from sampan.node.volumes.empty_dir import EmptyDir
from sampan.node.volumes.host_path import HostPath
from sampan.node.volumes.projected import (
    ConfigMapVolume,
    DownwardAPIVolume,
    ProjectedVolume,
    SecretVolume,
)
from sampan.node.volumes.subpath import SubPathFailure, prepare_subpath
from sampan.node.volumes.types import Volume, VolumeContext, VolumeFailure, VolumeKind

log = logging.getLogger(__name__)

KINDS: dict[str, VolumeKind] = {
    "emptyDir": EmptyDir,
    "hostPath": HostPath,
    "configMap": ConfigMapVolume,
    "secret": SecretVolume,
    "projected": ProjectedVolume,
    "downwardAPI": DownwardAPIVolume,
}

_PROPAGATION = {"HostToContainer": "rslave", "Bidirectional": "rshared"}


def kind_of(volume: Object) -> str:
    """The kind of a pod's volume: the name of its source."""
    return next((k for k in volume if k != "name"), "emptyDir")


class PodVolumes:
    """Volumes by name. `set_up` may be called again at any time: what is ready is brought up to date."""

    def __init__(self, directory: Path, context: VolumeContext) -> None:
        self._directory = directory
        self._context = context
        self._volumes: dict[str, Volume] = {}
        self._contexts: list[VolumeContext] = []
        self._ready: set[str] = set()

    def update(self, pod: Object, pod_ips: tuple[str, ...]) -> None:
        """Take the newest state of the pod, for what volumes tell of it."""
        self._context.pod, self._context.pod_ips = pod, pod_ips
        for context in self._contexts:
            context.pod, context.pod_ips = pod, pod_ips

    async def set_up(self) -> dict[str, str]:
        """Set up or refresh every volume; gives what failed: message by volume name."""
        failures: dict[str, str] = {}

        async def one(spec: Object) -> None:
            name = spec["name"]
            try:
                volume = self._volumes.get(name) or self._make(spec)
                self._volumes[name] = volume
                await volume.set_up()
                self._ready.add(name)
            except VolumeFailure as e:
                failures[name] = str(e)
            except StatusError as e:
                failures[name] = e.message
            except (ConnectionLost, OSError) as e:
                failures[name] = str(e)

        async with asyncio.TaskGroup() as group:
            for spec in self._context.pod["spec"].get("volumes") or ():
                group.create_task(one(spec))
        return failures

    @property
    def ready(self) -> bool:
        """Whether every volume has been set up once."""
        return all(v["name"] in self._ready for v in self._context.pod["spec"].get("volumes") or ())

    @property
    def refresh_at(self) -> float:
        """When the next volume must be refreshed (seconds since the epoch); 0 for never."""
        times = [v.refresh_at for v in self._volumes.values() if v.refresh_at]
        return min(times) if times else 0.0

    def mounts(self, container: Object, environment: dict[str, str]) -> list[Mount]:
        """The mounts of one container. Raises VolumeFailure for a subPath that cannot be had."""
        out = []
        for index, mount in enumerate(container.get("volumeMounts") or ()):
            volume = self._volumes.get(mount["name"])
            if volume is None:
                raise VolumeFailure(f'cannot find volume "{mount["name"]}" to mount into container "{container["name"]}"')  # fmt: skip
            source = volume.path
            subpath = mount.get("subPath") or ""
            if mount.get("subPathExpr"):
                subpath = expand(mount["subPathExpr"], environment)
                if "$(" in subpath:
                    raise VolumeFailure(f"missing value for subPathExpr {mount['subPathExpr']!r}")
            if subpath:
                target = self._directory / "volume-subpaths" / mount["name"] / container["name"] / str(index)
                try:
                    source = prepare_subpath(source, subpath, target)
                except (SubPathFailure, OSError) as e:
                    log.warning("%s", e)
                    raise VolumeFailure(
                        f'failed to prepare subPath for volumeMount "{mount["name"]}" of container '
                        f'"{container["name"]}"'
                    ) from e
            path = mount["mountPath"]
            out.append(
                Mount(
                    path if path.startswith("/") else "/" + path,
                    str(source),
                    bool(mount.get("readOnly")) or isinstance(volume, ALWAYS_READONLY),
                    _PROPAGATION.get(mount.get("mountPropagation") or "", "private"),  # type: ignore[arg-type]
                )
            )
        return out

    def tear_down(self) -> None:
        """Remove every volume and the pod's directory; the containers must have ended. Raises OSError."""
        # First of all: a container may have mounted something of the node's inside a volume (Bidirectional).
        unmount_below(self._directory)
        for volume in self._volumes.values():
            volume.tear_down()
        remove_pod_directory(self._directory)

    def _make(self, spec: Object) -> Volume:
        kind = kind_of(spec)
        make = KINDS.get(kind)
        if make is None:
            raise VolumeFailure(f"no volume plugin matched: volumes of kind {kind} are not supported")
        source: Any = spec.get(kind) or {}
        context = VolumeContext(
            self._context.pod,
            spec["name"],
            self._directory / "volumes" / f"kubernetes.io~{_plugin(kind)}" / spec["name"],
            self._context.lookup,
            self._context.request_token,
            self._context.node_name,
            self._context.host_ips,
            self._context.machine_cpus,
            self._context.machine_memory,
            self._context.pod_ips,
            pods.security(self._context.pod).get("fsGroup"),
            pods.fs_user(self._context.pod),
        )
        self._contexts.append(context)
        return make(context, source)


ALWAYS_READONLY = (ConfigMapVolume, SecretVolume, DownwardAPIVolume, ProjectedVolume)


def _plugin(kind: str) -> str:
    return {"emptyDir": "empty-dir", "hostPath": "host-path", "downwardAPI": "downward-api"}.get(
        kind, kind.lower()
    )


def remove_pod_directory(directory: Path) -> None:
    """Unmount whatever is mounted below a pod's directory, then remove it. Raises OSError."""
    unmount_below(directory)
    remove_tree(directory)
