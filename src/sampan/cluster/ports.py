"""Ports of this host that a cluster listens on."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sampan.cluster.config import ClusterConfig


def free_for_etcd(number: int, present: Sequence[ClusterConfig]) -> int:
    """Beside etcd's usual 2379, which may well be taken."""
    taken = {c.etcd_port for c in present}
    ports = range(12379 + number, 12379 + 1000)
    return next(p for p in ports if p not in taken and not problem("127.0.0.1", p))


def busy(config: ClusterConfig) -> list[str]:
    """Why the ports of a cluster that is to be started cannot be had, one line each."""
    wanted = [(config.listen, config.api_port), ("127.0.0.1", config.api_port)]
    wanted += [("127.0.0.1", config.etcd_port)] if config.etcd_port else []
    wanted += [(p.address, p.port) for p in config.publish]
    return [
        f"port {port} {why}" for address, port in dict.fromkeys(wanted) if (why := problem(address, port))
    ]


def problem(address: str, port: int) -> str:
    """Why a port cannot be listened on, or ""."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((address, port))
        except OSError as e:
            return f"is not free on {address}: {os.strerror(e.errno or 0)}"
    return ""
