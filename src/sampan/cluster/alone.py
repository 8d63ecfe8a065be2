"""One part of a control plane by itself, in the foreground: for several machines, and for whoever looks after processes.

The parts speak HTTPS to each other and nothing else, and several of each may run: API servers share an etcd, controllers and
schedulers elect who works.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sampan.cluster import logs, storage
from sampan.cluster.control_plane import GRACE, listening_socket, serve_until_told
from sampan.cluster.errors import ClusterError
from sampan.cluster.owner import run_until_told, stop_event

if TYPE_CHECKING:
    from sampan.apiserver.config import Config
    from sampan.client.https import HttpsClient

Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServer:
    """Where an API server listens, what it shows and where its objects are; the rest is in `config`."""

    config: Config
    store: str
    etcd_cafile: str
    etcd_certfile: str
    etcd_keyfile: str
    bind_address: str
    port: int
    share_port: bool
    certificate: Path
    key: Path
    client_ca: Path


def read(flag: str, file: Path) -> bytes:
    """The content of a file that a flag names. Raises ClusterError."""
    try:
        return file.read_bytes()
    except OSError as e:
        raise ClusterError(f"{flag} {file}: {e.strerror}") from e


def check_address(flag: str, text: str) -> None:
    """Refuse what can be no address of an endpoint. Raises ClusterError."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ClusterError(f"{flag} {text!r} is not an address") from None
    if address.is_loopback or address.is_unspecified:
        raise ClusterError(f"{flag} {text}: pods cannot reach that; give an address of this machine")


def node_ranges(allocate: bool, cluster_cidr: str) -> tuple[str, ...]:
    """The ranges that Nodes get theirs from: one, or one of each family. Raises ClusterError."""
    if not allocate:
        return ()
    if not cluster_cidr:
        raise ClusterError("--allocate-node-cidrs needs --cluster-cidr: the range, or one of each family")
    found = cluster_cidr.split(",")
    try:
        versions = [ipaddress.ip_network(cidr).version for cidr in found]
    except ValueError as e:
        raise ClusterError(f"--cluster-cidr {cluster_cidr}: {e}") from None
    if len(set(versions)) < len(versions):
        raise ClusterError(f"--cluster-cidr {cluster_cidr}: allowed is one range of each family")
    return tuple(found)


def run(work: Work) -> None:
    """Do a part's work until SIGTERM or SIGINT, its log on stderr. Blocks; makes its own loop. Raises ClusterError for a
    store that cannot be opened and an address that cannot be had."""
    import uvloop

    from sampan.store.types import StoreError

    logs.configure()
    try:
        uvloop.run(work())
    except StoreError as e:
        raise ClusterError(str(e)) from e
    except OSError as e:
        raise ClusterError(e.strerror or str(e)) from e


async def serve_api(wanted: ApiServer) -> None:
    """Serve the API until told to stop."""
    from sampan.apiserver.app import App
    from sampan.apiserver.proxying import streams_body
    from sampan.transport.http import HttpServer
    from sampan.transport.tls import server_context

    stop = stop_event()
    store = await storage.open_standing(
        wanted.store, wanted.etcd_cafile, wanted.etcd_certfile, wanted.etcd_keyfile
    )
    app = App(store, wanted.config)
    context = server_context(wanted.certificate, wanted.key, wanted.client_ca)
    server = HttpServer(app.handle, ssl_context=context, stream_body=streams_body, name="api")
    try:
        await app.start()
        await server.listen(sock=listening_socket(wanted.bind_address, wanted.port, shared=wanted.share_port))
        logging.getLogger(__name__).info("serving the API at %s:%d", wanted.bind_address, wanted.port)
        await serve_until_told(app, {"api": app.run(), "store": store.failed()}, stop)
    finally:
        await server.close(GRACE)
        await app.close()
        await store.close()


async def control(
    client: HttpsClient,
    *,
    root_ca: bytes,
    signing_key: bytes | None,
    authority: tuple[Path, Path] | None,
    node_ranges: tuple[str, ...] = (),
    elect: bool,
) -> None:
    """Run the controllers until told to stop; without `signing_key` no tokens are kept in Secrets, without `authority`
    (certificate and key) no certificates are signed, without `node_ranges` Nodes get no ranges for their pods."""
    from functools import partial

    from sampan.apiserver.tokens import legacy
    from sampan.controllers.certificates.authority import Authority
    from sampan.controllers.manager import Manager
    from sampan.controllers.node_ipam import NodeRanges

    def work() -> Coroutine[Any, Any, None]:
        return Manager(
            client,
            cluster_ca=root_ca.decode(),
            sign_token=partial(legacy.sign, signing_key) if signing_key is not None else None,
            authority=Authority(*authority) if authority is not None else None,
            node_ranges=NodeRanges(node_ranges) if node_ranges else None,
        ).run()

    await _elected(client, "kube-controller-manager", work, elect)


async def schedule(client: HttpsClient, *, elect: bool) -> None:
    """Run the scheduler until told to stop."""
    from sampan.scheduler.scheduler import Scheduler

    await _elected(client, "kube-scheduler", lambda: Scheduler(client).run(), elect)


async def _elected(client: HttpsClient, name: str, work: Work, elect: bool) -> None:
    from sampan.client.leaderelection import LeaderElector, new_identity

    task = LeaderElector(client, name, new_identity()).run(work) if elect else work()
    try:
        await run_until_told({name: task}, stop_event())
    finally:
        await client.close()
