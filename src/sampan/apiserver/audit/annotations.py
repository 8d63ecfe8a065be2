"""What parts of the server note about a request in its audit event."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_current: ContextVar[dict[str, str] | None] = ContextVar("audit annotations", default=None)


def annotate(key: str, value: str) -> None:
    """Note something about the request under way; nothing happens where that one is not audited."""
    annotations = _current.get()
    if annotations is not None:
        annotations[key] = value


@contextmanager
def gathered(annotations: dict[str, str]) -> Iterator[None]:
    """Have what is noted in this block put there."""
    token = _current.set(annotations)
    try:
        yield
    finally:
        _current.reset(token)
