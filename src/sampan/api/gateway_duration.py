"""Durations of the Gateway API: `10s`, `1m30s`, `500ms` (upstream: GEP-2257). A subset of Go's."""

from __future__ import annotations

import re

_PART = re.compile(r"([0-9]{1,5})(h|ms|m|s)")
_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


def milliseconds(text: str) -> int:
    """How long a duration is, whose form has been checked."""
    return sum(int(number) * _MILLISECONDS[unit] for number, unit in _PART.findall(text))
