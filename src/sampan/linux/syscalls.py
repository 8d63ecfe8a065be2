"""The system calls that Python 3.11 has no function for, each raising OSError like the ones it has."""

from __future__ import annotations

import ctypes
import errno
import os

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

TMPFS_MAGIC = 0x01021994
CGROUP2_MAGIC = 0x63677270

_SYS_OPENAT2 = 437
_RESOLVE_IN_ROOT = 0x10

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def _checked(result: int, path: str = "") -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path or None)
    return result


def _text(text: str) -> bytes:
    """As the kernel takes it: C would end it at a NUL, and do something else than was asked."""
    if "\0" in text:
        raise OSError(errno.EINVAL, "a NUL in a name", text)
    return os.fsencode(text)


def mount(source: str, target: str, type: str = "", flags: int = 0, data: str = "") -> None:
    _checked(
        _libc.mount(
            _text(source),
            _text(target),
            type.encode() or None,
            ctypes.c_ulong(flags),
            _text(data) or None,
        ),
        target,
    )


def unmount(target: str) -> None:
    """Take a mount away, at once and whoever still looks into it; nothing happens where there is none. A symlink is
    not followed."""
    try:
        _checked(_libc.umount2(_text(target), MNT_DETACH | UMOUNT_NOFOLLOW), target)
    except OSError as error:
        if error.errno not in (2, 22):  # ENOENT, EINVAL: not there, not a mount
            raise


def unshare(flags: int) -> None:
    """Give the calling thread namespaces of its own."""
    _checked(_libc.unshare(flags))


def setns(descriptor: int, kind: int) -> None:
    """Move the calling thread into the namespace(s) of a namespace file or a pidfd."""
    _checked(_libc.setns(descriptor, kind))


def filesystem_type(path: str) -> int:
    """The magic number of the filesystem at `path` (statfs f_type)."""
    buffer = (ctypes.c_long * 32)()
    _checked(_libc.statfs(_text(path), ctypes.byref(buffer)), path)
    return buffer[0]


def open_in_root(root: int, path: str, flags: int) -> int:
    """Open `path` as a process would whose root is the directory descriptor `root`: no link leads out of it."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT)
    return _checked(
        int(_libc.syscall(_SYS_OPENAT2, root, _text(path), ctypes.byref(how), ctypes.sizeof(how))), path
    )
