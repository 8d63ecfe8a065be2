"""Can this host run a cluster? Every problem at once, each with what to do about it."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from sampan.cluster.errors import ClusterError

_PACKAGES = {"conmon": "conmon", "catatonit": "catatonit", "nft": "nftables", "skopeo": "skopeo"}
_MORE = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
SEARCH = os.environ.get("SAMPAN_PROGRAMS") or f"{os.environ.get('PATH', '')}:{_MORE}"
"""Where programs are looked for; a root shell made by `su` has no sbin in its PATH."""
FILESYSTEMS = Path("/proc/filesystems")


def check() -> None:
    """Raises ClusterError that lists all that is missing."""
    problems = problems_of_host()
    if problems:
        raise ClusterError("this host cannot run a cluster: " + "; ".join(problems))


def problems_of_host() -> list[str]:
    if os.geteuid() != 0:
        return ["sampan must run as root: use sudo"]
    return [*_kernel(), *_programs(), *_overlay(), *_nftables()]


def _kernel() -> list[str]:
    release = platform.release()
    try:
        major, minor = (int("".join(c for c in part if c.isdigit())) for part in release.split(".")[:2])
    except ValueError:
        return []
    if (major, minor) < (5, 13):
        return [f"kernel {release} is too old: 5.13 or newer is needed"]
    return []


def _programs() -> list[str]:
    missing = [package for program, package in _PACKAGES.items() if not shutil.which(program, path=SEARCH)]
    if not (shutil.which("crun", path=SEARCH) or shutil.which("runc", path=SEARCH)):
        missing.append("crun")
    return [f"programs are missing: apt-get install {_listed(missing)}"] if missing else []


def program(name: str) -> str | None:
    """Where a program is, None if it is not there."""
    return shutil.which(name, path=SEARCH)


def _listed(packages: Sequence[str]) -> str:
    return " ".join(sorted(packages))


def _overlay() -> list[str]:
    known = [line.split()[-1] for line in FILESYSTEMS.read_text().splitlines()]
    if "overlay" in known or _load_module("overlay"):
        return []
    return ["the kernel has no overlay filesystem: load the module `overlay`"]


def _load_module(name: str) -> bool:
    modprobe = shutil.which("modprobe", path=SEARCH)
    return modprobe is not None and subprocess.run([modprobe, "-q", name], check=False).returncode == 0


def _nftables() -> list[str]:
    netfilter = 12
    try:
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, netfilter).close()
    except OSError as e:
        if e.errno == errno.EPROTONOSUPPORT:
            return ["the kernel has no nftables: load the module `nf_tables`"]
        return [f"nftables cannot be used: {os.strerror(e.errno or 0)}"]
    return []
