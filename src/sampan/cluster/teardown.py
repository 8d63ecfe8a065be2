"""Stop a cluster (all data stays) or delete it (no trace stays). Both work from what is on disk and in /proc alone, so
that they also clear up after a `kill -9` of everything."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from sampan.cluster import config as configuration
from sampan.cluster import kubeconfig, link, processes
from sampan.cluster.config import RUN, STATE, ClusterConfig
from sampan.cluster.errors import ClusterError
from sampan.linux.mounts import remove_tree, unmount_below
from sampan.linux.syscalls import unmount
from sampan.network import host, namespaces

log = logging.getLogger(__name__)
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
    """Stop the cluster, then remove its files and its context in every kubeconfig that has it. One that cannot be
    changed is told of and left."""
    stop(config, grace=grace)
    unmount_below(config.directory)
    for file in dict.fromkeys((*config.kubeconfigs, str(kubeconfig.user_file()))):
        try:
            kubeconfig.unmerge(config.context, Path(file))
        except OSError as e:
            log.warning("warning: context %s is not removed from %s: %s", config.context, file, e.strerror)
        except ClusterError as e:
            log.warning("warning: context %s is not removed: %s", config.context, e)
    remove_tree(config.directory)


def delete_named(name: str) -> None:
    """Delete a cluster by name. One whose `cluster.json` is damaged or gone is deleted as far as its name tells. Raises
    ClusterError if there is none, nor anything left of one."""
    with configuration.locked():
        try:
            config = configuration.load(name) if configuration.valid_name(name) else None
        except ClusterError:
            config = None
        if config is None:
            if not configuration.valid_name(name) or not _left_over(name):
                raise ClusterError(f"there is no cluster {name!r}")
            config = configuration.remains(name, _nodes_left(name))
        try:
            delete(config)
        except OSError as e:
            raise ClusterError(f"cannot delete cluster {name}: {e}") from e


def _nodes_left(name: str) -> dict[str, Path]:
    """The nodes of a cluster by name, with their network namespaces."""
    prefix = f"sampan-{name}-"
    found = {p.name.removeprefix(prefix): p for p in namespaces.NETNS_DIRECTORY.glob(f"{prefix}*")}
    # A cluster may be called like the beginning of another one.
    return {n: found[n] for n in sorted(found) if configuration.NODE_NAME.fullmatch(n)}


def _left_over(name: str) -> bool:
    """Whether anything of a cluster of this name is on this machine."""
    directories = (STATE / name, RUN / name)
    return any(d.is_dir() for d in directories) or bool(
        _nodes_left(name) or processes.cgroups(f"sampan/{name}")
    )


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
