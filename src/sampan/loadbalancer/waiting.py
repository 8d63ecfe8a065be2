"""Who waits for an address: woken one at a time when one becomes free, in the order in which they came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Line:
    """Those who wait for one topic, in order, each with the number of `freed` that was the last before they were refused.
    `offers` is how many things that became free nobody has taken yet, as far as is known."""

    waiting: dict[str, int] = field(default_factory=dict)
    freed: int = 0
    offers: int = 0


class Waiting:
    """Each waits for some topics (a pool, an address). What becomes free is offered to the first in the line; who cannot
    use it goes to the end, and the next is asked. So a free address costs as much as those who were asked before somebody
    took it, not as much as all who wait."""

    def __init__(self, wake: Callable[[str], None]) -> None:
        self._wake = wake
        self._topics: dict[str, tuple[str, ...]] = {}
        self._lines: dict[str, _Line] = {}

    def add(self, who: str, topics: tuple[str, ...]) -> None:
        """`who` was refused for want of one of these."""
        known = self._topics.get(who)
        if known is not None and known != topics:
            self.remove(who)
        self._topics[who] = topics
        for topic in topics:
            line = self._lines.setdefault(topic, _Line())
            line.waiting.pop(who, None)
            line.waiting[who] = line.freed
            self._offer(line)

    def remove(self, who: str, took: str = "") -> None:
        """`who` waits no more; it has something of the topic `took`."""
        for topic in self._topics.pop(who, ()):
            line = self._lines[topic]
            del line.waiting[who]
            if not line.waiting:
                del self._lines[topic]
                continue
            if topic == took and line.offers:
                line.offers -= 1
            self._offer(line)

    def freed(self, topic: str) -> None:
        """Something of this topic can be had."""
        line = self._lines.get(topic)
        if line is not None:
            line.freed += 1
            line.offers += 1
            self._offer(line)

    def everyone(self) -> list[str]:
        return list(self._topics)

    def _offer(self, line: _Line) -> None:
        first, refused = next(iter(line.waiting.items()))
        if refused == line.freed:
            line.offers = 0  # All have been asked.
        elif line.offers:
            self._wake(first)
