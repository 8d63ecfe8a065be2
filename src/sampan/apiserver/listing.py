"""Lists: from the watch cache, at the present or in pages, and from the store where the past is asked for.

Upstream: `k8s.io/apiserver/pkg/storage/etcd3/store.go` (GetList) and `storage/continue.go`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from posixpath import normpath

from sampan.api import errors
from sampan.api.errors import StatusError, bad_request, gone, show
from sampan.apiserver import list_options
from sampan.apiserver.events import Selection
from sampan.apiserver.list_options import EXACT, NOT_OLDER_THAN, ListOptions, too_large
from sampan.apiserver.records import ROOT, Record, prefix_of
from sampan.apiserver.watchcache import WatchCache
from sampan.store.types import Compacted, Entry, FutureRevision, Store, StoreError

_AT_ONCE = 500
"""Most objects that are held against selectors in the call itself, and ..."""
_AT_ONCE_BYTES = 512 * 1024
"""... most bytes of them, which have to be searched for their labels once."""
_STEP = 100
_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list "
    "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
    "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
    "modified, or deleted between the time the first chunk was returned and now may show up in the list."
)
_TOKEN_VERSION = "meta.k8s.io/v1"
_JUST_AFTER = "\0"
"""Ends the start of a continue token, which names the first key that may come: the least one behind the last shown."""


@dataclass(frozen=True, slots=True)
class Listed:
    """The objects of a list, the revision that it shows, and how to go on."""

    records: Sequence[Record]
    revision: int
    continue_: str = ""
    remaining: int | None = None


def encode_continue(revision: int, last: str) -> str:
    """A continue token: where to go on (behind `last`, a key without its resource's prefix), and at which revision
    (-1: at the newest)."""
    token = json.dumps(
        {"v": _TOKEN_VERSION, "rv": revision, "start": last + _JUST_AFTER}, separators=(",", ":")
    )
    return base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()


def _decode_continue(token: str) -> tuple[int, str]:
    """The revision, and behind which key to go on. Raises StatusError 400 for a token that is not ours."""
    try:
        data = base64.b64decode(token.encode() + b"=" * (-len(token) % 4), altchars=b"-_", validate=True)
        found = json.loads(data)
        version, revision, start = found["v"], found.get("rv", 0), found.get("start", "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise _bad_token("it cannot be read") from None
    if version != _TOKEN_VERSION:
        raise _bad_token(f"server does not recognize this encoded version {show(version)}")
    if type(revision) is not int or revision == 0 or not -(2**63) <= revision < 2**63:
        raise _bad_token(f"incorrect encoded start resourceVersion (version {_TOKEN_VERSION})")
    if not isinstance(start, str) or not start:
        raise _bad_token(f"encoded start key empty (version {_TOKEN_VERSION})")
    # What is no clean path below the resource's prefix could lead out of it.
    if normpath("/" + start.removeprefix("/")) != "/" + start.removeprefix("/"):
        raise _bad_token(show(start))
    return revision, start.removeprefix("/").removesuffix(_JUST_AFTER)


def _bad_token(why: str) -> StatusError:
    return bad_request(f"invalid continue token: continue key is not valid: {why}")


class Lists:
    def __init__(self, store: Store, cache: WatchCache) -> None:
        self.store = store
        self._cache = cache

    def list(self, selection: Selection, options: ListOptions) -> Listed | Awaitable[Listed]:
        """At once where the cache can answer and little has to be looked at. Raises StatusError: 400 for tokens and
        revisions that are none, 410 for those that are no longer kept, 504 for those that are yet to come."""
        cache = self._cache
        shelf = cache.shelf(selection.resource)
        asked = list_options.parse_revision(options.resource_version)
        if options.continue_:
            revision, start = _decode_continue(options.continue_)
            if asked:
                raise bad_request("specifying resource version is not allowed when using continue")
            after = f"{ROOT}{shelf.path}/{start}"
            if revision < 0:
                return self._present(selection, cache.revision, after, options.limit)
            if revision > cache.revision:
                raise too_large(revision, cache.revision)
            if revision >= shelf.revision:
                return self._present(selection, revision, after, options.limit)
            return self._past(selection, revision, after, options.limit, continued=True)
        if asked > cache.revision:
            raise too_large(asked, cache.revision)
        # With a limit, a plain resourceVersion means that very revision, as it always has.
        exact = options.match == EXACT or (asked and options.limit and options.match != NOT_OLDER_THAN)
        if exact and asked < shelf.revision:
            return self._past(selection, asked, "", options.limit)
        return self._present(selection, asked if exact else cache.revision, "", options.limit)

    def _present(
        self, selection: Selection, revision: int, after: str, limit: int
    ) -> Listed | Awaitable[Listed]:
        """Of the cache as it is now, which is also how it was at `revision`."""
        shelf = self._cache.shelf(selection.resource)
        if selection.everything:
            start, end = shelf.span(selection.namespace, after)
            stop = min(end, start + limit) if limit else end
            return self._page(selection, shelf.rows[start:stop], revision, end - stop)
        rows = shelf.within(selection, after)
        if len(rows) > _AT_ONCE or sum([len(r.data) for r in rows]) > _AT_ONCE_BYTES:
            return self._sift(selection, rows, revision, limit)
        return self._cut(selection, [r for r in rows if selection.matches(r)], revision, limit)

    async def _sift(self, selection: Selection, rows: Sequence[Record], revision: int, limit: int) -> Listed:
        found: list[Record] = []
        matches = selection.matches

        def sift(some: Sequence[Record]) -> None:
            if not limit or len(found) <= limit:
                found.extend([r for r in some if matches(r)])

        await self._cache.turns.each(rows, _STEP, sift, lambda r: len(r.data))
        return self._cut(selection, found, revision, limit)

    async def _past(
        self, selection: Selection, revision: int, after: str, limit: int, *, continued: bool = False
    ) -> Listed:
        shelf = self._cache.shelf(selection.resource)
        prefix = prefix_of(shelf.path, selection.namespace)
        most = limit if selection.everything else 0
        try:
            page = await self.store.list(prefix, revision=revision, after=after, limit=most)
        except Compacted:
            if not continued:
                raise gone("The resourceVersion for the provided list is too old.") from None
            last = after.removeprefix(prefix_of(shelf.path))
            raise ContinueExpired(gone(_TOO_OLD), encode_continue(-1, last)) from None
        except FutureRevision as e:
            raise too_large(revision, e.current) from None
        except StoreError as e:
            raise errors.unavailable(f"the store failed: {e}") from e
        found: list[Record] = []

        def make(entries: Sequence[Entry]) -> None:
            records = [shelf.make(e.key, e.value, e.revision) for e in entries]
            found.extend(records if selection.everything else [r for r in records if selection.matches(r)])

        await self._cache.turns.each(page.entries, _STEP, make, lambda e: len(e.value))
        if selection.everything:
            return self._page(selection, found, revision, page.remaining)
        return self._cut(selection, found, revision, limit)

    def _cut(self, selection: Selection, found: Sequence[Record], revision: int, limit: int) -> Listed:
        """The first of what was found. How many more there are is not told, as upstream does not with selectors."""
        if not limit or len(found) <= limit:
            return Listed(found, revision)
        return Listed(found[:limit], revision, self._token(found[limit - 1], revision))

    def _page(self, selection: Selection, records: Sequence[Record], revision: int, remaining: int) -> Listed:
        if not remaining:
            return Listed(records, revision)
        return Listed(records, revision, self._token(records[-1], revision), remaining)

    def _token(self, last: Record, revision: int) -> str:
        return encode_continue(revision, f"{last.namespace}/{last.name}" if last.namespace else last.name)


class ContinueExpired(StatusError):
    """A continue token whose revision is gone; the Status carries one that goes on at the newest."""

    def __init__(self, error: StatusError, token: str) -> None:
        super().__init__(error.code, error.reason, error.message, error.details)
        self._token = token

    def status(self) -> errors.Object:
        out = super().status()
        out["metadata"] = {"continue": self._token}
        return out
