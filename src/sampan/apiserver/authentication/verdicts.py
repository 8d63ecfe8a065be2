"""What tokens proved to be, remembered: no signature is checked twice while its token lives.

A verdict ends with the token's time, and as soon as an object that it rests on is another one than it was: a deleted
pod's token is refused from the very next request on.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from sampan.apiserver.tokens.claims import Looked
from sampan.apiserver.types import ANONYMOUS, AUTHENTICATED, User

_MOST = 1024
FOREVER = float("inf")


class Verdict:
    """`user`, until when (seconds since the epoch), for which audiences (None: for whatever this server is called),
    resting on which objects; `origin` is who gave it, where that may want to take it back."""

    __slots__ = ("audiences", "looked", "origin", "until", "user")

    def __init__(
        self,
        user: User,
        until: float = FOREVER,
        audiences: tuple[str, ...] | None = None,
        looked: Looked | None = None,
        origin: object = None,
    ) -> None:
        self.user = authenticated(user)
        self.until = until
        self.audiences = audiences
        self.looked = looked
        self.origin = origin

    def meant_for(self, wanted: Sequence[str], ours: Sequence[str] = ()) -> tuple[str, ...]:
        """Which of `wanted` the token is meant for; `ours` are the names of this server."""
        audiences = self.audiences
        if audiences is None:
            audiences = tuple(ours or wanted)
        return tuple(a for a in wanted if a in audiences)


class TokenAuthenticator(Protocol):
    """Knows one kind of token."""

    def authenticate(self, token: str, key: bytes, now: float) -> Verdict | None:
        """The verdict on a token (`key` is its digest); None for a token of another kind. Raises InvalidToken for one
        of this kind that is not good, KeysWanted where keys must be fetched first."""


class KeysWanted(Exception):
    """A token cannot be judged before its issuer's keys are fetched: `fetch` does so, and raises InvalidToken where
    they cannot be had."""

    def __init__(self, fetch: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self.fetch = fetch


class Verdicts:
    """The memory, of a bounded size; the oldest goes first."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()

    def get(self, key: bytes, now: float) -> Verdict | None:
        """A verdict that still holds."""
        verdict = self._verdicts.get(key)
        if verdict is None:
            return None
        if now < verdict.until and (verdict.looked is None or verdict.looked.unchanged()):
            return verdict
        del self._verdicts[key]
        return None

    def put(self, key: bytes, verdict: Verdict) -> None:
        self._verdicts[key] = verdict
        if len(self._verdicts) > self._most:
            self._verdicts.popitem(last=False)

    def forget(self, origin: object) -> None:
        """Drop what `origin` said."""
        for key in [k for k, v in self._verdicts.items() if v.origin is origin]:
            del self._verdicts[key]

    def clear(self) -> None:
        self._verdicts.clear()

    def __len__(self) -> int:
        return len(self._verdicts)


def digest(token: str) -> bytes:
    """What stands for a token in memory: the token itself is not kept."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def authenticated(user: User) -> User:
    """`user` as a member of `system:authenticated`, which every known user is and no credential may leave out."""
    if AUTHENTICATED in user.groups or user.name == ANONYMOUS:
        return user
    return User(user.name, user.uid, (*user.groups, AUTHENTICATED), user.extra)
