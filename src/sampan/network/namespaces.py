"""The namespaces that make a part of this machine a node: network and mount, kept by name as long as wanted.

Kept means bind-mounted on a file (as `ip netns` does), so that they outlive every process in them. Must be used from
a process with a single thread: it forks.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from sampan.linux.mounts import is_mount_point
from sampan.linux.syscalls import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    MS_BIND,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
    mount,
    setns,
    unmount,
    unshare,
)

NETNS_DIRECTORY = Path("/run/netns")


def bind(source: str, target: str) -> None:
    """A bind mount of one file or directory."""
    mount(source, target, flags=MS_BIND)


def run_forked(work: Callable[[], None]) -> None:
    """Run `work` in a forked child and wait for it. Raises OSError with the child's error."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(read)
            work()
            status = 0
        except BaseException as e:
            code = e.errno if isinstance(e, OSError) and e.errno else 0
            with contextlib.suppress(OSError):
                os.write(write, f"{code}:{e}".encode()[:4000])
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as f:
        said = f.read().decode(errors="replace")
    _, status = os.waitpid(pid, 0)
    if status:
        number, _, text = said.partition(":")
        raise OSError(int(number or 0), text or f"child ended with status {status}")


def prepare_directories(mounts: Path) -> None:
    """Make /run/netns as `ip netns` wants it, and `mounts` a place where mount namespaces may be kept (they cannot
    be on a mount that is shared)."""
    NETNS_DIRECTORY.mkdir(mode=0o755, exist_ok=True)
    if not is_mount_point(NETNS_DIRECTORY):
        bind(str(NETNS_DIRECTORY), str(NETNS_DIRECTORY))
        mount("", str(NETNS_DIRECTORY), flags=MS_SHARED | MS_REC)
    mounts.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_mount_point(mounts):
        bind(str(mounts), str(mounts))
    mount("", str(mounts), flags=MS_PRIVATE)


def create(
    netns: Path | None, mntns: Path, *, sysctls: Mapping[str, str], hide: tuple[str, ...] = ()
) -> None:
    """Make a network and a mount namespace and keep them at the two paths, unless they are there already. Without `netns`
    the network stays the caller's.

    The mount namespace follows the host's mounts but not the other way round; what is mounted at `hide` is not seen
    in it. `sysctls` are set in the new network namespace.
    """
    if (netns is None or is_mount_point(netns)) and is_mount_point(mntns):
        return
    # A mount namespace can be kept only in one with a lower id, lest they hold each other; from 6.18 on, the kernel
    # gives ids out in blocks to its processors. The one that ours was made on gives a higher one for certain.
    processors = sorted(os.sched_getaffinity(0))
    for processor in (None, *processors):
        try:
            return _create(netns, mntns, sysctls, hide, processor)
        except OSError as e:
            if e.errno != errno.EINVAL or processor == processors[-1]:
                raise


def _create(
    netns: Path | None, mntns: Path, sysctls: Mapping[str, str], hide: tuple[str, ...], processor: int | None
) -> None:
    remove(netns, mntns)
    for path in filter(None, (netns, mntns)):
        path.touch(mode=0o400)
    made, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if processor is not None:
                os.sched_setaffinity(0, {processor})
            unshare(CLONE_NEWNS | (CLONE_NEWNET if netns is not None else 0))
            mount("", "/", flags=MS_SLAVE | MS_REC)
            for hidden in hide:
                unmount(hidden)
            for name, value in sysctls.items():
                Path("/proc/sys", name.replace(".", "/")).write_text(value)
            os.write(made[1], b"+")
            os.close(go[1])
            os.read(go[0], 1)
            status = 0
        except BaseException as e:
            with contextlib.suppress(OSError):
                os.write(made[1], str(e).encode()[:4000])
        finally:
            os._exit(status)
    os.close(made[1])
    os.close(go[0])
    try:
        said = os.read(made[0], 4096)
        if said != b"+":
            raise OSError(0, said.decode(errors="replace") or "the namespaces could not be made")
        if netns is not None:
            bind(f"/proc/{pid}/ns/net", str(netns))
        bind(f"/proc/{pid}/ns/mnt", str(mntns))
    finally:
        os.close(made[0])
        os.close(go[1])
        os.waitpid(pid, 0)


def remove(netns: Path | None, mntns: Path) -> None:
    """Let go of the namespaces; they end when the last process in them does."""
    for path in filter(None, (netns, mntns)):
        unmount(str(path))
        path.unlink(missing_ok=True)


def enter(netns: Path | None, mntns: Path) -> None:
    """Move the calling process (single-threaded) into the namespaces."""
    fds = [os.open(p, os.O_RDONLY | os.O_CLOEXEC) for p in filter(None, (netns, mntns))]
    try:
        for fd in fds:
            setns(fd, 0)
    finally:
        for fd in fds:
            os.close(fd)
