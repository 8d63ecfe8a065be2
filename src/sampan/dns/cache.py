"""Answers of other servers, kept as long as they last and as far as there is room (`cache` of a Corefile)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from sampan.dns import messages, settings, wire
from sampan.dns.wire import Answer


@dataclass(slots=True)
class Entry:
    answer: Answer
    stored: float
    ttl: int
    """Seconds that it lasts, and the most that any of its records is said to."""


class Shelf:
    """So many entries; who was not asked for the longest time makes room."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.hits = self.evictions = 0
        self.entries: OrderedDict[Hashable, Entry] = OrderedDict()

    def get(self, key: Hashable, now: float) -> Entry | None:
        entry = self.entries.get(key)
        if entry is None:
            return None
        if now - entry.stored >= entry.ttl:
            del self.entries[key]
            return None
        self.entries.move_to_end(key)
        self.hits += 1
        return entry

    def put(self, key: Hashable, entry: Entry) -> None:
        self.entries[key] = entry
        self.entries.move_to_end(key)
        while len(self.entries) > self.capacity:
            self.entries.popitem(last=False)
            self.evictions += 1


class Cache:
    """Successes and denials, by name, type and what was asked for besides. Keys are (name, type, DNSSEC, unchecked)."""

    def __init__(self, configuration: settings.Cache) -> None:
        self._configuration = configuration
        self.success = Shelf(configuration.success_capacity)
        self.denial = Shelf(configuration.denial_capacity)
        self.requests = 0

    def get(self, key: tuple[bytes, int, bool, bool], now: float) -> Entry | None:
        self.requests += 1
        return self.success.get(key, now) or self.denial.get(key, now)

    def put(
        self, key: tuple[bytes, int, bool, bool], answer: Answer, message: messages.Message, now: float
    ) -> int:
        """Keep it if it may be kept. Returns how long its records may be said to last; 0 for as long as they say."""
        configuration = self._configuration
        if not any(wire.is_below(key[0], zone) for zone in configuration.zones):
            return 0
        positive = answer.rcode == wire.NOERROR and message.answer
        if positive:
            kept = not any(wire.is_below(key[0], z) for z in configuration.no_success)
            least = wire.minimum_ttl(message.answer, 0)
            ttl = min(max(least, configuration.minimum_ttl), configuration.success_ttl)
            shelf = self.success
        else:
            kept = not any(wire.is_below(key[0], z) for z in configuration.no_denial)
            shelf, ttl = self.denial, _denied(message, configuration)
        if kept and ttl:
            shelf.put(key, Entry(answer, now, ttl))
        return ttl if kept else 0


def _denied(message: messages.Message, configuration: settings.Cache) -> int:
    """How long a denial lasts: as its SOA record says (RFC 2308), a failure some seconds."""
    if message.rcode == wire.SERVFAIL:
        return configuration.servfail
    if message.rcode not in (wire.NOERROR, wire.NXDOMAIN):
        return 0
    for record in message.authority:
        if record.type == wire.SOA and len(record.data) >= 20:
            least = min(record.ttl, int.from_bytes(record.data[-4:], "big"))
            return min(max(least, configuration.denial_minimum_ttl), configuration.denial_ttl)
    return configuration.denial_minimum_ttl
