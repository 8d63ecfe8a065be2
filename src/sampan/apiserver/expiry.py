"""What is forgotten as time passes: old revisions, and Events an hour after they were last written.

A store that keeps itself (etcd, with leases and compaction) does both; for others it is done here.

Upstream: etcd compaction (`k8s.io/apiserver/pkg/storage/etcd3/compact.go`) and `--event-ttl`.
"""

from __future__ import annotations

import asyncio
import logging
import time

from sampan.api.errors import Object
from sampan.api.objects import parse_time
from sampan.api.resources import EVENTS, Resource
from sampan.apiserver.records import from_json
from sampan.apiserver.watchcache import WatchCache
from sampan.store.types import Compacted, Conflict, Store

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 300.0
"""How often there is a look; a revision is readable for this long at least and twice as long at most."""
EVENT_SECONDS = 3600


def ttl(resource: Resource) -> int:
    """Seconds after its last write that an object may be forgotten; 0 for never."""
    return EVENT_SECONDS if resource is EVENTS else 0


async def run(store: Store, cache: WatchCache) -> None:
    """Forget until cancelled, in a store that does not keep itself."""
    before = cache.revision
    while True:
        await asyncio.sleep(INTERVAL_SECONDS)
        now = cache.revision
        try:
            await expire_events(store, cache, time.time())
            if now > before:
                await store.compact(before)
        except Compacted:
            pass
        except Exception:  # housekeeping: whatever it is, the server goes on without
            log.exception("old revisions and events could not be removed; next try in %d s", INTERVAL_SECONDS)
        before = now


async def expire_events(store: Store, cache: WatchCache, now: float) -> None:
    """Remove the Events that nobody has written for an hour."""
    shelf = cache.shelf(EVENTS)
    for record in [shelf.records[key] for key in shelf.keys]:
        # Decoded without keeping it: nobody else wants the old ones.
        if _last_written(from_json(record.data)) + EVENT_SECONDS < now:
            try:
                await store.delete(record.key, record.revision)
            except Conflict:
                continue


def _last_written(event: Object) -> float:
    metadata = event["metadata"]
    times = [metadata.get("creationTimestamp"), event.get("lastTimestamp"), event.get("eventTime")]
    times.append((event.get("series") or {}).get("lastObservedTime"))
    times += [entry.get("time") for entry in metadata.get("managedFields") or ()]
    return max((parse_time(t) for t in times if t), default=0.0)
