"""Seccomp profiles: which system calls a container may make.

`RuntimeDefault` names what is allowed, as the profiles of containerd and CRI-O do: what a program does with its own
files, memory, processes and sockets. Calls that act on the whole machine or on namespaces need the capability that they
are about, else they are answered with EPERM. A call that is named nowhere here, such as a new kernel's, does not exist
(ENOSYS): a C library then takes the older way, where EPERM would be a failure to it.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Collection
from typing import Any

from sampan.node.runtime.types import RuntimeFailure

_EPERM, _ENOSYS = 1, 38
_NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag but CLONE_NEWTIME, which clone does not know
_AF_VSOCK = 40
_PERSONALITIES = (0, 0x0008, 0x20000, 0x20008, 0xFFFFFFFF)
"""Linux, 32 bits of address space, another uname; the last one asks what it is."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ARCHITECTURES = {
    "x86_64": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "aarch64": ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
}

_ALLOWED = _names(
    """
    access faccessat faccessat2 open openat openat2 creat close close_range dup dup2 dup3 fcntl fcntl64 flock
    read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek _llseek readahead cachestat
    fadvise64 fadvise64_64 arm_fadvise64_64 fallocate truncate truncate64 ftruncate ftruncate64 copy_file_range
    sendfile sendfile64 splice tee vmsplice sync syncfs fsync fdatasync sync_file_range sync_file_range2
    arm_sync_file_range stat stat64 lstat lstat64 fstat fstat64 fstatat64 newfstatat statx statfs statfs64
    fstatfs fstatfs64 chmod fchmod fchmodat fchmodat2 chown chown32 fchown fchown32 fchownat lchown lchown32 umask
    utime utimes futimesat utimensat utimensat_time64 link linkat unlink unlinkat symlink symlinkat readlink
    readlinkat rename renameat renameat2 mkdir mkdirat rmdir mknod mknodat chdir fchdir getcwd getdents getdents64
    getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat listxattr llistxattr flistxattr
    listxattrat removexattr lremovexattr fremovexattr removexattrat name_to_handle_at inotify_init inotify_init1
    inotify_add_watch inotify_rm_watch fanotify_mark ioctl pipe pipe2
    landlock_create_ruleset landlock_add_rule landlock_restrict_self

    poll ppoll ppoll_time64 select _newselect pselect6 pselect6_time64 epoll_create epoll_create1 epoll_ctl
    epoll_ctl_old epoll_wait epoll_wait_old epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4
    io_setup io_submit io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64

    brk mmap mmap2 munmap mremap mprotect msync madvise mincore mlock mlock2 mlockall munlock munlockall mseal
    remap_file_pages memfd_create memfd_secret membarrier pkey_alloc pkey_free pkey_mprotect map_shadow_stack

    fork vfork execve execveat exit exit_group wait4 waitid waitpid prctl arch_prctl modify_ldt seccomp rseq
    set_tid_address set_thread_area get_thread_area set_tls set_robust_list get_robust_list futex futex_time64
    futex_waitv futex_wait futex_wake futex_requeue restart_syscall cacheflush breakpoint ptrace process_vm_readv
    process_vm_writev pidfd_open pidfd_send_signal process_mrelease getpid getppid gettid getpgid getpgrp setpgid
    getsid setsid getcpu getpriority setpriority ioprio_get ioprio_set getrlimit ugetrlimit setrlimit prlimit64
    getrusage times sysinfo uname getrandom sched_yield sched_getaffinity sched_setaffinity sched_getattr
    sched_setattr sched_getparam sched_setparam sched_getscheduler sched_setscheduler sched_get_priority_max
    sched_get_priority_min sched_rr_get_interval sched_rr_get_interval_time64

    kill tkill tgkill pause sigaltstack sigprocmask sigreturn rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo

    getuid getuid32 geteuid geteuid32 getgid getgid32 getegid getegid32 getresuid getresuid32 getresgid getresgid32
    getgroups getgroups32 setuid setuid32 setgid setgid32 setreuid setreuid32 setregid setregid32 setresuid
    setresuid32 setresgid setresgid32 setfsuid setfsuid32 setfsgid setfsgid32 setgroups setgroups32 capget capset

    time gettimeofday clock_gettime clock_gettime64 clock_getres clock_getres_time64 clock_nanosleep
    clock_nanosleep_time64 clock_adjtime clock_adjtime64 adjtimex nanosleep alarm getitimer setitimer timer_create
    timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64

    socketpair socketcall bind listen accept accept4 connect shutdown getsockname getpeername getsockopt setsockopt
    send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64

    ipc semget semop semctl semtimedop semtimedop_time64 shmget shmat shmdt shmctl msgget msgsnd msgrcv msgctl
    mq_open mq_unlink mq_notify mq_getsetattr mq_timedsend mq_timedsend_time64 mq_timedreceive
    mq_timedreceive_time64
    """
)

_WITH_CAPABILITY = {
    "BPF": ("bpf",),
    "DAC_READ_SEARCH": ("open_by_handle_at",),
    "PERFMON": ("perf_event_open",),
    "SYS_ADMIN": (
        *("bpf", "perf_event_open", "fanotify_init", "lookup_dcookie", "quotactl", "quotactl_fd", "syslog"),
        *("mount", "umount", "umount2", "pivot_root", "fsconfig", "fsmount", "fsopen", "fspick"),
        *("mount_setattr", "move_mount", "open_tree", "statmount", "listmount", "swapon", "swapoff"),
        *("clone3", "setns", "unshare", "setdomainname", "sethostname"),
    ),
    "SYS_BOOT": ("reboot",),
    "SYS_CHROOT": ("chroot",),
    "SYS_MODULE": ("create_module", "delete_module", "finit_module", "init_module"),
    "SYS_NICE": ("get_mempolicy", "mbind", "move_pages", "set_mempolicy", "set_mempolicy_home_node"),
    "SYS_PACCT": ("acct",),
    "SYS_PTRACE": ("kcmp", "pidfd_getfd", "process_madvise"),
    "SYS_RAWIO": ("ioperm", "iopl"),
    "SYS_TIME": ("clock_settime", "clock_settime64", "settimeofday", "stime"),
    "SYS_TTY_CONFIG": ("vhangup",),
    "SYSLOG": ("syslog",),
}

_NEVER = _names(
    """
    _sysctl add_key bdflush get_kernel_syms io_uring_enter io_uring_register io_uring_setup kexec_file_load kexec_load
    keyctl migrate_pages nfsservctl query_module request_key sysfs uselib userfaultfd ustat vm86 vm86old vserver
    """
)
"""Refused whatever the container may: keys and io_uring are not per container, the rest is the machine's or long dead."""


def _rule(
    names: Collection[str], *arguments: tuple[int, int, str], error: int = 0, mask: int = 0
) -> dict[str, Any]:
    """These calls are allowed, or answered with an error, if their arguments (place, value, comparison) are so."""
    rule: dict[str, Any] = {"names": sorted(names), "action": "SCMP_ACT_ALLOW"}
    if error:
        rule |= {"action": "SCMP_ACT_ERRNO", "errnoRet": error}
    if arguments:
        rule["args"] = [
            # A masked comparison's value is the mask, and its second value what is to be left.
            {"index": i, "value": mask or value, "valueTwo": value if mask else 0, "op": f"SCMP_CMP_{op}"}
            for i, value, op in arguments
        ]
    return rule


def runtime_default(capabilities: Collection[str]) -> dict[str, Any]:
    """The profile for a container with these capabilities (without `CAP_`), as OCI's `linux.seccomp`."""
    granted = {name for c in capabilities for name in _WITH_CAPABILITY.get(c, ())}
    refused = {name for names in _WITH_CAPABILITY.values() for name in names} - granted | _NEVER
    rules = [
        _rule(_ALLOWED | granted),
        _rule(("socket",), (0, _AF_VSOCK, "NE")),
        *(_rule(("personality",), (0, value, "EQ")) for value in _PERSONALITIES),
    ]
    if "SYS_ADMIN" in capabilities:
        rules.append(_rule(("clone",)))
    else:
        # clone only without new namespaces; clone3's flags are out of a filter's sight, so libraries must fall back.
        rules.append(_rule(("clone",), (0, 0, "MASKED_EQ"), mask=_NEW_NAMESPACES))
        rules.append(_rule(("clone3",), error=_ENOSYS))
        refused.discard("clone3")
        # What falls through the arguments above is refused, and not missing.
        for bit in (bit for bit in range(32) if _NEW_NAMESPACES >> bit & 1):
            rules.append(_rule(("clone",), (0, 1 << bit, "MASKED_EQ"), mask=1 << bit, error=_EPERM))
    rules.append(_rule(("socket",), (0, _AF_VSOCK, "EQ"), error=_EPERM))
    rules.append(_rule(refused, error=_EPERM))
    made: dict[str, Any] = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": _ENOSYS, "syscalls": rules}
    if architectures := _ARCHITECTURES.get(platform.machine()):
        made["architectures"] = architectures
    return made


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
