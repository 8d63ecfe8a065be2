"""The control-plane process: API server, controllers and scheduler on one event loop, sharing one copy of the objects.

There may be several, on one etcd and behind one address: each listens at it (SO_REUSEPORT) and the kernel gives them
connections in turn, so that there is nothing in front of them that could fail. Their controllers and schedulers elect who
works. What concerns the host is the first one's.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sampan.client.restarting import again_and_again
from sampan.cluster import config as configuration
from sampan.cluster import dns_objects, ingress_nodes, lb_pools, logs, storage
from sampan.cluster.config import MOST_NODES, ClusterConfig
from sampan.cluster.errors import ClusterError
from sampan.cluster.link import PartLink, revive_command
from sampan.cluster.owner import run_until_told, stop_event
from sampan.cluster.pool_routes import PoolRoutes
from sampan.cluster.publish import Publisher
from sampan.cluster.service_routes import ServiceRoutes

if TYPE_CHECKING:
    from sampan.apiserver.app import App
    from sampan.apiserver.config import Config

log = logging.getLogger(__name__)
PART = "control-plane"
_DAY = 24 * 3600.0
_SHUTDOWN_DELAY = 0.2
"""Seconds between the order to end and the end of listening."""
_AFTERWARDS = 10.0
"""Seconds that load balancers and Ingresses wait at most for a cluster that is not ready yet."""
GRACE = 5.0
"""Seconds for which requests in progress may yet be answered."""


def parts(config: ClusterConfig) -> list[str]:
    """The names of a cluster's control planes."""
    return [PART, *(f"{PART}-{n + 1}" for n in range(1, config.apiservers))]


def run(config: ClusterConfig, number: int = 0) -> None:
    """Be the control plane with this place among `parts` until SIGTERM. Blocks; makes its own loop."""
    import uvloop

    logs.configure(config.logging_format)
    # The store's writer thread must get the interpreter when it asks: 5 ms, the default, is ten commits.
    sys.setswitchinterval(0.0005)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # A watcher is a connection.
    uvloop.run(_serve(config, number))


async def _serve(config: ClusterConfig, number: int) -> None:
    from sampan.apiserver.app import App
    from sampan.apiserver.proxying import streams_body
    from sampan.client.leaderelection import LeaderElector, new_identity
    from sampan.cluster.store_care import BackupSocket
    from sampan.controllers.certificates.authority import Authority
    from sampan.controllers.manager import Manager
    from sampan.controllers.node_ipam import NodeRanges
    from sampan.scheduler.scheduler import Scheduler
    from sampan.transport.http import HttpServer
    from sampan.transport.tls import server_context

    stop = stop_event()
    store = await storage.open_store(config)
    app = App(store, _api_config(config, number))
    if not store.shared:
        # They run in this process, which ends with either.
        app.components |= {"controller-manager": lambda: "", "scheduler": lambda: ""}
    pki = config.directory / "pki"
    context = server_context(pki / "apiserver.crt", pki / "apiserver.key", pki / "ca.crt")
    server = HttpServer(app.handle, ssl_context=context, stream_body=streams_body, name="api")
    try:
        await app.start()
        gc.freeze()  # A full collection over 100,000 objects held the loop for 90 ms; these stay anyway.
        for address in listen_addresses(config):
            await server.listen(sock=listening_socket(address, config.api_port, shared=config.apiservers > 1))
        link = PartLink(config.run_directory, parts(config)[number], revive_command(config.name))
        identity = new_identity()

        def elected(name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> Coroutine[Any, Any, None]:
            """The work, done by one of those who share the store."""
            if not store.shared:
                return again_and_again(name, work)
            client = app.client(manager=name)
            return again_and_again(name, lambda: LeaderElector(client, name, identity).run(work))

        def control() -> Coroutine[Any, Any, None]:
            return Manager(
                app.client(manager="kube-controller-manager"),
                cluster_ca=(pki / "ca.crt").read_text(),
                sign_token=app.sign_token,
                authority=Authority(pki / "ca.crt", pki / "ca.key", pki / "apiserver.crt"),
                local_authority=Authority(pki / "local" / "ca.crt", pki / "local" / "ca.key"),
                node_monitor_grace_period=config.node_monitor_grace_period,
                node_ranges=NodeRanges(config.pod_cidrs, MOST_NODES),
            ).run()

        def balance() -> Coroutine[Any, Any, None]:
            from sampan.loadbalancer.controller import LoadBalancerController

            client = app.client(manager="sampan-loadbalancer")
            return LoadBalancerController(client, lb_pools.ranges(config), lb_pools.reserved(config)).run()

        def front_door() -> Coroutine[Any, Any, None]:
            client = app.client(manager="sampan-ingress")
            if not ingress_nodes.chosen(config):
                from sampan.ingress.withdrawing import withdraw

                return withdraw(client)
            from sampan.ingress.controller import IngressController

            return IngressController(client, ingress_nodes.terms(config)).run()

        def schedule() -> Coroutine[Any, Any, None]:
            return Scheduler(app.client(manager="kube-scheduler")).run()

        ready = asyncio.Event()

        async def afterwards(work: Coroutine[Any, Any, None]) -> None:
            """What nobody waits for at the start leaves the processors to what somebody waits for."""
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AFTERWARDS):
                    await ready.wait()
            await work

        tasks = {
            "api": app.run(),
            "store": store.failed(),
            "link": link.run(),
            "controllers": elected("kube-controller-manager", control),
            "scheduler": elected("kube-scheduler", schedule),
            "load balancer": afterwards(elected("sampan-loadbalancer", balance)),
            "ingress": afterwards(elected("sampan-ingress", front_door)),
            "readiness": _tell_readiness(config, app, link, ready),
        }
        if number == 0:
            first_node = config.node_address(config.nodes[0])
            tasks["publish"] = Publisher(config.publish, first_node).run()
            tasks["service routes"] = ServiceRoutes(
                app.client(), config.bridge, config.node_addresses(config.nodes[0]), config.service_cidrs
            ).run()
            tasks["pool routes"] = PoolRoutes(app.client(), config.bridge, config.node_subnets).run()
            tasks["certificates"] = _renew(config)
            tasks["dns objects"] = again_and_again(
                "dns objects", lambda: dns_objects.keep(app.client(), config)
            )
        if config.store == storage.SQLITE:
            tasks["backups"] = BackupSocket(config, store).run()
        await serve_until_told(app, tasks, stop)
    finally:
        await server.close(GRACE)
        await app.close()
        await store.close()


async def serve_until_told(
    app: App, tasks: Mapping[str, Coroutine[Any, Any, None]], stop: asyncio.Event
) -> None:
    """`run_until_told` for a process that serves the API: whoever asks /readyz hears of the end first, and what is on its way
    here is still answered."""
    app.shutting_down = lambda: "process is shutting down" if stop.is_set() else ""
    await run_until_told(tasks, stop)
    await asyncio.sleep(_SHUTDOWN_DELAY)


def _api_config(config: ClusterConfig, number: int) -> Config:
    from sampan.apiserver.config import Config

    audit_log = _file(config.audit_log_path) or config.directory / "logs/audit.log"
    if number:
        audit_log = audit_log.with_stem(f"{audit_log.stem}-{number + 1}")  # a writer a file
    pki = config.directory / "pki"
    return Config(
        service_cidrs=config.service_cidrs,
        service_account_key=(pki / "sa.key").read_bytes(),
        cluster_ca=(pki / "ca.crt").read_bytes(),
        advertise_address=config.advertise_address,
        advertise_port=config.api_port,
        authentication_config=_file(config.authentication_config),
        token_auth_file=_file(config.token_auth_file),
        encryption_config=_file(config.encryption_provider_config),
        audit_policy_file=_file(config.audit_policy_file),
        audit_log_path=audit_log,
        enable_admission_plugins=config.enable_admission_plugins,
        disable_admission_plugins=config.disable_admission_plugins,
        disabled_versions=frozenset(config.disabled_versions),
        default_not_ready_toleration_seconds=config.default_not_ready_toleration_seconds,
        default_unreachable_toleration_seconds=config.default_unreachable_toleration_seconds,
        front_doors=ingress_nodes.terms(config),
        node_client_certificate=pki / "node-client.crt",
        node_client_key=pki / "node-client.key",
    )


def _file(path: str) -> Path | None:
    return Path(path) if path else None


def listen_addresses(config: ClusterConfig) -> list[str]:
    """Where the API listens: loopback and the bridge; elsewhere only if asked to."""
    if config.listen in ("0.0.0.0", "::"):
        return [config.listen]
    return list(dict.fromkeys(["127.0.0.1", config.listen, config.bridge_address]))


def listening_socket(address: str, port: int, *, shared: bool = False) -> socket.socket:
    """A socket bound to an address that this host may get only later (the bridge is made at the same time); `shared`
    with other processes of ours, which all bind it so."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
    ip_freebind = 15
    sock.setsockopt(socket.SOL_IP, ip_freebind, 1)
    try:
        sock.bind((address, port))
    except OSError as e:
        sock.close()
        raise OSError(e.errno, f"cannot listen on {address}:{port}: {os.strerror(e.errno or 0)}") from e
    sock.setblocking(False)
    sock.listen(1024)
    return sock


async def _tell_readiness(config: ClusterConfig, app: App, link: PartLink, first: asyncio.Event) -> None:
    """Tell the supervisor once every node is Ready and pods can be made; `first` is set when they are for the first time."""
    from sampan.api.objects import condition_true
    from sampan.api.resources import NODES, SERVICEACCOUNTS
    from sampan.client.informer import Informer

    client = app.client()
    nodes = Informer(client, NODES)
    accounts = Informer(client, SERVICEACCOUNTS, "default")
    changed = asyncio.Event()
    for informer in (nodes, accounts):
        informer.add_handler(lambda old, new: changed.set())
    said = False
    wanted = config.nodes
    async with asyncio.TaskGroup() as group:
        group.create_task(nodes.run())
        group.create_task(accounts.run())
        while True:
            changed.clear()

            def not_ready(names: Sequence[str]) -> list[str]:
                return [n for n in names if (o := nodes.get("", n)) is None or not condition_true(o, "Ready")]

            if waiting := not_ready(wanted):
                # Nodes may have been added or removed since.
                wanted = (configuration.load(config.name) or config).nodes
                waiting = not_ready(wanted)
            ready = not waiting and accounts.get("default", "default") is not None
            if ready != said:
                said = ready
                if ready:
                    first.set()
                link.ready(ready, "" if ready else f"not Ready: {', '.join(waiting)}")
            await changed.wait()


async def _renew(config: ClusterConfig) -> None:
    """Renew certificates that end soon, every day; servers take up the new files by themselves."""
    while True:
        await asyncio.sleep(_DAY)
        await asyncio.to_thread(renew_certificates, config)


def renew_certificates(config: ClusterConfig) -> None:
    """Renew what ends soon, also in the users' kubeconfigs that the cluster is in."""
    from sampan.cluster import kubeconfig, pki

    made = pki.ensure(configuration.load(config.name) or config)
    if not made:
        return
    log.info("renewed certificates: %s", ", ".join(made))
    try:
        kubeconfig.write(config)
        # An `up` since may have added to them.
        for file in (configuration.load(config.name) or config).kubeconfigs:
            kubeconfig.renew(config, Path(file))
    except (OSError, ClusterError) as e:
        log.warning("a kubeconfig keeps its old certificate: %s", e)
