"""What a batch of writes does to the newest values: decided in one place, whichever driver makes it durable."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sampan.store.types import Conflict, Entry, Event, KeyExists, StoreError


class Change(NamedTuple):
    """One write that takes effect: what watchers see of it, and the entry that it replaces (None on a create)."""

    event: Event
    before: Entry | None


@dataclass(slots=True, eq=False)
class Write:
    """A write that waits. `expected` is the revision that the key must have, None for whichever it has."""

    verb: Literal["create", "update", "delete"]
    key: str
    value: bytes
    expected: int | None
    done: asyncio.Future[Entry]
    outcome: Entry | StoreError | None = None
    """What `decide` found; `done` is given it once the batch is durable."""

    def resolve(self, failure: StoreError | None = None) -> None:
        """Tell the writer, who may have stopped waiting, its outcome, or the failure of the whole batch."""
        if self.done.done():
            return
        result = failure or self.outcome
        if isinstance(result, Entry):
            self.done.set_result(result)
        elif result is not None:
            self.done.set_exception(result)


def decide(writes: Sequence[Write], newest: Mapping[str, Entry], revision: int) -> list[Change]:
    """Set each write's outcome as if they ran one after the other on `newest`, of which `revision` was the last.

    Nothing but the outcomes is changed. The changes returned bear consecutive revisions from `revision + 1` on; a
    refused write takes none.
    """
    changes: list[Change] = []
    fresh: dict[str, Entry | None] = {}
    for write in writes:
        key = write.key
        before = fresh[key] if key in fresh else newest.get(key)
        if write.verb == "create":
            if before is not None:
                write.outcome = KeyExists(before)
                continue
        elif before is None or (write.expected is not None and before.revision != write.expected):
            write.outcome = Conflict(key, before)
            continue
        revision += 1
        if write.verb == "delete" and before is not None:
            entry = Entry(key, before.value, revision, before.created)
            fresh[key] = None
        else:
            entry = Entry(key, write.value, revision, before.created if before else revision)
            fresh[key] = entry
        write.outcome = entry
        previous = before.value if before else None
        changes.append(Change(Event(write.verb == "delete", entry, previous), before))
    return changes
