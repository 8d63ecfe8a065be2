"""A machine that is a node of a cluster elsewhere: what it knows of itself, kept in `node.json`.

A machine is one such node at most. Its directories have a name that no cluster can have, beside the clusters that the
machine may have itself.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampan.cluster.config import RUN, STATE
from sampan.cluster.errors import ClusterError

DIRECTORY, RUN_DIRECTORY = STATE / "_node", RUN / "_node"
IMAGES = DIRECTORY / "images"
CGROUP = "sampan/_node"


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedNode:
    """One joined machine. Of each plural there is one a family, the primary one first."""

    name: str
    server: str
    """The URL of the API."""
    addresses: tuple[str, ...] = ()
    """Given ones; none means those by which the machine reaches the API, whatever they become."""
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[dict[str, str], ...] = ()
    """For its first registration."""
    cluster_pod_cidrs: tuple[str, ...] = ()
    service_cidrs: tuple[str, ...] = ()
    ingress: bool = False
    """Whether it is to be a front door."""
    pod_cidrs: tuple[str, ...] = ()
    """Its own, as the control plane gave them last."""

    @property
    def pki(self) -> Path:
        return DIRECTORY / "pki"

    @property
    def ca(self) -> Path:
        return self.pki / "ca.crt"

    @property
    def client_certificate(self) -> Path:
        return self.pki / "kubelet-client.pem"

    @property
    def server_certificate(self) -> Path:
        return self.pki / "kubelet-server.pem"

    @property
    def cgroup(self) -> str:
        return f"{CGROUP}/{self.name}"

    @property
    def mntns(self) -> Path:
        return RUN_DIRECTORY / "ns" / self.name

    def save(self) -> None:
        """Write `node.json`, whole or not at all."""
        DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = DIRECTORY / "node.json"
        temporary = path.with_suffix(".new")
        with open(temporary, "w") as f:
            json.dump(dataclasses.asdict(self), f, indent=1)
            f.flush()
            os.fsync(f.fileno())
        temporary.replace(path)


def registries_file() -> Path:
    """Mirrors and credentials, if the user wrote any: the node's own file, else the machine's."""
    own = DIRECTORY / "registries.yaml"
    return own if own.exists() else Path("/etc/sampan/registries.yaml")


def load() -> JoinedNode | None:
    """What this machine is, None if it never joined. Raises ClusterError if the file cannot be read."""
    path = DIRECTORY / "node.json"
    try:
        raw: dict[str, Any] = json.loads(path.read_text())
        for name, value in raw.items():
            if isinstance(value, list):
                raw[name] = tuple(value)
        return JoinedNode(**raw)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError) as e:
        raise ClusterError(
            f"{path} is damaged ({e}); `sampan node reset` clears away what is left, then join anew"
        ) from e


@contextmanager
def held() -> Iterator[None]:
    """Hold this machine's node: one process runs it, or changes it, at a time. Raises ClusterError if another one does."""
    RUN_DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(RUN_DIRECTORY / "lock", "w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError("this machine's node runs already, or is being changed") from None
        yield
