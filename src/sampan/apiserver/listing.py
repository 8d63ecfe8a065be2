"""Lists: from the watch cache, at the present or in pages, and from the store where the past is asked for.

Upstream: `k8s.io/apiserver/pkg/storage/etcd3/store.go` (GetList) and `storage/continue.go`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

from sampan.api import errors
from sampan.api.errors import StatusError, bad_request, gone
from sampan.apiserver.events import Selection
from sampan.apiserver.records import ROOT, Record
from sampan.apiserver.watchcache import WatchCache
from sampan.apiserver.watching import parse_revision, too_large
from sampan.store.types import Compacted, FutureRevision, Store

_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list "
    "without the continue parameter, or use the continue token in this response to retrieve the remainder of the "
    "results. Continuing with the provided token results in an inconsistent list - objects that were created, "
    "modified, or deleted between the time the first chunk was returned and now may show up in the list."
)


@dataclass(frozen=True, slots=True)
class Listed:
    """The objects of a list, the revision that it shows, and how to go on."""

    records: Sequence[Record]
    revision: int
    continue_: str = ""
    remaining: int | None = None


@dataclass(frozen=True, slots=True)
class ListOptions:
    limit: int = 0
    continue_: str = ""
    resource_version: str = ""
    match: str = ""


def options_from(params: dict[str, list[str]]) -> ListOptions:
    """The options of a request. Raises StatusError for those that do not fit together."""

    def one(name: str) -> str:
        return params.get(name, [""])[0]

    limit = one("limit")
    if limit and not limit.lstrip("-").isdigit():
        raise bad_request(f"limit must be a number: {limit!r}")
    options = ListOptions(
        max(0, int(limit or 0)), one("continue"), one("resourceVersion"), one("resourceVersionMatch")
    )
    match, version = options.match, options.resource_version
    why = ""
    if match:
        if options.continue_:
            why = "resourceVersionMatch is forbidden when continue is provided"
        elif not version:
            why = "resourceVersionMatch is forbidden unless resourceVersion is provided"
        elif match not in ("Exact", "NotOlderThan"):
            raise errors.invalid(
                "ListOptions",
                "",
                [errors.not_supported("resourceVersionMatch", match, ("Exact", "NotOlderThan", ""))],
                "meta.k8s.io",
            )
        elif match == "Exact" and version == "0":
            why = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
    if why:
        raise errors.invalid(
            "ListOptions", "", [errors.forbidden_field("resourceVersionMatch", why)], "meta.k8s.io"
        )
    return options


def encode_continue(revision: int, start: str) -> str:
    """A continue token: where to go on, and at which revision (-1: at the newest)."""
    token = json.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": start}, separators=(",", ":"))
    return base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()


def _decode_continue(token: str) -> tuple[int, str]:
    try:
        found = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        revision, start = found["rv"], found["start"]
        if found["v"] != "meta.k8s.io/v1" or not isinstance(revision, int) or not isinstance(start, str):
            raise ValueError
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise bad_request("continue key is not valid: incorrect encoding") from None
    if revision == 0 or not start or ".." in start.split("/"):
        raise bad_request("continue key is not valid: incorrect encoding")
    return revision, start


class Lists:
    def __init__(self, store: Store, cache: WatchCache) -> None:
        self._store = store
        self._cache = cache

    def list(self, selection: Selection, options: ListOptions) -> Listed | Awaitable[Listed]:
        """At once where the cache can answer, which it can for all but the past."""
        cache = self._cache
        shelf = cache.shelf(selection.resource)
        if options.continue_:
            if options.resource_version not in ("", "0"):
                raise bad_request("specifying resource version is not allowed when using continue")
            revision, start = _decode_continue(options.continue_)
            after = f"{ROOT}{shelf.stem}/{start}"
            if revision < 0:
                return self._page(selection, cache.revision, after, options.limit)
            if revision >= shelf.revision:
                return self._page(selection, revision, after, options.limit)
            return self._past(selection, revision, after, options.limit, continued=True)
        asked = parse_revision(options.resource_version)
        if asked > cache.revision:
            raise too_large(asked, cache.revision)
        # With a limit, a plain resourceVersion means that very revision, as it always has.
        exact = options.match == "Exact" or (asked and options.limit and not options.match)
        if exact and asked < shelf.revision:
            return self._past(selection, asked, "", options.limit)
        revision = asked if exact else cache.revision
        if options.limit:
            return self._page(selection, revision, "", options.limit)
        return Listed(shelf.select(selection), revision)

    def _page(self, selection: Selection, revision: int, after: str, limit: int) -> Listed:
        return _cut(
            self._cache.shelf(selection.resource).select(selection, after), selection, revision, limit
        )

    async def _past(
        self, selection: Selection, revision: int, after: str, limit: int, *, continued: bool = False
    ) -> Listed:
        shelf = self._cache.shelf(selection.resource)
        prefix = f"{ROOT}{shelf.stem}/{selection.namespace + '/' if selection.namespace else ''}"
        try:
            page = await self._store.list(prefix, revision=revision, after=after)
        except Compacted as e:
            if not continued:
                raise gone(f"The resourceVersion for the provided list is too old: {revision} ({e.oldest})") from None  # fmt: skip
            error = gone(_TOO_OLD)
            raise ContinueExpired(error, encode_continue(-1, after[len(ROOT) + len(shelf.stem) + 1 :])) from None  # fmt: skip
        except FutureRevision as e:
            raise too_large(revision, e.current) from None
        found = (shelf.make(e.key, e.value, e.revision) for e in page.entries)
        return _cut([r for r in found if selection.matches(r)], selection, revision, limit)


class ContinueExpired(StatusError):
    """A continue token whose revision is gone; the Status carries one that goes on at the newest."""

    def __init__(self, error: StatusError, token: str) -> None:
        super().__init__(error.code, error.reason, error.message, error.details)
        self._token = token

    def status(self) -> errors.Object:
        out = super().status()
        out["metadata"] = {"continue": self._token}
        return out


def _cut(records: Sequence[Record], selection: Selection, revision: int, limit: int) -> Listed:
    if not limit or len(records) <= limit:
        return Listed(records, revision)
    page = records[:limit]
    last = page[-1]
    start = f"{last.namespace}/{last.name}" if last.namespace else last.name
    remaining = len(records) - limit if selection.everything else None
    return Listed(page, revision, encode_continue(revision, start), remaining)
