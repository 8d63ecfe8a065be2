"""The image service of a node, in the shape of CRI's `runtime.v1.ImageService`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class ImageError(Exception):
    """An image cannot be had. `reason` is upstream's: `ErrImagePull`, `InvalidImageName`, `ErrImageNeverPull`,
    `RegistryUnavailable`, `SignatureValidationFailed`; the message is what the event and status show."""

    def __init__(self, message: str, reason: str = "ErrImagePull") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """The part of an image's configuration that a container is made from."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    working_dir: str = ""
    user: str = ""
    """As written in the image: name or number, with an optional `:group`."""
    stop_signal: str = ""
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    id: str
    """`sha256:...` of the configuration."""
    tags: tuple[str, ...]
    """Full names: `docker.io/library/nginx:latest`."""
    digests: tuple[str, ...]
    """`docker.io/library/nginx@sha256:...`."""
    size: int
    pinned: bool
    """Loaded by hand: never collected, and started offline even where the policy is Always."""
    layers: tuple[str, ...]
    """Directories with the unpacked layers, lowest first, for an overlay mount."""
    config: ImageConfig


@dataclass(frozen=True, slots=True)
class Credentials:
    """For one registry (an image pull secret entry)."""

    registry: str
    username: str
    password: str


class ImageService(Protocol):
    """Images of a store that all nodes of a cluster on one machine share."""

    async def image_status(self, name: str) -> Image | None:
        """The local image that a name (any form: `nginx`, `nginx:alpine`, a digest, an id) stands for, or None.
        Raises ImageError InvalidImageName."""

    async def pull_image(self, name: str, credentials: Sequence[Credentials] = ()) -> Image:
        """Fetch an image; concurrent pulls of one name are one. Raises ImageError."""

    async def list_images(self) -> list[Image]: ...

    async def remove_image(self, name: str) -> None: ...
