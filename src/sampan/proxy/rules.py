"""The content of the table as the proxy knows it, changed Service by Service with one transaction for each batch.

The cost of a change is that of what the changed Services have, whatever else there is.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping

from sampan.proxy import elements, slots
from sampan.proxy.elements import Content
from sampan.proxy.types import Backend, Frontend, Layout, Operation, Table, Target

log = logging.getLogger(__name__)


class Rules:
    """Keeps `table` at what it is told. A key stands for a Service (`ns/name`)."""

    def __init__(self, table: Table, layout: Layout) -> None:
        self._table = table
        self._layout = layout
        self._targets: dict[str, dict[Frontend, Target]] = {}
        self._owner: dict[Frontend, str] = {}
        self._slots: dict[Frontend, tuple[Backend, ...]] = {}
        self._content: dict[Frontend, Content] = {}
        self._hairpins: dict[str, int] = {}

    def start(self, state: Mapping[str, Mapping[Frontend, Target]]) -> int:
        """Bring the table from whatever it holds to `state`; only what differs is touched. Returns how many elements
        that was. Raises OSError."""
        self._targets = {key: dict(found) for key, found in state.items()}
        used = {t.affinity for found in self._targets.values() for t in found.values() if t.affinity}
        self._layout = dataclasses.replace(self._layout, affinities=tuple(sorted(used)))
        self._table.prepare(self._layout)
        present = self._table.read()
        self._owner, self._content, self._hairpins = {}, {}, {}
        self._slots = elements.known_slots(present)
        wanted: Content = {}
        for key, found in self._targets.items():
            for frontend, target in found.items():
                if self._claim(key, frontend):
                    wanted.update(self._place(frontend, target))
        self._slots = {f: s for f, s in self._slots.items() if f in self._owner}
        for address in self._hairpins:
            wanted["hairpin", elements.hairpin_key(address)] = (None, "")
        old = {(name, key): (data, "") for name, found in present.items() for key, data in found.items()}
        operations = elements.difference(old, wanted)
        self._table.apply(operations)
        return len(operations)

    def update(self, changes: Mapping[str, Mapping[Frontend, Target]]) -> list[tuple[Frontend, Backend]]:
        """Set the targets of the Services in `changes` (empty: the Service is gone) in one transaction. Returns the
        pairs of frontend and backend that ended, for whoever cleans up connections. If the kernel refuses, the whole
        table is compared with what it should be and brought in line."""
        gone = {
            key: [f for f in self._targets.get(key, ()) if f not in found] for key, found in changes.items()
        }
        for key, found in changes.items():
            if found:
                self._targets[key] = dict(found)
            else:
                self._targets.pop(key, None)
        self._add_affinities(t.affinity for found in changes.values() for t in found.values())
        before: Content = {}
        after: Content = {}
        ended: list[tuple[Frontend, Backend]] = []
        hairpins = dict(self._hairpins)
        # What ends comes first: another Service may take over an address in the same batch.
        for key, frontends in gone.items():
            for frontend in frontends:
                if self._owner.get(frontend) == key:
                    ended += [(frontend, b) for b in dict.fromkeys(self._slots.get(frontend, ()))]
                    before.update(self._content.get(frontend, {}))
                    self._release(frontend)
        for key, found in changes.items():
            for frontend, target in found.items():
                if not self._claim(key, frontend):
                    continue
                old_backends = self._slots.get(frontend, ())
                before.update(self._content.get(frontend, {}))
                after.update(self._place(frontend, target))
                ended += [(frontend, b) for b in dict.fromkeys(old_backends) if b not in target.backends]
        operations = elements.difference(before, after)
        for address in hairpins.keys() - self._hairpins.keys():
            operations.append(Operation("delete", "hairpin", elements.hairpin_key(address)))
        for address in self._hairpins.keys() - hairpins.keys():
            operations.append(Operation("add", "hairpin", elements.hairpin_key(address)))
        try:
            self._table.apply(operations)
        except OSError as e:
            log.warning("the kernel refused a change (%s): the whole table is compared", e)
            self.start(self._targets)
        return ended

    def set_service_ranges(self, ranges: tuple[str, ...]) -> None:
        """Where an address that no Service has is rejected from now on. Raises OSError."""
        if ranges != self._layout.service_ranges:
            self._layout = dataclasses.replace(self._layout, service_ranges=ranges)
            self._table.prepare(self._layout)

    def _add_affinities(self, timeouts: Iterable[int]) -> None:
        new = {t for t in timeouts if t} - set(self._layout.affinities)
        if new:
            affinities = tuple(sorted({*self._layout.affinities, *new}))
            self._layout = dataclasses.replace(self._layout, affinities=affinities)
            self._table.prepare(self._layout)

    def _claim(self, key: str, frontend: Frontend) -> bool:
        owner = self._owner.setdefault(frontend, key)
        if owner != key:
            log.warning("%s is claimed by Services %s and %s: the first keeps it", frontend, owner, key)
        return owner == key

    def _place(self, frontend: Frontend, target: Target) -> Content:
        """Give a frontend its backends; returns its elements."""
        assigned = slots.assign(self._slots.get(frontend, ()), target.backends, sticky=bool(target.affinity))
        content = elements.render(frontend, target, assigned)
        self._count(self._slots.get(frontend, ()) if frontend in self._content else (), -1)
        self._count(assigned, +1)
        self._slots[frontend] = assigned
        self._content[frontend] = content
        return content

    def _release(self, frontend: Frontend) -> None:
        self._count(self._slots.pop(frontend, ()), -1)
        self._content.pop(frontend, None)
        self._owner.pop(frontend, None)

    def _count(self, backends: Iterable[Backend], by: int) -> None:
        for address in {b.address for b in backends}:
            left = self._hairpins.get(address, 0) + by
            if left:
                self._hairpins[address] = left
            else:
                self._hairpins.pop(address, None)
