"""How long a regular expression may take: how many ways there are to match one text at worst, all of which PCRE goes through before it gives up.

A repetition or a choice that what follows cannot be confused with has one way: `[^/]+/` ends where the slash is. `.*/` has as many as the
text has characters, and two of these have their product.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

LONGEST_TEXT = 2048
"""Characters that a text has at most which is held against patterns."""
_ALPHABET = "".join(map(chr, range(0x20, 0x7F))) + "\xff"
_COUNT = re.compile(r"\{(\d+)(,?)(\d*)\}")


@dataclass(frozen=True, slots=True)
class _Part:
    """Something in a pattern: with which characters it can begin, whether it can be nothing, and how many ways it has."""

    first: frozenset[str]
    empty: bool
    ways: float


_NOTHING = _Part(frozenset(), True, 1)


def ways(pattern: str) -> float:
    """In how many ways a text of LONGEST_TEXT characters can be tried at worst. The pattern is one that `re` takes."""
    reader = _Reader(pattern)
    return reader.choice(frozenset()).ways


class _Reader:
    """Reads a pattern from its end to its beginning: what follows a part is known before the part is."""

    def __init__(self, pattern: str) -> None:
        self._text = pattern
        self._at = 0
        self._read: dict[tuple[int, frozenset[str]], tuple[_Part, int]] = {}
        """What was read before, by where it begins and what follows; and where it ends. Groups in groups are read often."""

    def choice(self, follow: frozenset[str]) -> _Part:
        """Alternatives, up to a closing bracket or the end; `follow` is what may come after them."""
        key = self._at, follow
        if key not in self._read:
            part = self._alternatives(follow)
            self._read[key] = part, self._at
        part, self._at = self._read[key]
        return part

    def _alternatives(self, follow: frozenset[str]) -> _Part:
        found = [self._sequence(follow)]
        while self._peek() == "|":
            self._at += 1
            found.append(self._sequence(follow))
        first: set[str] = set()
        several = False
        for one in found:
            begins = one.first | (follow if one.empty else frozenset())
            several |= bool(first & begins)
            first |= begins
        total = math.fsum(one.ways for one in found) if several else max(one.ways for one in found)
        return _Part(frozenset().union(*(one.first for one in found)), any(one.empty for one in found), total)

    def _sequence(self, follow: frozenset[str]) -> _Part:
        """Parts one after the other. They are read twice: first for what they begin with, then, from the last on, for their ways."""
        spans = []
        while self._peek() not in ("", "|", ")"):
            at = self._at
            part = self._part(frozenset(), measure=False)
            spans.append((at, part))
        ended = self._at
        whole = _NOTHING
        after = follow
        for at, plain in reversed(spans):
            self._at = at
            part = self._part(after, measure=True)
            whole = _Part(
                plain.first | (whole.first if plain.empty else frozenset()),
                plain.empty and whole.empty,
                whole.ways * part.ways,
            )
            after = plain.first | (after if plain.empty else frozenset())
            if self._text[at] == "$":
                after = frozenset()
        self._at = ended
        return whole

    def _part(self, follow: frozenset[str], *, measure: bool) -> _Part:
        """One atom with what repeats it."""
        began = self._at
        atom = self._atom(follow)
        low, high = self._repeats()
        if (low, high) == (1, 1):
            return atom
        if measure and atom.ways > 1:
            # What it holds may be tried anew each time.
            again = self._at
            self._at = began
            atom = self._atom(atom.first | follow)
            self._at = again
        confused = bool(atom.first & follow)
        turns = (high - low + 1) if confused else 1
        return _Part(atom.first, atom.empty or low == 0, _power(atom.ways, high) * turns)

    def _atom(self, follow: frozenset[str]) -> _Part:
        text, at = self._text, self._at
        char = text[at]
        if char == "(":
            self._at += 3 if text.startswith("(?:", at) else 1
            inner = self.choice(follow)
            self._at += 1
            return inner
        if char in "^$":
            self._at += 1
            return _NOTHING
        if char == "[":
            end = at + 2 if text.startswith("[^", at) else at + 1
            end += 1 if text.startswith("]", end) else 0
            while text[end] != "]":
                end += 2 if text[end] == "\\" else 1
            end += 1
        else:
            end = at + (2 if char == "\\" else 1)
        self._at = end
        atom = text[at:end]
        if atom in ("\\b", "\\B"):
            return _NOTHING
        one = re.compile(atom, re.DOTALL)
        return _Part(frozenset(c for c in _ALPHABET if one.fullmatch(c)), False, 1)

    def _repeats(self) -> tuple[int, int]:
        char = self._peek()
        low, high = 1, 1
        if char and char in "*+?":
            self._at += 1
            low, high = int(char == "+"), (1 if char == "?" else LONGEST_TEXT)
        elif found := _COUNT.match(self._text, self._at):
            self._at = found.end()
            low = int(found[1])
            high = int(found[3]) if found[3] else (LONGEST_TEXT if found[2] else low)
        else:
            return low, high
        if self._peek() == "?":
            self._at += 1
        return low, high

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]


def _power(ways: float, times: int) -> float:
    return 1 if ways <= 1 else min(ways ** min(times, 64), 1e300)
