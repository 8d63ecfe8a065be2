"""The options of a list, a watch or a deletecollection: how they are read, and which go together.

Upstream: `k8s.io/apimachinery/pkg/apis/meta/internalversion` (ListOptions, its defaults and validation).
"""

from __future__ import annotations

from dataclasses import dataclass

from sampan.api import errors
from sampan.api.errors import FieldError, StatusError, bad_request, show

EXACT = "Exact"
NOT_OLDER_THAN = "NotOlderThan"

Params = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class ListOptions:
    """As given: "" and None are what was not. `limit` 0 means no limit."""

    limit: int = 0
    continue_: str = ""
    resource_version: str = ""
    match: str = ""
    send_initial_events: bool | None = None
    bookmarks: bool = False
    timeout_seconds: int | None = None


def read(params: Params, *, watch: bool = False) -> ListOptions:
    """The options of a request. Raises StatusError: 400 for what cannot be read, 422 for what does not go together."""
    if not params:
        return _NONE
    options = ListOptions(
        max(0, _integer(params, "limit") or 0),
        _text(params, "continue"),
        _text(params, "resourceVersion"),
        _text(params, "resourceVersionMatch"),
        flag(params, "sendInitialEvents") if "sendInitialEvents" in params else None,
        flag(params, "allowWatchBookmarks"),
        _integer(params, "timeoutSeconds"),
    )
    problems = _watch_problems(options) if watch else _list_problems(options)
    if problems:
        raise errors.invalid("ListOptions", "", problems, "meta.k8s.io")
    return options


_NONE = ListOptions()


def _list_problems(options: ListOptions) -> list[FieldError]:
    match, problems = options.match, []
    if match:
        if not options.resource_version:
            problems.append(
                _not_match("resourceVersionMatch is forbidden unless resourceVersion is provided")
            )
        if options.continue_:
            problems.append(_not_match("resourceVersionMatch is forbidden when continue is provided"))
        if match not in (EXACT, NOT_OLDER_THAN):
            problems.append(errors.not_supported("resourceVersionMatch", match, (EXACT, NOT_OLDER_THAN, "")))
        if match == EXACT and options.resource_version == "0":
            problems.append(_not_match('resourceVersionMatch "exact" is forbidden for resourceVersion "0"'))
    if options.send_initial_events is not None:
        why = "sendInitialEvents is forbidden for list"
        problems.append(errors.forbidden_field("sendInitialEvents", why))
    return problems


def _watch_problems(options: ListOptions) -> list[FieldError]:
    match, problems = options.match, []
    if options.send_initial_events is not None and match != NOT_OLDER_THAN:
        problems.append(
            _not_match(f"sendInitialEvents requires setting resourceVersionMatch to {NOT_OLDER_THAN}")
        )
    if match:
        if options.send_initial_events is None:
            why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            problems.append(_not_match(why))
        if match != NOT_OLDER_THAN:
            problems.append(errors.not_supported("resourceVersionMatch", match, (NOT_OLDER_THAN,)))
        if options.continue_:
            problems.append(_not_match("resourceVersionMatch is forbidden when continue is provided"))
    return problems


def _not_match(why: str) -> FieldError:
    return errors.forbidden_field("resourceVersionMatch", why)


def _text(params: Params, name: str) -> str:
    values = params.get(name)
    return values[0] if values else ""


def flag(params: Params, name: str) -> bool:
    """A boolean parameter: anything but `0` and `false` sets it, even nothing (`?watch`)."""
    values = params.get(name)
    return bool(values) and values[0].lower() not in ("0", "false")  # type: ignore[index]


def _integer(params: Params, name: str) -> int | None:
    text = _text(params, name)
    if not text:
        return None
    digits = text.removeprefix("-") if text.startswith("-") else text.removeprefix("+")
    if not digits.isascii() or not digits.isdigit():
        raise bad_request(f"{name}: {show(text)} is not a whole number")
    value = int(text) if len(text) < 24 else 2**63
    if not -(2**63) <= value < 2**63:
        raise bad_request(f"{name}: {show(text)} is out of range")
    return value


def parse_revision(text: str) -> int:
    """A resourceVersion; "" is 0. Raises StatusError 400."""
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 20 or int(text) >= 2**64:
        raise bad_request(f"invalid resource version: resourceVersion: Invalid value: {show(text)}")
    return int(text)


def too_large(asked: int, current: int) -> StatusError:
    """A revision that has not been reached; clients try again."""
    return StatusError(
        504,
        "Timeout",
        f"Timeout: Too large resource version: {asked}, current: {current}",
        {
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        },
    )
