"""Unpack one image layer. Runs as a program of its own: `unpack.py LOWER[:LOWER...] UPPER WORK MAXIMUM < layer.tar`.

The tar comes uncompressed on standard input. The layers below and the new one are mounted as an overlay in a mount
namespace of this process's own, and it moves its root into it before it reads a byte: no `..`, no absolute path and no
symlink of any layer can lead out, and removals become the whiteouts that the kernel itself makes. What ends up in UPPER
is the layer. Only the standard library is used, and all of it is imported before the root changes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import stat
import sys
import tarfile
from typing import BinaryIO

_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_MEMORY = 1 << 30
_XATTR = "SCHILY.xattr."


class LayerError(Exception):
    """The layer cannot be unpacked; the text is the user's."""


def main(lowers: str, upper: str, work: str, maximum: int) -> None:
    # A header may say that it is as long as it likes, and is read whole.
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    _isolate(lowers, upper, work)
    _extract(sys.stdin.buffer, maximum)


def _isolate(lowers: str, upper: str, work: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def checked(result: int, what: str) -> None:
        if result:
            raise LayerError(f"{what}: {os.strerror(ctypes.get_errno())}")

    checked(libc.unshare(_NEWNS), "cannot make a mount namespace")
    checked(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "cannot make mounts private")
    root = f"{work}.root"
    os.makedirs(root, exist_ok=True)
    # The kernel wants at least one lower layer and all options within a page: name them by short links.
    links = f"{work}.l"
    os.makedirs(links, exist_ok=True)
    os.chdir(links)
    names = []
    os.mkdir("empty")
    for number, lower in enumerate([p for p in lowers.split(":") if p] or [f"{links}/empty"]):
        os.symlink(lower, str(number))
        names.append(str(number))
    options = f"lowerdir={':'.join(names)},upperdir={upper},workdir={work}"
    checked(libc.mount(b"overlay", root.encode(), b"overlay", 0, options.encode()), "cannot mount the layers")
    os.chroot(root)
    os.chdir("/")


def _extract(stream: BinaryIO, maximum: int) -> None:
    total = 0
    directories: list[tarfile.TarInfo] = []
    with tarfile.open(fileobj=stream, mode="r|", errorlevel=1) as tar:
        for entry in tar:
            tar.members.clear()  # type: ignore[attr-defined]  # it would remember every entry
            path = _inside(entry.name)
            if path == "/":
                if entry.isdir():
                    directories.append(entry)
                continue
            parent, name = os.path.split(path)
            os.makedirs(parent, mode=0o755, exist_ok=True)
            if name == _OPAQUE:
                for child in os.listdir(parent):
                    _remove(os.path.join(parent, child))
                continue
            if name.startswith(_WHITEOUT):
                gone = name[len(_WHITEOUT) :]
                if gone in ("", ".", ".."):
                    raise LayerError(f"the layer removes {gone!r} in {parent!r}")
                _remove(os.path.join(parent, gone))
                continue
            total += entry.size if entry.isreg() else 0
            if total > maximum:
                raise LayerError(f"the layer unpacks to more than {maximum} bytes")
            if _make(tar, entry, path) and entry.isdir():
                directories.append(entry)
    # Times of directories last: filling them changes them.
    for entry in reversed(directories):
        with contextlib.suppress(OSError):
            os.utime(_inside(entry.name), (entry.mtime, entry.mtime), follow_symlinks=False)


def _inside(name: str) -> str:
    """An entry's name below the root: `..` ends there."""
    return os.path.normpath("/" + name.lstrip("/"))


def _make(tar: tarfile.TarFile, entry: tarfile.TarInfo, path: str) -> bool:
    """Make one entry; False where it is of a kind that no container needs from its image (devices)."""
    present = os.lstat(path) if os.path.lexists(path) else None
    if entry.isdir():
        if present is not None and not stat.S_ISDIR(present.st_mode):
            _remove(path)
            present = None
        if present is None:
            os.mkdir(path)
    elif present is not None:
        _remove(path)
    if entry.isreg():
        source = tar.extractfile(entry)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as f:
            if source is not None:
                shutil.copyfileobj(source, f, 1 << 20)
    elif entry.issym():
        os.symlink(entry.linkname, path)
    elif entry.islnk():
        os.link(_inside(entry.linkname), path, follow_symlinks=False)
        return True
    elif entry.isfifo():
        os.mkfifo(path)
    elif not entry.isdir():
        return False
    os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
    for key, value in entry.pax_headers.items():
        if key.startswith(_XATTR):
            with contextlib.suppress(OSError):
                raw = value.encode("utf-8", "surrogateescape")
                os.setxattr(path, key[len(_XATTR) :], raw, follow_symlinks=False)
    if not entry.issym():
        os.chmod(path, entry.mode & 0o7777)
    os.utime(path, (entry.mtime, entry.mtime), follow_symlinks=False)
    return True


def _remove(path: str) -> None:
    try:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        pass


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
    except MemoryError:
        print("the layer's headers are larger than any honest ones", file=sys.stderr)
        sys.exit(1)
    # The last four: names with a NUL, owners and times out of all range, directories without end.
    except (LayerError, OSError, tarfile.TarError, ValueError, ArithmeticError, RuntimeError, TypeError) as e:
        print(e, file=sys.stderr)
        sys.exit(1)
