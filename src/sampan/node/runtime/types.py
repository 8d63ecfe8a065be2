"""The CRI-shaped seam between the node agent and what runs containers.

Names and life cycle are those of the Container Runtime Interface (`runtime.v1.RuntimeService`), so that another
runtime can stand behind it; streams are asyncio objects instead of gRPC ones. The runtime is the only keeper of what
runs: after our own restart the agent rebuilds its picture from `list_pod_sandboxes` and `list_containers`.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from sampan.network.types import PortMapping


class RuntimeFailure(Exception):
    """The runtime could not do it. `reason` is upstream's word for the container or event where there is one
    (`CreateContainerError`, `RunContainerError`, `StartError`), the message what the user reads."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class NotFound(RuntimeFailure):
    """No sandbox or container with this id."""


class SandboxState(enum.StrEnum):
    READY = "SANDBOX_READY"
    NOT_READY = "SANDBOX_NOTREADY"


class ContainerState(enum.StrEnum):
    CREATED = "CONTAINER_CREATED"
    RUNNING = "CONTAINER_RUNNING"
    EXITED = "CONTAINER_EXITED"
    UNKNOWN = "CONTAINER_UNKNOWN"


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxConfig:
    """What a pod sandbox is made from. `namespaces` that are "node" are the node's own (hostNetwork, ...)."""

    namespace: str
    name: str
    uid: str
    attempt: int = 0
    hostname: str = ""
    log_directory: str
    network: Literal["pod", "node"] = "pod"
    ipc: Literal["pod", "node"] = "pod"
    pid: Literal["container", "pod", "node"] = "container"
    cgroup_parent: str = ""
    """The pod's cgroup, relative to every controller's root; made by the node agent."""
    port_mappings: tuple[PortMapping, ...] = ()
    """Ports of the node that lead to the pod; only where the network is the pod's own."""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxStatus:
    id: str
    namespace: str
    name: str
    uid: str
    attempt: int
    state: SandboxState
    created_at: float
    """Seconds since the epoch, as every time here."""
    ips: tuple[str, ...]
    pid: int
    netns: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Mount:
    """A bind mount. `host_path` has been resolved safely by the caller; for subPath the caller passes an open
    directory's `/proc/self/fd` path or one of its own bind mounts, never a path a container can still change."""

    container_path: str
    host_path: str
    readonly: bool = False
    propagation: Literal["private", "rslave", "rshared"] = "private"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Limits for the cgroup; 0 means none."""

    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 100_000
    memory_bytes: int = 0
    pids: int = 0
    oom_score_adj: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityContext:
    """User and rights of a container. `user` None means the image's; capability names are without `CAP_`."""

    user: int | None = None
    group: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    run_as_non_root: bool = False
    privileged: bool = False
    readonly_rootfs: bool = False
    no_new_privileges: bool = False
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    seccomp: str = ""
    """`Unconfined` (also where empty), `RuntimeDefault`, or `localhost/` and the profile file's absolute path."""
    sysctls: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerConfig:
    """What a container is made from. `command`/`args` override the image's entrypoint/cmd as in the Pod API."""

    name: str
    attempt: int
    image: str
    """The image id that `ImageService` resolved."""
    command: Sequence[str] | None = None
    args: Sequence[str] | None = None
    working_dir: str = ""
    env: Sequence[tuple[str, str]] = ()
    mounts: Sequence[Mount] = ()
    devices: Sequence[str] = ()
    log_path: str
    """Relative to the sandbox's log directory."""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    stop_signal: str = ""
    resources: Resources = field(default_factory=Resources)
    security: SecurityContext = field(default_factory=SecurityContext)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerStatus:
    id: str
    sandbox_id: str
    name: str
    attempt: int
    state: ContainerState
    created_at: float
    started_at: float
    finished_at: float
    exit_code: int
    reason: str
    """`Completed`, `Error`, `OOMKilled`, `ContainerCannotRun`, ..."""
    message: str
    image: str
    """As the pod named it."""
    image_id: str
    """With digest, as `status.containerStatuses[].imageID` shows it."""
    pid: int
    log_path: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RuntimeEvent:
    """Something ended by itself or through us. The receiver reads the status for more."""

    kind: Literal["container-exited", "sandbox-died"]
    id: str
    sandbox_id: str


@dataclass(frozen=True, slots=True)
class ExecResult:
    """The outcome of a command run to its end; output is bounded by the caller's `limit`."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class Process(Protocol):
    """A process attached to streams: a command run by exec, or a container's own by attach.

    With a tty `stderr` is None. Closing `stdin` ends the process's input. `resize` takes columns and rows.
    """

    stdin: asyncio.StreamWriter | None
    stdout: asyncio.StreamReader | None
    stderr: asyncio.StreamReader | None

    async def wait(self) -> int:
        """The exit code; for attach, the container's when it ends.

        Raises RuntimeFailure where the command could not be started (not found, for one)."""

    def resize(self, columns: int, rows: int) -> None: ...

    async def close(self) -> None:
        """Let go of the streams; a command still running by exec is killed, an attached container is not."""


class RuntimeService(Protocol):
    """Runs pods' sandboxes and containers. Removing or stopping what is already gone does nothing."""

    async def start(self) -> None:
        """Take up what already runs (after our restart, or the host's) and begin to watch for exits."""

    async def close(self) -> None:
        """Let go; what runs goes on."""

    async def run_pod_sandbox(self, config: SandboxConfig) -> SandboxStatus: ...
    async def stop_pod_sandbox(self, sandbox_id: str) -> None: ...
    async def remove_pod_sandbox(self, sandbox_id: str) -> None: ...
    async def pod_sandbox_status(self, sandbox_id: str) -> SandboxStatus: ...
    async def list_pod_sandboxes(self) -> list[SandboxStatus]: ...

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str: ...
    async def start_container(self, container_id: str) -> None: ...
    async def stop_container(self, container_id: str, timeout: float) -> None:
        """Send the stop signal, wait up to `timeout` seconds, then kill; returns when the container has ended."""

    async def remove_container(self, container_id: str) -> None: ...
    async def container_status(self, container_id: str) -> ContainerStatus: ...
    async def list_containers(self, sandbox_id: str = "") -> list[ContainerStatus]: ...
    async def update_container_resources(self, container_id: str, resources: Resources) -> None: ...
    async def reopen_container_log(self, container_id: str) -> None: ...

    async def exec_sync(
        self, container_id: str, command: Sequence[str], timeout: float = 0, limit: int = 16 * 1024
    ) -> ExecResult:
        """Run a command to its end; raises TimeoutError (and kills it) after `timeout` seconds if not 0."""

    async def exec(self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool) -> Process: ...
    async def attach(self, container_id: str) -> Process: ...

    async def open_port(
        self, sandbox_id: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to localhost:`port` inside the sandbox's network namespace (port-forward)."""

    def events(self) -> AsyncIterator[RuntimeEvent]:
        """Exits as they happen; one reader."""
