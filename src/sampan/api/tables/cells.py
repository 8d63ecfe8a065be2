"""What the cells of every kind's table are made of: columns, ages and short lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sampan.api.errors import Object
from sampan.api.objects import parse_time

NONE = "<none>"
UNKNOWN = "<unknown>"

Row = Callable[[Object, float], list[Any]]
"""From an object and the present (seconds since the epoch) to the cells of all columns, wide ones included."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; one of priority 1 is shown only by `-o wide`."""

    name: str
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0

    def definition(self) -> Object:
        return {
            "name": self.name,
            "type": self.type,
            "format": self.format,
            "description": self.description,
            "priority": self.priority,
        }


NAME = Column("Name", format="name", description="The name, unique in its namespace.")
AGE = Column("Age", description="Time since the object was created.")


def wide(name: str, description: str = "", type: str = "string", format: str = "") -> Column:
    return Column(name, type, format, description, 1)


def integer(name: str, description: str = "") -> Column:
    return Column(name, "integer", "", description)


def human_duration(seconds: float) -> str:
    """A span of time in two units at most, the coarser the longer."""
    if seconds <= -2:
        return "<invalid>"
    if seconds < 0:
        return "0s"
    whole = int(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        return _pair(minutes, "m", whole % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _pair(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _pair(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 2920:
        return _pair(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _pair(coarse: int, coarse_unit: str, fine: int, fine_unit: str) -> str:
    return f"{coarse}{coarse_unit}{fine}{fine_unit}" if fine else f"{coarse}{coarse_unit}"


def since(timestamp: str | None, now: float) -> str:
    """How long ago a `Time` was."""
    if not timestamp:
        return UNKNOWN
    try:
        return human_duration(now - parse_time(timestamp))
    except ValueError:
        return UNKNOWN


def age(obj: Object, now: float) -> str:
    return since(obj["metadata"].get("creationTimestamp"), now)


def name(obj: Object) -> str:
    return str(obj["metadata"].get("name", ""))


def labels_text(labels: Mapping[str, str] | None) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted((labels or {}).items())) or NONE


def shortened(items: Sequence[str], most: int = 3, empty: str = NONE) -> str:
    """The first few of a list, and how many more there are."""
    if not items:
        return empty
    text = ",".join(items[:most])
    return f"{text} + {len(items) - most} more..." if len(items) > most else text


def joined(items: Iterable[str], separator: str = ",") -> str:
    return separator.join(items)


def section(obj: Object, key: str) -> Mapping[str, Any]:
    """`spec` or `status`, empty if it is missing."""
    return obj.get(key) or {}
