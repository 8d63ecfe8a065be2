"""Stop a cluster (all data stays) or delete it (no trace stays). Both work from what is on disk and in /proc alone, so
that they also clear up after a `kill -9` of everything."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from sampan.cluster import config as configuration
from sampan.cluster import kubeconfig, link, processes
from sampan.cluster.config import RUN, STATE, ClusterConfig
from sampan.cluster.errors import ClusterError
from sampan.linux.syscalls import unmount
from sampan.network import host, namespaces

CONTAINER_GRACE = 3.0
"""Seconds that containers get to end after SIGTERM when the whole cluster stops."""


def stop(config: ClusterConfig, *, grace: float = CONTAINER_GRACE) -> None:
    """End every process of the cluster, ours first, then the containers."""
    with contextlib.suppress(link.NotRunning):
        link.ask(config.run_directory, "stop")
    prefix = f"sampan/{config.name}"
    control = [p for p in processes.members(f"{prefix}/control") if p != os.getpid()]
    agents = [p for node in config.nodes for p in processes.members(f"{prefix}/{node}/agent") if _is_ours(p)]
    processes.end([*control, *agents], grace=grace)
    processes.end_all(prefix, grace=grace)
    _forget_network(config)
    processes.remove_cgroups(prefix)
    unmount_below(config.run_directory)
    remove_tree(config.run_directory)


def delete(config: ClusterConfig, *, grace: float = CONTAINER_GRACE) -> None:
    """Stop the cluster, then remove its files and its context in the user's kubeconfig."""
    stop(config, grace=grace)
    unmount_below(config.directory)
    with contextlib.suppress(Exception):
        kubeconfig.unmerge(config)
    remove_tree(config.directory)


def delete_named(name: str) -> None:
    """Delete a cluster by name. One whose `cluster.json` is damaged is deleted as far as its name tells. Raises
    ClusterError if there is none."""
    with configuration.locked():
        directory = STATE / name
        if not configuration.valid_name(name) or not directory.is_dir():
            raise ClusterError(f"there is no cluster {name!r}")
        try:
            config = configuration.load(name)
        except ClusterError:
            config = None
        if config is None:
            nodes = tuple(
                p.name.removeprefix(f"sampan-{name}-")
                for p in namespaces.NETNS_DIRECTORY.glob(f"sampan-{name}-*")
            )
            config = configuration.remains(name, nodes)
        try:
            delete(config)
        except OSError as e:
            raise ClusterError(f"cannot delete cluster {name}: {e}") from e
    if not configuration.names():
        (STATE / ".lock").unlink(missing_ok=True)
        for empty in (STATE, RUN):
            with contextlib.suppress(OSError):
                empty.rmdir()


def _is_ours(pid: int) -> bool:
    """A part of ours, not a container's supervisor (conmon) or pause process."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith("sampan-")
    except OSError:
        return False


def _forget_network(config: ClusterConfig) -> None:
    for node in config.nodes:
        namespaces.remove(config.node_netns(node), config.node_mntns(node))
    unmount(str(config.run_directory / "ns"))
    host.remove(config.bridge, [config.node_host_link(n) for n in config.nodes])
    host.remove_masquerade(config.masquerade_table)


def unmount_below(directory: Path) -> None:
    """Unmount everything below a directory, innermost first."""
    for point in sorted(_mounts_below(directory), reverse=True):
        unmount(point)


def _mounts_below(directory: Path) -> list[str]:
    with open("/proc/self/mountinfo") as f:
        points = [line.split(" ", 5)[4].encode().decode("unicode_escape") for line in f]
    return [point for point in points if point.startswith(f"{directory}/")]


def remove_tree(directory: Path) -> None:
    """Remove a directory, refusing to cross into a mount that is still there."""
    if not directory.exists():
        return
    # A bind mount of the same file system has the same device, so the kernel's own list is asked too.
    for point in _mounts_below(directory):
        raise OSError(f"{point} is still a mount: unmount it, then delete again")
    device = directory.lstat().st_dev
    for path, directories, _ in os.walk(directory):
        for name in directories:
            inner = Path(path, name)
            if not inner.is_symlink() and inner.lstat().st_dev != device:
                raise OSError(f"{inner} is still a mount: unmount it, then delete again")
    shutil.rmtree(directory)
