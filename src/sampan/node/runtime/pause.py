"""The pause process: it does nothing but hold a pod's namespaces, so that containers can come and go.

A thread makes the namespaces its own, sets them up from the inside and starts the pause program, which inherits
them; then the thread ends. No program in between, no fork of our own process: about 2 ms.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from sampan.linux.syscalls import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    MS_BIND,
    mount,
    unshare,
)
from sampan.node.runtime import process
from sampan.node.runtime.types import SandboxConfig

T = TypeVar("T")


async def in_own_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread made for it, for work that changes the thread's namespaces."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def target() -> None:
        try:
            result = work()
        except BaseException as error:  # every error belongs to the waiting task
            loop.call_soon_threadsafe(settle, None, error)
        else:
            loop.call_soon_threadsafe(settle, result, None)

    threading.Thread(target=target, name="namespaces", daemon=True).start()
    return await future


def _write_sysctl(name: str, value: str) -> None:
    # Upstream takes both `net.ipv4.conf.eth0/1.rp_filter` and `net/ipv4/conf/eth0.1/rp_filter`.
    slashes = "/" in name and (name + ".").index(".") > name.index("/")
    path = name if slashes else name.translate(str.maketrans("./", "/."))
    with open(f"/proc/sys/{path}", "w") as file:
        file.write(value)


def _start(config: SandboxConfig, program: str, netns: str) -> int:
    flags = 0
    if config.network == "pod":
        flags |= CLONE_NEWNET | CLONE_NEWUTS
    if config.ipc == "pod":
        flags |= CLONE_NEWIPC
    if config.pid == "pod":
        flags |= CLONE_NEWPID
    unshare(flags)
    if config.network == "pod":
        if config.hostname:
            socket.sethostname(config.hostname)
        os.close(os.open(netns, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o444))
        mount("/proc/thread-self/ns/net", netns, flags=MS_BIND)
    for name, value in config.sysctls.items():
        _write_sysctl(name, value)
    return process.spawn([program, "-P"])


async def start(config: SandboxConfig, program: str, netns: str) -> int:
    """Start the pause `program` (catatonit) in new namespaces as `config` says and return its pid.

    The network namespace is also bound to the file `netns`, so that it outlives the process. Raises OSError.
    """
    return await in_own_thread(lambda: _start(config, program, netns))


def find(netns: str) -> process.ProcessId:
    """The process whose network namespace is bound to the file `netns`, or one with pid 0."""
    with suppress(OSError):
        wanted = os.stat(netns)
        for name in os.listdir("/proc"):
            with suppress(OSError):
                if name.isdigit() and os.path.samestat(os.stat(f"/proc/{name}/ns/net"), wanted):
                    return process.ProcessId.of(int(name))
    return process.ProcessId(0, 0, "")
