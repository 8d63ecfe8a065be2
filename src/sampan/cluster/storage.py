"""Where a cluster keeps its objects: a SQLite file, an etcd of its own, or an etcd that stands.

sqlite                       a file in the cluster's directory
etcd                         one member that the supervisor looks after (`etcd_process`), on loopback, with mutual TLS
etcd://h1:2379,h2:2379       the members of an etcd that somebody else looks after
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from sampan.cluster import preflight
from sampan.cluster.errors import ClusterError

if TYPE_CHECKING:
    from sampan.cluster.config import ClusterConfig
    from sampan.cluster.wishes import Wishes
    from sampan.store.members import Tls
    from sampan.store.types import Store

SQLITE, ETCD = "sqlite", "etcd"
_SCHEME = "etcd://"
MOST_APISERVERS = 3
_PATIENCE = 30.0
"""Seconds that an etcd of the cluster's own may take to start."""


def parse(text: str) -> str:
    """The choice in its one spelling. Raises ClusterError."""
    if text in (SQLITE, ETCD):
        return text
    if not text.startswith(_SCHEME):
        raise ClusterError(
            f"--store {text!r} is not supported: allowed are sqlite, etcd, etcd://HOST:PORT[,HOST:PORT...]"
        )
    hosts = []
    for host in text.removeprefix(_SCHEME).rstrip("/").split(","):
        name, _, port = host.rpartition(":")
        if not name or not port.isdigit() or not 0 < int(port) < 65536 or "/" in name:
            raise ClusterError(f"--store {text!r}: {host!r} is not HOST:PORT, such as 10.0.0.5:2379")
        hosts.append(host)
    return _SCHEME + ",".join(hosts)


def problems(wishes: Wishes) -> list[str]:
    """What is wrong with the wishes about the store."""
    found = []
    store = SQLITE
    try:
        store = parse(wishes.store or SQLITE)
    except ClusterError as e:
        found.append(str(e))
    files = {
        "--etcd-cafile": wishes.etcd_cafile,
        "--etcd-certfile": wishes.etcd_certfile,
        "--etcd-keyfile": wishes.etcd_keyfile,
    }
    for flag, file in files.items():
        if file and not found and not store.startswith(_SCHEME):
            found.append(f"{flag} is for an etcd that stands: --store etcd://HOST:PORT")
        elif file and not Path(file).is_file():
            found.append(f"{flag} {file}: there is no such file")
    if bool(wishes.etcd_certfile) != bool(wishes.etcd_keyfile):
        found.append("--etcd-certfile and --etcd-keyfile belong together")
    servers = 1 if wishes.apiservers is None else wishes.apiservers
    if not 1 <= servers <= MOST_APISERVERS:
        found.append(f"--apiservers {servers}: allowed are 1 to {MOST_APISERVERS}")
    elif servers > 1 and store == SQLITE:
        found.append(f"--apiservers {servers} needs a store that they can share: --store etcd")
    if store == ETCD and (missing := missing_program()):
        found.append(missing)
    return found


def missing_program() -> str:
    """What to do to have the program `etcd`; "" where it is there."""
    if shutil.which("etcd", path=preflight.SEARCH):
        return ""
    return "--store etcd needs the program etcd: apt-get install etcd-server"


def is_shared(config: ClusterConfig) -> bool:
    """Whether more than one server may write to the store."""
    return config.apiservers > 1 or config.store.startswith(_SCHEME)


def own_endpoint(config: ClusterConfig) -> str:
    """Where the cluster's own etcd is."""
    return f"https://127.0.0.1:{config.etcd_port}"


async def open_store(config: ClusterConfig) -> Store:
    """The store of a cluster. Raises StoreError."""
    if config.store == SQLITE:
        from sampan.store import sqlite

        return await sqlite.open_store(config.directory / "store")
    if config.store != ETCD:
        return await open_standing(
            config.store, config.etcd_cafile, config.etcd_certfile, config.etcd_keyfile
        )
    from sampan.store import etcd

    endpoints, tls = reach(config)
    return await etcd.open_store(endpoints, tls=tls, shared=is_shared(config), patience=_PATIENCE)


def reach(config: ClusterConfig) -> tuple[list[str], Tls]:
    """The members of a cluster's etcd, and what to show to them."""
    from sampan.store.members import Tls

    if config.store == ETCD:
        pki = config.directory / "pki" / "etcd"
        own = Tls(str(pki / "ca.crt"), str(pki / "client.crt"), str(pki / "client.key"))
        return [own_endpoint(config)], own
    return _members(config.store, config.etcd_cafile, config.etcd_certfile, config.etcd_keyfile)


def _members(text: str, cafile: str, certfile: str, keyfile: str) -> tuple[list[str], Tls]:
    from sampan.store.members import Tls

    scheme = "https" if cafile or certfile else "http"
    hosts = parse(text).removeprefix(_SCHEME).split(",")
    return [f"{scheme}://{host}" for host in hosts], Tls(cafile, certfile, keyfile)


async def open_standing(text: str, cafile: str, certfile: str, keyfile: str) -> Store:
    """The store in an etcd that stands (`etcd://...`). Raises StoreError, ClusterError."""
    if not text.startswith(_SCHEME):
        raise ClusterError(f"--store {text!r}: here it must be etcd://HOST:PORT[,HOST:PORT...]")
    from sampan.store import etcd

    endpoints, tls = _members(text, cafile, certfile, keyfile)
    return await etcd.open_store(endpoints, tls=tls)
