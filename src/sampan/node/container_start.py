"""Starting one container: its configuration from the pod, then create and start in the runtime, with their events.

Upstream: `kuberuntime_container.go` (startContainer, generateContainerConfig).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path

from sampan.api.errors import Object
from sampan.api.resources import Resource
from sampan.client.references import CacheTimeout
from sampan.node import pods
from sampan.node.cgroups import container_resources
from sampan.node.context import NodeContext, StartFailure
from sampan.node.environment import EnvironmentFailure, container_environment, expand
from sampan.node.images.types import Image
from sampan.node.runtime.types import ContainerConfig, Mount, RuntimeFailure, SandboxStatus
from sampan.node.sandboxes import CONTAINER_NAME, pod_labels
from sampan.node.security import security_context
from sampan.node.status import IMAGE_ID, IMAGE_NAME
from sampan.node.volumes.pod_volumes import PodVolumes
from sampan.node.volumes.types import VolumeFailure

TERMINATION_FILE = "sampan.dev/termination-file"
TERMINATION_POLICY = "io.kubernetes.container.terminationMessagePolicy"
CONFIG_ERROR = "CreateContainerConfigError"
MAX_MESSAGE = 4096
LOG_TAIL_BYTES, LOG_TAIL_LINES = 2048, 80


async def container_config(
    node: NodeContext,
    pod: Object,
    container: Object,
    attempt: int,
    image: Image,
    sandbox: SandboxStatus,
    ips: tuple[str, ...],
    volumes: PodVolumes,
) -> ContainerConfig:
    """What the runtime makes the container from. Raises StartFailure."""
    name = container["name"]

    async def lookup(resource: Resource, object_name: str) -> Object | None:
        return await node.objects.get(pods.uid(pod), resource, pod["metadata"]["namespace"], object_name)

    security = security_context(pod, container, image, node.config.root / "seccomp")
    try:
        environment = await container_environment(
            pod,
            container,
            lookup=lookup,
            services=node.services.list(),
            node_name=node.config.name,
            host_ips=node.config.ips,
            pod_ips=ips,
            machine_cpus=node.cpus,
            machine_memory=node.memory,
        )
        mounts = volumes.mounts(container, environment)
    except (EnvironmentFailure, CacheTimeout, VolumeFailure) as e:
        raise StartFailure(CONFIG_ERROR, str(e)) from None
    mounts += _pod_file_mounts(node, pod, container, sandbox)
    termination, annotations = _termination_file(node, pod, container)
    mounts += termination
    annotations[IMAGE_NAME] = image.tags[0] if image.tags else container.get("image", "")
    annotations[IMAGE_ID] = image.digests[0] if image.digests else image.id
    (node.config.log_directory(pod) / name).mkdir(parents=True, exist_ok=True)
    command, args = container.get("command"), container.get("args")
    return ContainerConfig(
        name=name,
        attempt=attempt,
        image=image.id,
        command=None if command is None else [expand(c, environment) for c in command],
        args=None if args is None else [expand(a, environment) for a in args],
        working_dir=container.get("workingDir") or "",
        env=list(environment.items()),
        mounts=mounts,
        log_path=f"{name}/{attempt}.log",
        stdin=bool(container.get("stdin")),
        stdin_once=bool(container.get("stdinOnce")),
        tty=bool(container.get("tty")),
        stop_signal=(container.get("lifecycle") or {}).get("stopSignal") or "",
        resources=container_resources(pod, container, node.memory),
        security=security,
        labels={**pod_labels(pod), CONTAINER_NAME: name},
        annotations=annotations,
    )


async def create_and_start(
    node: NodeContext, pod: Object, sandbox: SandboxStatus, config: ContainerConfig
) -> str:
    """Run a container from its configuration; gives its id. Raises StartFailure."""
    try:
        container_id = await node.runtime.create_container(sandbox.id, config)
    except RuntimeFailure as e:
        node.container_event(pod, config.name, "Warning", "Failed", f"Error: {e}")
        raise StartFailure("CreateContainerError", str(e)) from None
    node.container_event(pod, config.name, "Normal", "Created", "Container created")
    try:
        await node.runtime.start_container(container_id)
    except RuntimeFailure as e:
        node.container_event(pod, config.name, "Warning", "Failed", f"Error: {e}")
        raise StartFailure("RunContainerError", str(e)) from None
    node.container_event(pod, config.name, "Normal", "Started", "Container started")
    return container_id


def _pod_file_mounts(
    node: NodeContext, pod: Object, container: Object, sandbox: SandboxStatus
) -> list[Mount]:
    """The files that the node keeps for the pod, where the container does not mount its own there."""
    own = {m["mountPath"].rstrip("/") for m in container.get("volumeMounts") or ()}
    directory = node.config.pod_directory(pods.uid(pod))
    files = {"/etc/hosts": "etc-hosts", "/etc/hostname": "hostname", "/etc/resolv.conf": "resolv.conf"}
    return [Mount(path, str(directory / file)) for path, file in files.items() if path not in own]


def _termination_file(
    node: NodeContext, pod: Object, container: Object
) -> tuple[list[Mount], dict[str, str]]:
    path = container.get("terminationMessagePath") or "/dev/termination-log"
    directory = node.config.pod_directory(pods.uid(pod)) / "containers" / container["name"]
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / secrets.token_hex(4)
    file.touch()
    file.chmod(0o666)
    annotations = {
        TERMINATION_FILE: str(file),
        TERMINATION_POLICY: container.get("terminationMessagePolicy") or "File",
    }
    return [Mount(path, str(file))], annotations


def termination_message(
    annotations: Mapping[str, str], exit_code: int, log_directory: Path, log_path: str
) -> str:
    """What a container that ended left to be told: its termination file, else (if it asks for that and failed) the
    end of its log."""
    file = annotations.get(TERMINATION_FILE)
    if file:
        try:
            with open(file, "rb") as opened:
                text = opened.read(MAX_MESSAGE).decode(errors="replace")
        except OSError:
            text = ""
        if text:
            return text
    if annotations.get(TERMINATION_POLICY) == "FallbackToLogsOnError" and exit_code != 0:
        return _log_tail(log_directory / log_path)
    return ""


def _log_tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            # Each line carries a time stamp, a stream and a tag of about 45 bytes.
            file.seek(max(0, file.tell() - LOG_TAIL_BYTES - LOG_TAIL_LINES * 64))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    out = ""
    for line in lines[-LOG_TAIL_LINES:]:
        parts = line.split(" ", 3)
        if len(parts) == 4:
            out += parts[3] + ("\n" if parts[2].startswith("F") else "")
    return out[-LOG_TAIL_BYTES:]
