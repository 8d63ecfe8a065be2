"""Cron schedules, as `CronJob.spec.schedule` has them: five fields, or a descriptor (`@hourly`, `@every 1h30m`).

Upstream: `github.com/robfig/cron/v3`, `ParseStandard`; what is wrong with a schedule is told in its words.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_NO_NAMES: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class _Field:
    low: int
    high: int
    names: dict[str, int]


_FIELDS = (
    _Field(0, 59, _NO_NAMES),
    _Field(0, 23, _NO_NAMES),
    _Field(1, 31, _NO_NAMES),
    _Field(1, 12, {name: i + 1 for i, name in enumerate(_MONTHS)}),
    _Field(0, 6, {name: i for i, name in enumerate(_WEEKDAYS)}),
)
_DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h))+")
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")


@dataclass(frozen=True, slots=True)
class Schedule:
    """The moments of a schedule: those whose minute, hour, month and day are in these sets.

    A day must be in `days` and `weekdays` if one of them was given as `*`, else in one of them. `every` is for the
    descriptor of that name: a number of seconds between two moments, 0 for all others.
    """

    minutes: frozenset[int] = frozenset()
    hours: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    weekdays: frozenset[int] = frozenset()
    any_day: bool = False
    any_weekday: bool = False
    every: int = 0
    zone: str = ""
    """The time zone that is written into the schedule (`TZ=...`), which new CronJobs may not do."""


@functools.lru_cache(1024)
def parse(text: str) -> Schedule:
    """A schedule from its text. Raises ValueError with upstream's words."""
    if not text:
        raise ValueError("empty spec string")
    zone = ""
    if text.startswith(("TZ=", "CRON_TZ=")):
        first, _, text = text.partition(" ")
        zone, text = first.partition("=")[2], text.strip()
    if text.startswith("@"):
        return _descriptor(text, zone)
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]")
    (minutes, _), (hours, _), (days, any_day), (months, _), (weekdays, any_weekday) = map(
        _field, fields, _FIELDS
    )
    return Schedule(minutes, hours, days, months, weekdays, any_day, any_weekday, zone=zone)


def _descriptor(text: str, zone: str) -> Schedule:
    if text in _DESCRIPTORS:
        prefix = f"TZ={zone} " if zone else ""
        return parse(prefix + _DESCRIPTORS[text])
    if not text.startswith("@every "):
        raise ValueError(f"unrecognized descriptor: {text}")
    span = text.removeprefix("@every ")
    if not _DURATION.fullmatch(span):
        raise ValueError(f'failed to parse duration {text}: time: invalid duration "{span}"')
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(span))
    return Schedule(every=max(1, int(-seconds if span.startswith("-") else seconds)), zone=zone)


def _field(text: str, field: _Field) -> tuple[frozenset[int], bool]:
    """The numbers of a field, and whether it was left open with a star."""
    found: set[int] = set()
    star = False
    for part in filter(None, text.split(",")):
        numbers, open_ = _range(part, field)
        found |= set(numbers)
        star = star or open_
    return frozenset(found), star


def _range(text: str, field: _Field) -> tuple[range, bool]:
    """`N`, `N-M`, `*`, each with an optional `/STEP`; `N/STEP` runs to the end of the field."""
    ends, *steps = text.split("/")
    low, *highs = ends.split("-")
    star = low in ("*", "?")
    if star:
        start, end = field.low, field.high
    else:
        start = _number(low, field.names)
        if len(highs) > 1:
            raise ValueError(f"too many hyphens: {text}")
        end = _number(highs[0], field.names) if highs else start
    step = 1
    if len(steps) > 1:
        raise ValueError(f"too many slashes: {text}")
    if steps:
        step = _number(steps[0], _NO_NAMES)
        if not highs:
            end = field.high
        star = star and step <= 1
    if start < field.low:
        raise ValueError(f"beginning of range ({start}) below minimum ({field.low}): {text}")
    if end > field.high:
        raise ValueError(f"end of range ({end}) above maximum ({field.high}): {text}")
    if start > end:
        raise ValueError(f"beginning of range ({start}) beyond end of range ({end}): {text}")
    if step == 0:
        raise ValueError(f"step of range should be a positive number: {text}")
    return range(start, end + 1, step), star


def _number(text: str, names: dict[str, int]) -> int:
    named = names.get(text.lower())
    if named is not None:
        return named
    if not re.fullmatch("[+-]?[0-9]+", text):
        raise ValueError(f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": invalid syntax')
    number = int(text)
    if number >= 1 << 63:
        raise ValueError(
            f'failed to parse int from {text}: strconv.Atoi: parsing "{text}": value out of range'
        )
    if number < 0:
        raise ValueError(f"negative number ({number}) not allowed: {text}")
    return number
