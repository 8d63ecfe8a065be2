"""What a container is, as an OCI runtime configuration (config.json). A pure function of what it is made from.

The defaults (capabilities, masked paths, mounts) are those of containerd, because images are tried against them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sampan.node.images.types import ImageConfig
from sampan.node.runtime import seccomp
from sampan.node.runtime.rootfs import User
from sampan.node.runtime.types import ContainerConfig, Resources, RuntimeFailure

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

DEFAULT_CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
)

# In the kernel's order: the bit in CapEff is the index.
CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
)

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def held_capabilities() -> frozenset[str]:
    """The capabilities we have and so can give (some hosts lack a few)."""
    with open("/proc/self/status") as file:
        bits = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    return frozenset(name for bit, name in enumerate(CAPABILITIES) if bits >> bit & 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the sandbox and the host give a container."""

    root: str
    hostname: str
    namespaces: Mapping[str, str]
    """Kind (`network`, `ipc`, `uts`, `pid`) to path of the ones to join; "" for the node's own."""
    shm: str
    """The pod's /dev/shm on the host."""
    cgroup: str
    cgroup_version: int
    limits_swap: bool
    capabilities: frozenset[str]
    """Those that can be given at all."""
    least_oom_score_adj: int
    """The least value that we may set; a lower one is left out."""
    hostname_file: str = ""


def arguments(config: ContainerConfig, image: ImageConfig) -> list[str]:
    """The command line as the Pod API defines it. Raises RuntimeFailure where there is none."""
    if config.command:
        result = [*config.command, *(config.args or ())]
    else:
        result = [*image.entrypoint, *(config.args or image.cmd)]
    if not result:
        raise RuntimeFailure("no command specified", "CreateContainerError")
    return result


def environment(config: ContainerConfig, image: ImageConfig, hostname: str) -> list[str]:
    merged = {"PATH": PATH, "HOSTNAME": hostname}
    if config.tty:
        merged["TERM"] = "xterm"
    merged.update(image.env)
    merged.update(config.env)
    return [f"{name}={value}" for name, value in merged.items()]


def _capabilities(config: ContainerConfig, held: frozenset[str]) -> frozenset[str]:
    security = config.security
    add = [name.upper().removeprefix("CAP_") for name in security.add_capabilities]
    drop = [name.upper().removeprefix("CAP_") for name in security.drop_capabilities]
    for name in (*add, *drop):
        if name != "ALL" and name not in CAPABILITIES:
            raise RuntimeFailure(f"unknown capability {name}", "CreateContainerError")
    chosen = set(DEFAULT_CAPABILITIES)
    if security.privileged:
        chosen = set(CAPABILITIES)
    else:
        if "ALL" in add:
            chosen = set(CAPABILITIES)
        if "ALL" in drop:
            chosen = set()
        chosen = (chosen | set(add)) - set(drop)
    return frozenset(chosen & held)


def linux_resources(resources: Resources, limits_swap: bool) -> dict[str, Any]:
    """The part of the configuration that can change while the container runs."""
    result: dict[str, Any] = {}
    cpu: dict[str, int] = {}
    if resources.cpu_shares:
        cpu["shares"] = resources.cpu_shares
    if resources.cpu_quota:
        cpu["quota"] = resources.cpu_quota
        cpu["period"] = resources.cpu_period
    if cpu:
        result["cpu"] = cpu
    if resources.memory_bytes:
        result["memory"] = {"limit": resources.memory_bytes}
        if limits_swap:
            result["memory"]["swap"] = resources.memory_bytes
    if resources.pids:
        result["pids"] = {"limit": resources.pids}
    return result


def _mounts(config: ContainerConfig, around: Surroundings) -> list[dict[str, Any]]:
    privileged = config.security.privileged
    writable = "rw" if privileged else "ro"
    own_network = bool(around.namespaces.get("network"))
    mounts: list[dict[str, Any]] = [
        {
            "destination": "/proc",
            "type": "proc",
            "source": "proc",
            "options": ["nosuid", "noexec", "nodev"],
        },
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {
            "destination": "/dev/mqueue",
            "type": "mqueue",
            "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"],
        },
        {
            "destination": "/sys",
            "type": "sysfs",
            "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", writable],
        }
        if own_network
        # A sysfs shows the network namespace of who mounts it; on the node's network only a bind works everywhere.
        else {
            "destination": "/sys",
            "type": "bind",
            "source": "/sys",
            "options": ["rbind", "nosuid", "noexec", "nodev", writable],
        },
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", writable],
        },
        {
            "destination": "/dev/shm",
            "type": "bind",
            "source": around.shm,
            "options": ["rbind", "rprivate", "nosuid", "noexec", "nodev", "rw"],
        },
    ]
    taken = {os.path.normpath(mount.container_path) for mount in config.mounts}
    if around.hostname_file and "/etc/hostname" not in taken:
        readonly = "ro" if config.security.readonly_rootfs else "rw"
        mounts.append(
            {
                "destination": "/etc/hostname",
                "type": "bind",
                "source": around.hostname_file,
                "options": ["bind", "rprivate", readonly],
            }
        )
    mounts = [mount for mount in mounts if mount["destination"] not in taken]
    # A mount below another one must come after it.
    for mount in sorted(config.mounts, key=lambda mount: os.path.normpath(mount.container_path).count("/")):
        propagation = {"private": "rprivate"}.get(mount.propagation, mount.propagation)
        mounts.append(
            {
                "destination": os.path.normpath(mount.container_path),
                "type": "bind",
                "source": mount.host_path,
                "options": ["rbind", propagation, "ro" if mount.readonly else "rw"],
            }
        )
    return mounts


def _device(path: str) -> dict[str, Any] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    kind = "c" if stat.S_ISCHR(status.st_mode) else "b" if stat.S_ISBLK(status.st_mode) else ""
    if not kind:
        return None
    return {
        "path": path,
        "type": kind,
        "major": os.major(status.st_rdev),
        "minor": os.minor(status.st_rdev),
        "fileMode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
    }


def _host_devices() -> Iterator[dict[str, Any]]:
    for directory, names, files in os.walk("/dev"):
        if directory == "/dev":
            names[:] = [name for name in names if name not in ("pts", "shm", "fd", "mqueue", ".lxc")]
        for name in sorted(files):
            if directory == "/dev" and name in ("console", "ptmx"):
                continue
            if device := _device(f"{directory}/{name}"):
                yield device


def _devices(config: ContainerConfig) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    if config.security.privileged:
        return list(_host_devices()), [{"allow": True, "access": "rwm"}]
    devices, rules = [], [{"allow": False, "access": "rwm"}]
    for path in config.devices:
        device = _device(path)
        if device is None:
            raise RuntimeFailure(f"{path} is not a device", "CreateContainerError")
        devices.append(device)
        rules.append(
            {
                "allow": True,
                "type": device["type"],
                "major": device["major"],
                "minor": device["minor"],
                "access": "rwm",
            }
        )
    return devices, rules


def _namespaces(around: Surroundings) -> list[dict[str, str]]:
    result = [{"type": "mount"}]
    if around.cgroup_version == 2:
        result.append({"type": "cgroup"})
    for kind in ("network", "ipc", "uts", "pid"):
        path = around.namespaces.get(kind)
        if path:
            result.append({"type": kind, "path": path})
        elif path is None:
            result.append({"type": kind})
    return result


def build(config: ContainerConfig, image: ImageConfig, user: User, around: Surroundings) -> dict[str, Any]:
    """The whole configuration. Raises RuntimeFailure for what cannot be."""
    security = config.security
    devices, rules = _devices(config)
    capabilities = _capabilities(config, around.capabilities)
    names = [f"CAP_{name}" for name in CAPABILITIES if name in capabilities]
    groups = dict.fromkeys((*user.groups, *security.supplemental_groups))
    process: dict[str, Any] = {
        "terminal": config.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(groups)},
        "args": arguments(config, image),
        "env": environment(config, image, around.hostname),
        "cwd": config.working_dir or image.working_dir or "/",
        "capabilities": {"bounding": names, "effective": names, "permitted": names},
        "noNewPrivileges": security.no_new_privileges,
    }
    if config.resources.oom_score_adj >= around.least_oom_score_adj:
        process["oomScoreAdj"] = config.resources.oom_score_adj
    linux: dict[str, Any] = {
        "namespaces": _namespaces(around),
        "cgroupsPath": around.cgroup,
        "resources": {"devices": rules, **linux_resources(config.resources, around.limits_swap)},
        "devices": devices,
    }
    if not security.privileged:
        linux["maskedPaths"] = list(MASKED_PATHS)
        linux["readonlyPaths"] = list(READONLY_PATHS)
        if profile := seccomp.profile(security.seccomp, capabilities):
            linux["seccomp"] = profile
    if security.sysctls:
        linux["sysctl"] = dict(security.sysctls)
    if any(mount.propagation != "private" for mount in config.mounts):
        linux["rootfsPropagation"] = (
            "rshared" if any(mount.propagation == "rshared" for mount in config.mounts) else "rslave"
        )
    return {
        "ociVersion": "1.0.2",
        "process": process,
        "root": {"path": around.root, "readonly": security.readonly_rootfs},
        "mounts": _mounts(config, around),
        "linux": linux,
        "annotations": dict(config.annotations),
    }


def exec_process(spec: Mapping[str, Any], command: Sequence[str], tty: bool) -> dict[str, Any]:
    """The process of a command run in the container that `spec` made: same user, rights and directory."""
    process = {key: value for key, value in spec["process"].items() if key != "oomScoreAdj"}
    process["args"] = list(command)
    process["terminal"] = tty
    if tty and not any(entry.startswith("TERM=") for entry in process["env"]):
        process["env"] = [*process["env"], "TERM=xterm"]
    return process
