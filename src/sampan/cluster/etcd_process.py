"""The etcd of a cluster that has one of its own: a single member, on loopback, for clients with a certificate only.

Its authority is not the cluster's: whoever may speak to etcd passes by all that the API decides, so that a node's
certificate, or one signed at a user's request, must not open it.
"""

from __future__ import annotations

import os
import platform
import shutil
from typing import NoReturn

from sampan.cluster import preflight, storage
from sampan.cluster.config import ClusterConfig
from sampan.cluster.errors import ClusterError

PART = "etcd"
_ARM64 = ("aarch64", "arm64")


def command(config: ClusterConfig) -> list[str]:
    """The command line, but for the program's own name. Nothing that 3.4 has not or 3.6 dropped."""
    pki = config.directory / "pki" / "etcd"
    client = storage.own_endpoint(config)
    # A member must listen for others, which this one never has: a socket file in a directory that is root's.
    peer = "unix://peer:0"
    return [
        "--name", "sampan",
        "--data-dir", str(config.directory / "etcd"),
        "--listen-client-urls", client, "--advertise-client-urls", client,
        "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"sampan={peer}",
        "--cert-file", str(pki / "server.crt"), "--key-file", str(pki / "server.key"),
        "--client-cert-auth", "--trusted-ca-file", str(pki / "ca.crt"),
        # Alone, it is its own leader soon; sooner would cost an idle machine more.
        "--heartbeat-interval", "30", "--election-timeout", "300",
        "--quota-backend-bytes", str(8 * 2**30),
        "--enable-grpc-gateway=false",
    ]  # fmt: skip


def program() -> str:
    """The program's path. Raises ClusterError where it is missing."""
    found = shutil.which("etcd", path=preflight.SEARCH)
    if found is None:
        raise ClusterError(storage.missing_program())
    return found


def environment() -> dict[str, str]:
    """Ours, but for what etcd would take for flags."""
    found = {k: v for k, v in os.environ.items() if not k.startswith("ETCD_")}
    if platform.machine() in _ARM64:
        found["ETCD_UNSUPPORTED_ARCH"] = "arm64"  # 3.4 does not start there unless told so
    return found


def run(config: ClusterConfig) -> NoReturn:
    """Become etcd. Raises ClusterError where the program is missing."""
    path = program()
    directory = config.run_directory / "etcd"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chdir(directory)
    os.execve(path, [path, *command(config)], environment())
