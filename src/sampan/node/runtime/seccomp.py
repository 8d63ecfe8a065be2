"""Seccomp profiles: which system calls a container may make.

`RuntimeDefault` here names what is forbidden rather than all that is allowed: the calls that act on the whole
machine or on namespaces, unless the container holds the capability that they are about. A new kernel's new calls
are therefore allowed until they are listed.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from sampan.node.runtime.types import RuntimeFailure

_EPERM, _ENOSYS = 1, 38
_NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag

_NEVER = (
    "add_key",
    "get_kernel_syms",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "nfsservctl",
    "query_module",
    "request_key",
    "uselib",
    "userfaultfd",
    "ustat",
    "vm86",
    "vm86old",
)

_WITH_CAPABILITY = {
    "DAC_READ_SEARCH": ("open_by_handle_at",),
    "SYS_ADMIN": (
        "bpf",
        "fanotify_init",
        "fsconfig",
        "fsmount",
        "fsopen",
        "fspick",
        "lookup_dcookie",
        "mount",
        "mount_setattr",
        "move_mount",
        "open_tree",
        "perf_event_open",
        "pivot_root",
        "quotactl",
        "quotactl_fd",
        "setdomainname",
        "sethostname",
        "setns",
        "swapoff",
        "swapon",
        "umount",
        "umount2",
        "unshare",
    ),
    "SYS_BOOT": ("reboot",),
    "SYS_MODULE": ("create_module", "delete_module", "finit_module", "init_module"),
    "SYS_NICE": ("get_mempolicy", "mbind", "move_pages", "set_mempolicy", "set_mempolicy_home_node"),
    "SYS_PACCT": ("acct",),
    "SYS_RAWIO": ("ioperm", "iopl"),
    "SYS_TIME": ("clock_settime", "clock_settime64", "settimeofday", "stime"),
    "SYS_TTY_CONFIG": ("vhangup",),
    "SYSLOG": ("syslog",),
}


def _refuse(names: Collection[str], error: int = _EPERM, **more: Any) -> dict[str, Any]:
    return {"names": sorted(names), "action": "SCMP_ACT_ERRNO", "errnoRet": error, **more}


def runtime_default(capabilities: Collection[str]) -> dict[str, Any]:
    """The profile for a container with these capabilities (without `CAP_`), as OCI's `linux.seccomp`."""
    refused = {
        name
        for capability, names in _WITH_CAPABILITY.items()
        if capability not in capabilities
        for name in names
    }
    rules = [_refuse({*_NEVER, *refused})]
    if "SYS_ADMIN" not in capabilities:
        # clone only without new namespaces; clone3's flags are out of a filter's sight, so libraries must fall back.
        rules.append(_refuse(("clone3",), _ENOSYS))
        for bit in (bit for bit in range(32) if _NEW_NAMESPACES >> bit & 1):
            flag = {"index": 0, "value": 1 << bit, "valueTwo": 1 << bit, "op": "SCMP_CMP_MASKED_EQ"}
            rules.append(_refuse(("clone",), args=[flag]))
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}


def profile(name: str, capabilities: Collection[str]) -> dict[str, Any] | None:
    """The profile that `SecurityContext.seccomp` names, or None for no filter.

    Raises RuntimeFailure where a profile of the node cannot be read or the name is unknown.
    """
    if name in ("", "Unconfined"):
        return None
    if name == "RuntimeDefault":
        return runtime_default(capabilities)
    kind, _, path = name.partition("/")
    if kind != "localhost" or not path.startswith("/"):
        raise RuntimeFailure(f"unknown seccomp profile {name!r}", "CreateContainerError")
    try:
        with open(path, "rb") as file:
            loaded = json.load(file)
    except (OSError, ValueError) as error:
        raise RuntimeFailure(
            f"cannot load seccomp profile {path!r}: {error}", "CreateContainerError"
        ) from error
    if not isinstance(loaded, dict):
        raise RuntimeFailure(f"cannot load seccomp profile {path!r}: not an object", "CreateContainerError")
    return loaded
