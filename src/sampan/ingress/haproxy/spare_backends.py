"""Backends that are declared beforehand: HAProxy 2.6 cannot add one while it runs.

One that nobody uses any more is given again once all that the proxy had of it is removed, and not before: until then a request
that somebody else's name leads to it would reach the pods it had.
"""

from __future__ import annotations

from collections import Counter, deque

from sampan.ingress.haproxy.content import Content, Section

SPARE = 64
"""Backends of the usual section to begin with."""


class SpareBackends:
    """Those of `content`, by section."""

    def __init__(self, content: Content, spare: int = SPARE) -> None:
        self._content = content
        self._spare = spare
        self._named = 0
        self._free: dict[Section, deque[str]] = {}
        self._leaving: dict[str, Section] = {}
        """Nobody uses them, but the proxy still has something of theirs."""
        self._grow(Section())
        self._grow(Section(options=True))

    def take(self, section: Section) -> tuple[str, bool]:
        """A name, and whether there is such a backend only after a reload."""
        free = self._free.setdefault(section, deque())
        new = not free
        if new:
            self._grow(section)
        return free.popleft(), new

    def leave(self, name: str) -> None:
        """Nobody uses it any more."""
        self._leaving[name] = self._content.backends[name]

    def removed(self, name: str) -> None:
        """Something that the proxy had of a backend is removed: perhaps it was the last."""
        if (
            name not in self._leaving
            or name in self._content.servers
            or name in self._content.maps["services"]
        ):
            return
        self._free.setdefault(self._leaving.pop(name), deque()).append(name)

    def forget_rare(self) -> None:
        """Leave out, from the next reload on, backends with content of their own that nobody uses any more, and those with a time of
        their own where nobody uses any of these."""
        content = self._content
        there = Counter(content.backends.values())
        for section in [
            s
            for s, free in self._free.items()
            if s.pages or s.authority or (s.connect and len(free) == there[s])
        ]:
            for name in self._free.pop(section):
                del content.backends[name]
            left = content.backends.values()
            if section.pages and not any(s.pages == section.pages for s in left):
                content.pages.pop(section.pages, None)
            if section.authority and not any(s.authority == section.authority for s in left):
                content.authorities.pop(section.authority, None)

    def _grow(self, section: Section) -> None:
        """As many again as there are."""
        there = sum(s == section for s in self._content.backends.values())
        first = {Section(): self._spare, Section(options=True): self._spare // 4}
        # What has content of its own will hardly be wanted by many.
        few = 1 if section.pages or section.authority else 4
        for _ in range(there or first.get(section, few)):
            self._named += 1
            name = f"b{self._named}"
            self._content.backends[name] = section
            self._free.setdefault(section, deque()).append(name)
