"""Questions asked by another name: `rewrite name` of a Corefile. Answers are about the name that was asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sampan.dns import wire

Match = Literal["exact", "prefix", "suffix", "substring", "regex"]


@dataclass(frozen=True, slots=True)
class NameRule:
    """Names are text with a dot at the end, in lower case."""

    kind: Match
    pattern: str
    replacement: str
    proceed: bool
    """Whether later rules are looked at as well once this one matched."""

    @classmethod
    def make(cls, kind: Match, pattern: str, replacement: str, proceed: bool) -> NameRule:
        """Raises ValueError for a pattern that is none."""
        if kind == "regex":
            try:
                re.compile(pattern)
            except re.error as e:
                raise ValueError(f"{pattern} is no regular expression: {e}") from None
        elif kind in ("exact", "suffix"):
            pattern = pattern.lower().removesuffix(".") + "."
            replacement = replacement.lower().removesuffix(".") + "."
        return cls(kind, pattern, replacement, proceed)

    def apply(self, name: str) -> str | None:
        """The other name; None where the rule is not about this one."""
        pattern, replacement = self.pattern, self.replacement
        match self.kind:
            case "exact":
                return replacement if name == pattern else None
            case "prefix":
                return replacement + name.removeprefix(pattern) if name.startswith(pattern) else None
            case "suffix":
                return name.removesuffix(pattern) + replacement if name.endswith(pattern) else None
            case "substring":
                return name.replace(pattern, replacement) if pattern in name else None
        found = re.search(pattern, name)
        if found is None:
            return None
        groups = ("", *(g or "" for g in found.groups()))
        return re.sub(
            r"\{(\d+)\}", lambda m: groups[int(m[1])] if int(m[1]) < len(groups) else m[0], replacement
        )


def rewritten(rules: Iterable[NameRule], key: bytes) -> bytes:
    """What is asked instead of `key`; a name that would be none changes nothing."""
    name = wire.decode_name(key)
    for rule in rules:
        other = rule.apply(name)
        if other is not None:
            name = other
            if not rule.proceed:
                break
    try:
        return wire.encode_name(name).lower()
    except ValueError:
        return key
