"""Small facts about any API object: identity, times, names, owners, conditions."""

from __future__ import annotations

import datetime
import functools
import os
import time
import uuid
from collections.abc import Iterable
from typing import Any, TypeVar

from sampan.api.errors import Object

T = TypeVar("T")
_NAME_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Upstream's alphabet for generated names: no vowels, no look-alikes."""
_FIVE_BITS = (31).__and__


def deep_copy(value: T) -> T:
    """A copy that shares nothing mutable. JSON values only; several times faster than `copy.deepcopy`."""
    if isinstance(value, dict):
        return {k: deep_copy(v) if isinstance(v, dict | list) else v for k, v in value.items()}  # type: ignore[return-value]
    if isinstance(value, list):
        return [deep_copy(v) if isinstance(v, dict | list) else v for v in value]  # type: ignore[return-value]
    return value


def now() -> str:
    """The present as `metav1.Time`: RFC 3339, UTC, whole seconds."""
    return _second(int(time.time()))


@functools.lru_cache(1)
def _second(when: int) -> str:
    """Thousands of objects are made in one second."""
    return format_time(when)


def now_micro() -> str:
    """The present as `metav1.MicroTime`."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def format_time(when: datetime.datetime | float) -> str:
    """A moment (or seconds since the epoch) as `metav1.Time`."""
    if not isinstance(when, datetime.datetime):
        when = datetime.datetime.fromtimestamp(when, datetime.UTC)
    return when.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> float:
    """Seconds since the epoch of a `Time` or `MicroTime`. Raises ValueError."""
    return datetime.datetime.fromisoformat(text).timestamp()


def new_uid() -> str:
    return str(uuid.uuid4())


def random_suffix(length: int = 5) -> str:
    """A random ending for a name, in upstream's alphabet."""
    found = ""
    while len(found) < length:
        # One question to the kernel for all letters; what falls beyond the alphabet is passed over, so that all are alike.
        found += "".join(
            _NAME_ALPHABET[b] for b in map(_FIVE_BITS, os.urandom(2 * length)) if b < len(_NAME_ALPHABET)
        )
    return found[:length]


def generate_name(base: str) -> str:
    """A name from `metadata.generateName`: the base, cut so that the whole keeps within 63 characters."""
    return base[:58] + random_suffix()


def controller_of(obj: Object) -> Object | None:
    """The owner reference that has `controller: true`, or None."""
    for ref in obj["metadata"].get("ownerReferences") or ():
        if ref.get("controller"):
            return ref  # type: ignore[no-any-return]
    return None


def owner_reference(owner: Object, *, controller: bool = True, block: bool = True) -> Object:
    """A reference that makes `owner` the (controlling) owner of what carries it."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": controller,
        "blockOwnerDeletion": block,
    }


def condition(obj: Object, type_: str) -> Object | None:
    """The status condition of a type, or None."""
    conditions: Iterable[Any] = (obj.get("status") or {}).get("conditions") or ()
    return next((c for c in conditions if c.get("type") == type_), None)


def condition_true(obj: Object, type_: str) -> bool:
    found = condition(obj, type_)
    return found is not None and found.get("status") == "True"
