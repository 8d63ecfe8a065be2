"""etcd's leases for keys that go by themselves: one lease serves all keys of about the same time.

Upstream: `k8s.io/apiserver/pkg/storage/etcd3/lease_manager.go`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sampan.store import messages
from sampan.store.members import Members

_REUSE_SECONDS = 60
"""How much longer than asked for a key may stay, so that leases can be shared ..."""
_REUSE_SHARE = 20
"""... or this part of its time, where that is less."""
_MOST_KEYS = 1000
"""On one lease: etcd removes them all in one revision."""


@dataclass(slots=True)
class _Lease:
    id: int
    ttl: int
    until: float
    """The loop's time until which it may be given out."""
    keys: int = 0


class Leases:
    def __init__(self, members: Members) -> None:
        self._members = members
        self._leases: dict[int, _Lease] = {}
        self._granting = asyncio.Lock()

    def forget(self, ttl: int) -> None:
        """Give out no more what etcd says is not there."""
        self._leases.pop(ttl, None)

    async def lease(self, ttl: int) -> int:
        """The id of a lease that ends `ttl` seconds from now, or a little later. Raises StoreError."""
        async with self._granting:
            now = asyncio.get_running_loop().time()
            lease = self._leases.get(ttl)
            if lease is None or lease.until < now or lease.keys >= _MOST_KEYS:
                spare = min(_REUSE_SECONDS, ttl // _REUSE_SHARE)
                request = messages.lease_grant_request(ttl + spare)
                granted = messages.lease_of(await self._members.call("Lease/LeaseGrant", request))
                lease = self._leases[ttl] = _Lease(granted, ttl, now + spare)
            lease.keys += 1
            return lease.id
