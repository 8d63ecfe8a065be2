"""Which processes are a cluster's: those in its cgroup, which nothing in it can leave.

One cgroup tree is used for this, whatever the layout: the unified (v2) one where it is mounted, else the first v1
hierarchy. Resource limits are another matter and the node agent's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from sampan.linux.syscalls import CLONE_NEWNS, MS_PRIVATE, MS_REC, mount, unshare
from sampan.network.namespaces import run_forked

_CGROUPS = Path("/sys/fs/cgroup")


def roots() -> list[Path]:
    """The root of every cgroup hierarchy of this host, the one used for tracking first."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return [_CGROUPS]
    found = [p for p in sorted(_CGROUPS.iterdir()) if (p / "cgroup.procs").exists() and not p.is_symlink()]
    return sorted(found, key=lambda p: p.name != "unified")


def join(cgroup: str) -> None:
    """Move the calling process into a cgroup (made if need be) of the tracking hierarchy. Raises OSError."""
    path = roots()[0] / cgroup
    path.mkdir(parents=True, exist_ok=True)
    (path / "cgroup.procs").write_text("0")


def members(prefix: str) -> list[int]:
    """The processes in a cgroup or below it, in any hierarchy."""
    found = []
    inside, exact = f"/{prefix}/", f"/{prefix}"
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            text = Path("/proc", entry.name, "cgroup").read_text()
            state = Path("/proc", entry.name, "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state == "Z":  # ended; only its parent has not looked yet
            continue
        if any(
            part.startswith(inside) or part == exact
            for part in (line.split(":", 2)[2] for line in text.splitlines())
        ):
            found.append(int(entry.name))
    return found


def end(pids: Iterable[int], *, grace: float) -> None:
    """Send SIGTERM, wait up to `grace` seconds for all to end, then SIGKILL what is left and wait for it."""
    open_fds: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            open_fds[os.pidfd_open(pid)] = pid
    try:
        if grace > 0:
            _signal(open_fds, signal.SIGTERM)
            _await(open_fds, grace)
        _signal(open_fds, signal.SIGKILL)
        _await(open_fds, 10)
    finally:
        for fd in open_fds:
            os.close(fd)


def end_all(prefix: str, *, grace: float, spare: Callable[[int], bool] = lambda pid: False) -> None:
    """End every process of a cgroup, those that they start meanwhile included."""
    for _ in range(50):
        pids = [p for p in members(prefix) if p != os.getpid() and not spare(p)]
        if not pids:
            return
        end(pids, grace=grace)
        grace = 0
    raise OSError(errno.EBUSY, f"processes in cgroup {prefix} do not end: {members(prefix)}")


def remove_cgroups(prefix: str) -> None:
    """Remove a cgroup and all below it, in every hierarchy; must hold no process. Empty parents of ours go as well.

    Also in those that the caller's mounts do not show: `ip netns exec` mounts a bare /sys, and a CI job may hide some.
    Raises OSError for what is still in use after some seconds.
    """
    seen = roots()
    for root in seen:
        _remove_below(root, prefix)
    hierarchies = Path("/proc/self/cgroup").read_text().splitlines()
    if len(seen) < len(hierarchies):
        run_forked(lambda: _remove_unseen(hierarchies, prefix))


def _remove_unseen(hierarchies: Sequence[str], prefix: str) -> None:
    """The same by mounts of our own, which end with this process."""
    unshare(CLONE_NEWNS)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("none", "/sys", "tmpfs")
    for number, controllers, _ in (line.split(":", 2) for line in hierarchies):
        root = Path("/sys", number)
        root.mkdir()
        try:
            mount("none", str(root), "cgroup" if controllers else "cgroup2", data=controllers)
        except OSError:  # one that cannot be mounted here holds nothing of ours
            continue
        _remove_below(root, prefix)


def _remove_below(root: Path, prefix: str) -> None:
    top = root / prefix
    for directory, _, _ in os.walk(top, topdown=False):
        _rmdir(Path(directory))
    with contextlib.suppress(OSError):
        top.parent.rmdir()


def cgroups(prefix: str) -> list[str]:
    """The names of the cgroups right below one, whatever hierarchy of this host they are in."""
    found: set[str] = set()
    for root in roots():
        with contextlib.suppress(FileNotFoundError):
            found.update(e.name for e in os.scandir(root / prefix) if e.is_dir())
    return sorted(found)


def _rmdir(path: Path) -> None:
    deadline = time.monotonic() + 5
    while True:
        try:
            path.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError as e:
            # The kernel lets go of a killed process's cgroup a moment after the process is gone.
            left = deadline - time.monotonic()
            if e.errno != errno.EBUSY or left <= 0:
                raise
            _await_empty(path, left)


def _await_empty(path: Path, seconds: float) -> None:
    """Wait until nothing lives in a cgroup any more; in version 1, which tells of no such event, a moment."""
    with contextlib.suppress(FileNotFoundError), open(path / "cgroup.events") as events:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        if "populated 1" in events.read():
            poll.poll(seconds * 1000)
            return
    time.sleep(0.01)


def start_time(pid: int) -> str:
    """When a process started, in clock ticks: with the pid it names a process for good; "" if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _signal(fds: dict[int, int], number: int) -> None:
    for fd in fds:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, number)


def _await(fds: dict[int, int], seconds: float) -> None:
    """Wait until all have ended; those that have are closed and dropped."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    deadline = time.monotonic() + seconds
    while fds:
        left = deadline - time.monotonic()
        if left <= 0:
            return
        for fd, _ in poll.poll(left * 1000):
            poll.unregister(fd)
            pid = fds.pop(fd)
            os.close(fd)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
