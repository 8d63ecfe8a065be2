"""What every controller is: a queue of keys, handlers that fill it, and the work that one key asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sampan.api.errors import Object, StatusError
from sampan.api.resources import Resource
from sampan.client.events import Recorder
from sampan.client.informer import Informer, key_of
from sampan.client.types import Client
from sampan.client.workqueue import WorkQueue
from sampan.controllers.informers import Informers

if TYPE_CHECKING:
    from sampan.controllers.certificates.authority import Authority
    from sampan.controllers.node_ipam import NodeRanges


@dataclass(frozen=True, slots=True)
class Context:
    """What the manager gives to each controller."""

    client: Client
    informers: Informers
    recorder: Callable[[str], Recorder]
    """Makes (and runs) the recorder of one component's events."""
    cluster_ca: str
    """The certificates that clients of this cluster trust, PEM."""
    sign_token: Callable[[Object, Object], str] | None = None
    """Makes the token of a ServiceAccount that is to be kept in a Secret; None where there is no key."""
    authority: Authority | None = None
    """Signs approved requests for certificates; None where there is no key."""
    local_authority: Authority | None = None
    """Signs the certificates of Ingresses that ask for a local one; None where there is no key."""
    node_monitor_grace_period: float = 0.0
    """Seconds that a node may be silent; 0 for upstream's."""
    node_ranges: NodeRanges | None = None
    """Where Nodes get the ranges of their pods from; None where they have them from elsewhere."""


class Controller:
    """A controller registers its handlers when it is made; `run` starts once all informers are complete."""

    name = ""
    workers = 1

    def __init__(self) -> None:
        self.queue = WorkQueue(self.name)

    async def sync(self, key: str) -> None:
        """Bring what belongs to `key` to where it should be. What raises is tried again after a pause."""
        raise NotImplementedError

    async def run(self) -> None:
        await self.queue.run(self.sync, self.workers)

    def enqueue(self, obj: Object) -> None:
        self.queue.add(key_of(obj))

    def enqueue_either(self, old: Object | None, new: Object | None) -> None:
        """A handler that has the object itself looked at."""
        obj = new if new is not None else old
        assert obj is not None
        self.queue.add(key_of(obj))


class OwnWrites:
    """Which of our own writes the informer's copy does not show yet, a key at a time.

    A decision made on a copy that lacks our last write would repeat it (two pods for one); the change that
    brings the copy up to date wakes the key again. Revisions of one store are comparable numbers.
    """

    def __init__(self, informer: Informer) -> None:
        self._informer = informer
        self._newest: dict[str, int] = {}

    def note(self, key: str, written: Object) -> None:
        revision = int((written.get("metadata") or {}).get("resourceVersion") or 0)
        if revision > self._newest.get(key, 0):
            self._newest[key] = revision

    def unseen(self, key: str) -> bool:
        newest = self._newest.get(key)
        if newest is None:
            return False
        if int(self._informer.resource_version or 0) >= newest:
            del self._newest[key]
            return False
        return True

    def forget(self, key: str) -> None:
        self._newest.pop(key, None)


async def delete_as_seen(client: Client, resource: Resource, obj: Object) -> None:
    """Delete an object if it is as `obj` shows it; where it has changed, the change brings it to its controller again."""
    meta = obj["metadata"]
    try:
        await client.delete(
            resource,
            meta.get("namespace", ""),
            meta["name"],
            uid=meta["uid"],
            resource_version=meta["resourceVersion"],
        )
    except StatusError as e:
        if e.code not in (404, 409):
            raise


def split_key(key: str) -> tuple[str, str]:
    """Namespace ("" for none) and name of an informer's key."""
    namespace, _, name = key.rpartition("/")
    return namespace, name


def deleting(obj: Object) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))
