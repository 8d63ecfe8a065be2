"""Forgetting etcd's history by the clock, one of several servers at a time.

The servers share the key `compact_rev_key`. Each wakes at its interval and raises the key's version if it is still the
one that it saw last; who succeeds compacts to the revision of its interval before, the others take note and wait. With
one server or many, history is kept for an interval at least and about two at most.

Upstream: `k8s.io/apiserver/pkg/storage/etcd3/compact.go`, whose key and rules these are: the two can share an etcd.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from sampan.store import messages
from sampan.store.members import Members
from sampan.store.types import StoreError

log = logging.getLogger(__name__)
KEY = b"compact_rev_key"
INTERVAL = 300.0
"""Seconds."""


class Compactor:
    """Calls `compact` with a revision when it is this server's turn. `version` and `revision` are what it saw last."""

    def __init__(
        self, members: Members, compact: Callable[[int], Awaitable[None]], interval: float = INTERVAL
    ) -> None:
        self._members = members
        self._compact = compact
        self._interval = interval
        self._version = 0
        self._revision = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.turn()
            except StoreError as e:
                log.warning("etcd's history was not compacted: %s", e)

    async def turn(self) -> bool:
        """Whether it was this server's turn. Raises StoreError."""
        value = b"%d" % self._revision
        request = messages.txn_if_version(KEY, self._version, (messages.put(KEY, value),))
        answer = messages.txn_answer(await self._members.call("KV/Txn", request, again=False))
        before, self._revision = self._revision, answer.revision
        if not answer.succeeded:
            self._version = answer.version
            return False
        self._version += 1
        if before:
            await self._compact(before)
        return True
