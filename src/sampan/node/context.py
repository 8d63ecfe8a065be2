"""What the parts of a node agent share, and the failures that end up in a container's waiting state."""

from __future__ import annotations

from dataclasses import dataclass, field

from sampan.api.errors import Object
from sampan.client.events import EventType, Recorder
from sampan.client.informer import Informer
from sampan.client.references import ReferencedObjects
from sampan.client.types import Client
from sampan.node import pods
from sampan.node.backoff import Backoff
from sampan.node.cgroups import PodCgroups
from sampan.node.config import NodeConfig
from sampan.node.guard import PodGuard
from sampan.node.images.types import ImageService
from sampan.node.runtime.types import RuntimeService


class StartFailure(Exception):
    """A container cannot be started now. `reason` and the message are its waiting state; `retry` says after how many
    seconds to try again, if nothing that it depends on changes before."""

    def __init__(self, reason: str, message: str, retry: float = 10.0) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.retry = retry


@dataclass(slots=True)
class NodeContext:
    """One node agent's own parts."""

    config: NodeConfig
    client: Client
    runtime: RuntimeService
    images: ImageService
    recorder: Recorder
    objects: ReferencedObjects
    services: Informer
    cgroups: PodCgroups
    cpus: float
    memory: int
    guard: PodGuard | None = None
    crashes: Backoff = field(default_factory=Backoff)
    pulls: Backoff = field(default_factory=Backoff)

    def pod_event(self, pod: Object, type_: EventType, reason: str, message: str) -> None:
        self.recorder.event(_typed(pod), type_, reason, message)

    def container_event(self, pod: Object, name: str, type_: EventType, reason: str, message: str) -> None:
        self.recorder.event(_typed(pod), type_, reason, message, field_path=pods.field_path(pod, name))


def _typed(pod: Object) -> Object:
    """Items of a list may come without their kind."""
    return pod if pod.get("kind") else {**pod, "apiVersion": "v1", "kind": "Pod"}
