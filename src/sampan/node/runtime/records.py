"""What the runtime keeps on disk about sandboxes and containers, so that it can be killed and started again.

Each has a directory with one `record.json`, replaced as a whole. Together with /proc and conmon's exit files that is
the whole state.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from sampan.linux.mounts import remove_tree
from sampan.node.runtime.process import ProcessId
from sampan.node.runtime.types import (
    ContainerConfig,
    ContainerState,
    ContainerStatus,
    SandboxConfig,
    SandboxState,
    SandboxStatus,
)

log = logging.getLogger(__name__)
NO_PROCESS = ProcessId(0, 0, "")


@dataclass(slots=True, kw_only=True)
class SandboxRecord:
    id: str
    config: SandboxConfig
    created_at: float
    cgroup: str
    netns: str = ""
    """The file that the network namespace is bound to; empty on the node's network."""
    pause: ProcessId = NO_PROCESS
    ips: tuple[str, ...] = ()
    ready: bool = False

    def status(self) -> SandboxStatus:
        config = self.config
        return SandboxStatus(
            id=self.id,
            namespace=config.namespace,
            name=config.name,
            uid=config.uid,
            attempt=config.attempt,
            state=SandboxState.READY if self.ready else SandboxState.NOT_READY,
            created_at=self.created_at,
            ips=self.ips,
            pid=self.pause.pid if self.ready else 0,
            netns=self.netns,
            labels=config.labels,
            annotations=config.annotations,
        )


@dataclass(slots=True, kw_only=True)
class ContainerRecord:
    id: str
    sandbox_id: str
    config: ContainerConfig
    image: str
    image_id: str
    stop_signal: int
    cgroup: str
    log_path: str
    created_at: float
    state: ContainerState = ContainerState.CREATED
    conmon: ProcessId = NO_PROCESS
    process: ProcessId = NO_PROCESS
    started_at: float = 0
    finished_at: float = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""

    def status(self) -> ContainerStatus:
        config = self.config
        return ContainerStatus(
            id=self.id,
            sandbox_id=self.sandbox_id,
            name=config.name,
            attempt=config.attempt,
            state=self.state,
            created_at=self.created_at,
            started_at=self.started_at,
            finished_at=self.finished_at,
            exit_code=self.exit_code,
            reason=self.reason,
            message=self.message,
            image=self.image,
            image_id=self.image_id,
            pid=self.process.pid if self.state is ContainerState.RUNNING else 0,
            log_path=self.log_path,
            labels=config.labels,
            annotations=config.annotations,
        )


Record = TypeVar("Record", SandboxRecord, ContainerRecord)


@dataclass(slots=True)
class Shelf:
    """A directory of records of one type, one directory each."""

    path: str
    _encoder: msgspec.json.Encoder = field(default_factory=msgspec.json.Encoder)

    def directory(self, id: str) -> str:
        return f"{self.path}/{id}"

    def create(self, record: SandboxRecord | ContainerRecord) -> str:
        directory = self.directory(record.id)
        os.makedirs(directory, mode=0o711)
        self.write(record)
        return directory

    def write(self, record: SandboxRecord | ContainerRecord) -> None:
        target = f"{self.directory(record.id)}/record.json"
        with open(f"{target}.new", "wb") as file:
            file.write(self._encoder.encode(record))
        os.replace(f"{target}.new", target)

    def read(self, type: type[Record]) -> Iterator[Record]:
        """All records; a directory without a readable one is what an interrupted step left, and is passed over."""
        with suppress(FileNotFoundError):
            for name in sorted(os.listdir(self.path)):
                try:
                    with open(f"{self.path}/{name}/record.json", "rb") as file:
                        yield msgspec.json.decode(file.read(), type=type)
                except (OSError, msgspec.DecodeError):
                    continue

    def ids(self) -> list[str]:
        with suppress(FileNotFoundError):
            return sorted(os.listdir(self.path))
        return []

    def remove(self, id: str) -> None:
        with suppress(FileNotFoundError):
            # First the record: what is half removed must not be taken up again.
            os.unlink(f"{self.directory(id)}/record.json")
        try:
            remove_tree(Path(self.directory(id)))
        except OSError as e:
            log.warning("%s; the next start tries again", e)
