"""The content of the tables as the proxy knows it, changed Service by Service with one transaction for each batch.

The cost of a change is that of what the changed Services have, whatever else there is.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from sampan.network.nftables import Family
from sampan.proxy import elements, slots
from sampan.proxy.elements import Assigned, Content
from sampan.proxy.types import Backend, Elements, Frontend, Layout, Operation, Table, Target, family_of

log = logging.getLogger(__name__)

Talking = dict[Frontend, frozenset[Backend]]
"""Which backends the clients of a UDP frontend may be talking to."""


class Rules:
    """Keeps `table` at what it is told. A key stands for a Service (`ns/name`). Where two claim a frontend, the first has it
    until it gives it up, and `clashed` is told of the frontend, who has it and who does not."""

    def __init__(
        self,
        table: Table,
        layout: Layout,
        clashed: Callable[[Frontend, str, str], None] = lambda frontend, owner, key: None,
    ) -> None:
        self._table = table
        self._layout = layout
        self._clashed = clashed
        self._waiting: dict[Frontend, list[str]] = {}
        self._targets: dict[str, dict[Frontend, Target]] = {}
        self._owner: dict[Frontend, str] = {}
        self._assigned: dict[Frontend, Assigned] = {}
        self._placed: dict[Frontend, Target] = {}
        """What the tables have each frontend at; its elements follow from it and from who has which slot."""
        self._hairpins: dict[str, int] = {}
        self._met: dict[str, bool] = {}
        """Addresses of backends that this change is about, and whether they were there before it."""
        self.failures = 0
        """How often the kernel refused a change."""

    def start(self, state: Mapping[str, Mapping[Frontend, Target]]) -> int:
        """Bring the tables from whatever they hold to `state`; only what differs is touched. Returns how many elements
        that was. Raises OSError."""
        self._targets = {key: self._usable(found) for key, found in state.items()}
        self._layout = dataclasses.replace(self._layout, affinities=(), source_lengths=())
        self._widen(t for found in self._targets.values() for t in found.values())
        self._table.prepare(self._layout)
        present = self._table.read()
        self._owner, self._placed, self._hairpins, self._waiting = {}, {}, {}, {}
        self._assigned = elements.known_slots(present)
        for key, found in self._targets.items():
            for frontend, target in found.items():
                if self._claim(key, frontend):
                    self._place(frontend, target)
        self._assigned = {f: s for f, s in self._assigned.items() if f in self._owner}
        return self._bring(present)

    def repair(self) -> int:
        """Undo what somebody else did to the tables. Returns how many elements that was. Raises OSError."""
        self._table.distrust()
        self._table.prepare(self._layout)
        return self._bring(self._table.read())

    def update(self, changes: Mapping[str, Mapping[Frontend, Target]]) -> Talking:
        """Set the targets of the Services in `changes` (empty: the Service is gone) in one transaction. Returns the UDP
        frontends that have others to talk to now, for whoever cleans up connections. If the kernel refuses, the whole
        content is compared with what it should be and brought in line."""
        changes = {key: self._usable(found) for key, found in changes.items()}
        gone = {
            key: [f for f in self._targets.get(key, ()) if f not in found] for key, found in changes.items()
        }
        talked = self._talking(f for key in changes for f in self._targets.get(key, ()))
        for key, found in changes.items():
            if found:
                self._targets[key] = dict(found)
            else:
                self._targets.pop(key, None)
        before: Content = {}
        after: Content = {}
        self._met = {}
        freed: list[Frontend] = []
        # What ends comes first: another Service may take over an address in the same batch.
        for key, frontends in gone.items():
            for frontend in frontends:
                if self._owner.get(frontend) == key:
                    before.update(self._content(frontend))
                    self._release(frontend)
                    freed.append(frontend)
                elif key in self._waiting.get(frontend, ()):
                    self._waiting[frontend].remove(key)
        for key, found in changes.items():
            for frontend, target in found.items():
                if not self._claim(key, frontend):
                    continue
                old = self._placed.get(frontend)
                had = self._assigned[frontend] if old is not None else Assigned()
                self._place(frontend, target)
                now = self._assigned[frontend]
                after.update(elements.render(frontend, target, now, unlike=had))
                if old is not None:
                    before.update(elements.render(frontend, old, had, unlike=now))
        for frontend in freed:
            if (heir := self._inherit(frontend)) is not None:
                self._place(frontend, self._targets[heir][frontend])
                after.update(self._content(frontend))
        operations = elements.difference(before, after)
        for address, was in self._met.items():
            if was != (address in self._hairpins):
                key_ = elements.hairpin_key(address)
                operations.append(Operation("delete" if was else "add", family_of(address), "hairpin", key_))
        try:
            if self._widen(t for found in changes.values() for t in found.values()):
                self._table.prepare(self._layout)
            self._table.apply(operations)
        except OSError as e:
            self.failures += 1
            log.warning("the kernel refused a change (%s): all is compared", e)
            self.repair()
        talking = self._talking((*(f for found in changes.values() for f in found), *freed))
        return {f: backends for f, backends in talking.items() if talked.get(f) != backends}

    def talking(self) -> Talking:
        """Every UDP frontend with the backends that its clients may be talking to."""
        return self._talking(self._owner)

    def without_local(self) -> dict[tuple[Family, str], int]:
        """By family and policy (`internal`, `external`), how many ports of Services have a Local policy and nobody here
        while others do."""
        names = {
            (frontend.family, "external" if target.keep_source else "internal", target.name)
            for found in self._targets.values()
            for frontend, target in found.items()
            if target.drop
        }
        return dict(Counter((family, policy) for family, policy, _ in names))

    def wanted(self) -> Elements:
        """What the tables are kept at."""
        found: Elements = {}
        for (family, name, key), (data, _) in self._all().items():
            found.setdefault((family, name), {})[key] = data
        return found

    def set_service_ranges(self, ranges: tuple[str, ...]) -> None:
        """Where an address that no Service has is rejected from now on. Raises OSError."""
        if ranges != self._layout.service_ranges:
            self._layout = dataclasses.replace(self._layout, service_ranges=ranges)
            self._table.prepare(self._layout)

    def _bring(self, present: Elements) -> int:
        old = {(*at, key): (data, "") for at, found in present.items() for key, data in found.items()}
        operations = elements.difference(old, self._all())
        self._table.apply(operations)
        return len(operations)

    def _all(self) -> Content:
        wanted: Content = {}
        for frontend in self._placed:
            wanted.update(self._content(frontend))
        for address in self._hairpins:
            wanted[family_of(address), "hairpin", elements.hairpin_key(address)] = (None, "")
        return wanted

    def _content(self, frontend: Frontend) -> Content:
        target = self._placed.get(frontend)
        return {} if target is None else elements.render(frontend, target, self._assigned[frontend])

    def _usable(self, found: Mapping[Frontend, Target]) -> dict[Frontend, Target]:
        usable = {f: t for f, t in found.items() if f.family in self._layout.families}
        if not self._layout.sctp:
            for frontend in [f for f in usable if f.protocol == "SCTP"]:
                name = usable.pop(frontend).name
                log.warning(
                    "%s of %s does not work: this kernel tracks no connections of SCTP", frontend, name
                )
        return usable

    def _widen(self, targets: Iterable[Target]) -> bool:
        """Take in time-outs and prefix lengths that were not there; whether there were any. None is ever given up before
        the next start: others may have them, too."""
        timeouts, lengths = set(self._layout.affinities), set(self._layout.source_lengths)
        for target in targets:
            if target.affinity:
                timeouts.add(target.affinity)
            for source in target.sources:
                lengths.add(_length(source))
        layout = dataclasses.replace(
            self._layout, affinities=tuple(sorted(timeouts)), source_lengths=tuple(sorted(lengths))
        )
        wider, self._layout = layout != self._layout, layout
        return wider

    def _claim(self, key: str, frontend: Frontend) -> bool:
        owner = self._owner.setdefault(frontend, key)
        if owner != key and key not in (waiting := self._waiting.setdefault(frontend, [])):
            waiting.append(key)
            log.warning("%s is claimed by Services %s and %s: the first keeps it", frontend, owner, key)
            self._clashed(frontend, owner, key)
        return owner == key

    def _inherit(self, frontend: Frontend) -> str | None:
        """Who gets a frontend that its owner gave up, unless another change has taken it."""
        waiting = self._waiting.pop(frontend, [])
        owner = self._owner.get(frontend)
        heir = None
        if owner is None and waiting:
            heir = self._owner[frontend] = waiting[0]
        if left := [key for key in waiting if key not in (owner, heir)]:
            self._waiting[frontend] = left
        return heir

    def _place(self, frontend: Frontend, target: Target) -> None:
        """Give a frontend its backends."""
        old = self._assigned.get(frontend, Assigned())
        sticky = bool(target.affinity)
        inside = None
        if target.inside is not None:
            inside = slots.assign(old.inside or (), target.inside, sticky=sticky)
        assigned = Assigned(slots.assign(old.outside, target.backends, sticky=sticky), inside)
        if frontend in self._placed:
            self._count(old, -1)
        self._count(assigned, +1)
        self._assigned[frontend] = assigned
        self._placed[frontend] = target

    def _release(self, frontend: Frontend) -> None:
        self._count(self._assigned.pop(frontend), -1)
        self._placed.pop(frontend, None)
        self._owner.pop(frontend, None)

    def _count(self, assigned: Assigned, by: int) -> None:
        for address in {b.address for b in assigned.backends()}:
            self._met.setdefault(address, address in self._hairpins)
            left = self._hairpins.get(address, 0) + by
            if left:
                self._hairpins[address] = left
            else:
                self._hairpins.pop(address, None)

    def _talking(self, frontends: Iterable[Frontend]) -> Talking:
        found: Talking = {}
        for frontend in frontends:
            owner = self._owner.get(frontend)
            if frontend.protocol == "UDP" and owner is not None:
                target = self._targets[owner][frontend]
                found[frontend] = frozenset({*target.backends, *(target.inside or ()), *target.lingering})
        return found


def _length(network: str) -> tuple[Family, int]:
    return family_of(network), ipaddress.ip_network(network, strict=False).prefixlen
