"""A container's root filesystem: an overlay over the image's layers, and looking into it without being led out."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from sampan.linux.syscalls import mount, open_in_root, unmount


def mount_overlay(layers: Iterable[str], directory: str) -> str:
    """Mount the layers (lowest first) with a fresh writable one on top; returns the path of the root.

    `directory` gets `upper`, `work` and `root`. Raises OSError.
    """
    upper, work, root = f"{directory}/upper", f"{directory}/work", f"{directory}/root"
    for path in (upper, work, root):
        os.mkdir(path, 0o755)
    lowers = list(layers)[::-1]
    if not lowers:
        os.mkdir(f"{directory}/empty", 0o755)
        lowers = [f"{directory}/empty"]
    # The root's owner and mode are those of the uppermost layer.
    status = os.stat(lowers[0])
    os.chmod(upper, status.st_mode & 0o7777)
    os.chown(upper, status.st_uid, status.st_gid)
    # All options must fit into one page: name the layers by links as short as can be, needed only while mounting.
    links = tempfile.mkdtemp(prefix="l", dir="/run")
    try:
        for number, lower in enumerate(lowers):
            os.symlink(os.path.abspath(lower), f"{links}/{number}")
        names = ":".join(f"{links}/{number}" for number in range(len(lowers)))
        # volatile: a container's own layer is never mounted again, so never wait for the disk on its behalf.
        mount("overlay", root, "overlay", data=f"lowerdir={names},upperdir={upper},workdir={work},volatile")
    finally:
        shutil.rmtree(links, ignore_errors=True)
    return root


def unmount_overlay(directory: str) -> None:
    unmount(f"{directory}/root")


@contextmanager
def opened(root: str) -> Iterator[int]:
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_text(root: str, path: str, limit: int = 1 << 20) -> str:
    """A small file of the image as text; empty where there is none or it is no regular file."""
    with opened(root) as directory:
        try:
            descriptor = open_in_root(directory, path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return ""
        with open(descriptor, "rb") as file:
            if not os.path.isfile(f"/proc/self/fd/{descriptor}"):
                return ""
            return file.read(limit).decode(errors="replace")


def make_directory(root: str, path: str) -> None:
    """Make a directory inside the root, with its parents, as the container would see the path."""
    with opened(root) as directory:
        done = ""
        for part in [part for part in path.split("/") if part]:
            done += f"/{part}"
            with suppress(OSError):
                os.close(open_in_root(directory, done, os.O_PATH | os.O_DIRECTORY))
                continue
            parent = open_in_root(directory, os.path.dirname(done), os.O_PATH | os.O_DIRECTORY)
            try:
                os.mkdir(part, 0o755, dir_fd=parent)
            finally:
                os.close(parent)


@dataclass(frozen=True, slots=True)
class User:
    uid: int
    gid: int
    groups: tuple[int, ...]
    """All groups the image's /etc/group gives the user, and the primary one."""
    home: str
    named: str
    """The image's user where it is a name, else empty."""


def _entries(text: str) -> Iterator[list[str]]:
    for line in text.splitlines():
        if line and not line.startswith("#"):
            yield line.split(":")


def find_user(root: str, image_user: str, uid: int | None, gid: int | None) -> User:
    """Who the process runs as: the image's user unless the pod says otherwise.

    Raises LookupError with a message where a name is not in the image's /etc/passwd or /etc/group.
    """
    name, _, group = ("" if uid is not None else image_user).partition(":")
    number = uid if uid is not None else int(name) if name.isdigit() else 0 if not name else None
    home, login, primary = "/", "", None
    for entry in _entries(read_text(root, "/etc/passwd")):
        if len(entry) < 6 or not (entry[2].isdigit() and entry[3].isdigit()):
            continue
        if (number is None and entry[0] == name) or (number is not None and int(entry[2]) == number):
            number, primary, home, login = int(entry[2]), int(entry[3]), entry[5] or "/", entry[0]
            break
    if number is None:
        raise LookupError(f"unable to find user {name}: no matching entries in passwd file")
    groups: list[int] = []
    found = int(group) if group.isdigit() else None
    for entry in _entries(read_text(root, "/etc/group")):
        if len(entry) < 3 or not entry[2].isdigit():
            continue
        if group and not group.isdigit() and entry[0] == group:
            found = int(entry[2])
        if login and len(entry) > 3 and login in entry[3].split(","):
            groups.append(int(entry[2]))
    if group and found is None:
        raise LookupError(f"unable to find group {group}: no matching entries in group file")
    final = gid if gid is not None else found if found is not None else primary or 0
    return User(
        number,
        final,
        tuple(dict.fromkeys((final, *groups))),
        home,
        name if name and not name.isdigit() else "",
    )
