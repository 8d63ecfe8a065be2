"""What the supervisor of a cluster runs: the control plane, then a process for each node, its namespaces made first."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import select
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sampan.cluster import config as configuration
from sampan.cluster import (
    control_plane,
    dns_process,
    etcd_process,
    logs,
    node_parts,
    node_process,
    processes,
    storage,
)
from sampan.cluster.config import ClusterConfig
from sampan.cluster.supervisor import AlreadyRunning, Part, Supervisor, redirect
from sampan.linux import inotify
from sampan.network import host, namespaces

log = logging.getLogger(__name__)


def supervise(config: ClusterConfig) -> None:
    """Be the supervisor of a cluster until told to stop."""
    processes.join(f"sampan/{config.name}/control")
    directory = config.directory / "logs"
    redirect(directory / "supervisor.log")
    Path("/proc/self/comm").write_text("sampan-superv")
    logs.configure(config.logging_format)
    _preload()
    parts = []
    if config.store == storage.ETCD:
        parts.append(Part(etcd_process.PART, lambda: etcd_process.run(config), silent=True))
    leads = control_plane.parts(config)
    for number, name in enumerate(leads):
        parts.append(Part(name, lambda number=number: control_plane.run(config, number)))  # type: ignore[misc]
    for node in config.nodes:
        parts += [_node_part(config, node), _dns_part(config, node)]
        leads.append(dns_process.part(node))

    def make(name: str) -> Part:
        grown = configuration.existing(config.name)
        node = dns_process.node_of(name)
        return _dns_part(grown, node) if node else _node_part(grown, name)

    with contextlib.suppress(AlreadyRunning):
        Supervisor(config.run_directory, directory, parts, leads, make).run()


def _node_part(config: ClusterConfig, node: str) -> Part:
    return Part(
        node,
        lambda: node_process.run(config, node),
        prepare=lambda: prepare_node(config, node),
    )


def _dns_part(config: ClusterConfig, node: str) -> Part:
    sockets: list[socket.socket] = []
    return Part(
        dns_process.part(node),
        lambda: dns_process.run(config, node, sockets),
        prepare=lambda: dns_process.open_sockets(config, node, sockets),
        sockets=sockets,
    )


def _preload() -> None:
    """What every part needs, so that all share its pages."""
    import asyncio
    import ssl

    import httptools
    import msgspec
    import uvloop

    import sampan.api.objects
    import sampan.api.resources
    import sampan.client.informer
    import sampan.transport.http  # noqa: F401

    del asyncio, ssl, httptools, msgspec, uvloop


def _preload_for_nodes() -> None:
    """What a node's processes need besides: a client of the API. The control plane, which is started first, does not wait for
    it and has no use for it."""
    import aiohttp
    import yarl

    import sampan.client.https
    import sampan.dns.server  # noqa: F401

    del aiohttp, yarl
    gc.freeze()


def start(config: ClusterConfig) -> None:
    """Start the supervisor as a daemon; returns at once. The calling process must have a single thread."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    status = 1
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        # Nothing of the caller's: above all not its lock, nor a pipe that somebody waits for the end of.
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.chdir("/")
        os.umask(0o022)
        supervise(config)
        status = 0
    except BaseException:
        log.exception("the supervisor failed")
    finally:
        os._exit(status)


def await_change(directory: Path, condition: Callable[[], bool], timeout: float) -> None:
    """Wait until `condition` holds; it is looked at whenever a file appears in `directory` or was written. Raises
    TimeoutError."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = inotify.watch(directory, inotify.CLOSE_WRITE | inotify.MOVED_TO | inotify.CREATE)
    try:
        deadline = time.monotonic() + timeout
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([fd], [], [], left)[0]:
                raise TimeoutError(f"nothing of the kind happened in {directory} within {timeout:.0f} s")
            os.read(fd, 4096)
    finally:
        os.close(fd)


def prepare_node(config: ClusterConfig, node: str) -> None:
    """Make (or complete, after a reboot or a crash) what a node stands on. Costs little where all is there."""
    _preload_for_nodes()
    namespaces.prepare_directories(config.run_directory / "ns")
    netns, mntns = config.node_netns(node), config.node_mntns(node)
    sysctls = host.NODE_SYSCTLS | (host.NODE_SYSCTLS6 if "IPv6" in config.families else {})
    namespaces.create(netns, mntns, sysctls=sysctls, hide=node_parts.HIDDEN_FROM_NODES)
    host.ensure_bridge(config.bridge, config.bridge_networks)
    first = config.nodes[0] == node
    host.ensure_node(
        config.bridge,
        config.bridge_networks,
        host.NodeLink(
            netns, config.node_host_link(node), config.node_addresses(node), config.node_pod_cidrs(node)
        ),
        config.service_cidrs if first else (),
    )
    host.masquerade_pods(netns, config.pod_cidrs, config.node_subnets)
    if first:
        problem = host.ensure_masquerade(
            config.masquerade_table, config.bridge, (*config.node_subnets, *config.pod_cidrs)
        )
        if problem:
            log.warning("%s", problem)


def main(arguments: list[str]) -> None:
    """Revive the supervisor of a cluster whose parts still run (`python -m sampan.cluster.supervision NAME`)."""
    config = configuration.load(arguments[0])
    if config is not None:
        supervise(config)


if __name__ == "__main__":
    main(sys.argv[1:])
