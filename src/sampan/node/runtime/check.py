"""What the runtime needs of the host: which programs, and does the kernel mount what we mount?"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from sampan.linux.syscalls import CGROUP2_MAGIC, filesystem_type
from sampan.node.runtime.cgroup import ROOT
from sampan.node.runtime.rootfs import mount_overlay, unmount_overlay
from sampan.node.runtime.types import RuntimeFailure


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs that the runtime drives, by path, and why this OCI runtime was chosen."""

    runtime: str
    conmon: str
    pause: str
    why: str = ""

    @property
    def runtime_name(self) -> str:
        return os.path.basename(self.runtime)


def hybrid_cgroups(root: str = ROOT) -> bool:
    """Is a version 2 hierarchy visible inside a version 1 layout? crun refuses to work there."""
    with suppress(OSError):
        return filesystem_type(root) != CGROUP2_MAGIC and (
            filesystem_type(f"{root}/unified") == CGROUP2_MAGIC
        )
    return False


def find_programs(which: Callable[[str], str | None] = shutil.which) -> Programs:
    """The programs to use. Raises RuntimeFailure that names each Debian package that is missing."""
    missing: list[str] = []
    found: dict[str, str] = {}
    for program in ("conmon", "catatonit"):
        path = which(program)
        if path:
            found[program] = path
        else:
            missing.append(program)
    crun, runc = which("crun"), which("runc")
    hybrid = hybrid_cgroups()
    if crun and not hybrid:
        runtime, why = crun, "crun: the faster one"
    elif runc:
        runtime = runc
        why = (
            f"runc: crun does not work while {ROOT}/unified is visible (hybrid cgroup layout)"
            if crun
            else "runc: crun is not installed"
        )
    else:
        runtime, why = "", ""
        missing.append("runc" if crun else "crun")
    if missing:
        raise RuntimeFailure(
            f"missing programs, install them with: apt-get install {' '.join(sorted(missing))}"
            + (f" (crun alone does not do: {ROOT}/unified is visible)" if crun and not runtime else ""),
            "MissingPrograms",
        )
    return Programs(runtime, found["conmon"], found["catatonit"], why)


def check_overlay(directory: str) -> None:
    """Can overlays be mounted with their upper layer in `directory`? Raises RuntimeFailure."""
    with tempfile.TemporaryDirectory(prefix="overlay-", dir=directory) as place:
        try:
            mount_overlay((), place)
        except OSError as error:
            raise RuntimeFailure(
                f"cannot mount an overlay under {directory}: {error.strerror} (is it itself on an overlay, or "
                "does the kernel lack the overlay module?)",
                "OverlayUnsupported",
            ) from error
        unmount_overlay(place)
