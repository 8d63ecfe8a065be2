"""The seam between a pod's volumes and their kinds: what a kind is given, and what it must do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sampan.api.errors import Object
from sampan.api.resources import Resource

Lookup = Callable[[Resource, str], Awaitable[Object | None]]
"""An object of the pod's namespace by resource and name; whoever looks is told when it changes."""


class VolumeFailure(Exception):
    """A volume cannot be set up as things are; the message goes into the pod's FailedMount event."""


@dataclass(slots=True)
class VolumeContext:
    """What a volume may know of its pod. `pod` is the newest state and replaced when the pod changes."""

    pod: Object
    name: str
    directory: Path
    """Of this volume alone, below the pod's; does not exist before set-up."""
    lookup: Lookup
    request_token: Callable[[Object], Awaitable[Object]]
    """Post a TokenRequest for the pod's service account; gives the answer's status."""
    node_name: str
    host_ips: tuple[str, ...]
    machine_cpus: float
    machine_memory: int
    pod_ips: tuple[str, ...] = ()
    fs_group: int | None = None
    fs_user: int | None = None


class Volume(Protocol):
    """One volume of one pod. All three calls may be repeated."""

    path: Path
    """What containers mount, once it is set up."""

    refresh_at: float
    """When `set_up` must be called again to keep the content fresh (seconds since the epoch); 0 for never."""

    async def set_up(self) -> None:
        """Make the content, or bring it up to date. Raises VolumeFailure."""

    def tear_down(self) -> None:
        """Remove what was made; nothing that was there before (hostPath) is touched."""


VolumeKind = Callable[[VolumeContext, Any], Volume]
"""Makes a volume from its context and its source in the pod (`spec.volumes[].KIND`)."""
