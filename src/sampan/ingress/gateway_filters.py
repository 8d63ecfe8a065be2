"""Filters of routes: what they ask for as Options. What cannot be had raises Unsupported, by name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from urllib.parse import quote

from sampan.api.errors import Object
from sampan.ingress.route_options import NO_OPTIONS, Cors, HeaderChange, Options, Redirect, Rewrite
from sampan.ingress.types import Path, PathKind

_LONE = re.compile("%(?![0-9A-Fa-f]{2})")
_PATH_SAFE = "/?:@!$&'()*+,;=-._~%"
_SAFE_METHODS, _SAFE_HEADERS = ("GET", "HEAD", "POST"), ("Accept", "Accept-Language", "Content-Language")
"""What pages of other sites may do anyway (Fetch, 2.2): a filter that names none allows no more than these."""


_FRAMING = ("content-length", "transfer-encoding")
"""Headers that say where a body ends, which only who sends it knows."""


class Unsupported(Exception):
    """Something in a rule that cannot be had; the text says what."""


def options(filters: Sequence[Object], path: Path) -> Options:
    """What filters ask for, those of a rule and then those of a backend; `path` is that of the rule's first match. Raises Unsupported."""
    found = NO_OPTIONS
    for one in filters:
        match one["type"]:
            case "RequestHeaderModifier":
                changes = (*found.request_headers, *_changes(one["requestHeaderModifier"]))
                found = replace(found, request_headers=changes)
            case "ResponseHeaderModifier":
                changes = (*found.response_headers, *_changes(one["responseHeaderModifier"]))
                found = replace(found, response_headers=changes)
            case "RequestRedirect":
                found = replace(found, redirect=_redirect(one["requestRedirect"]))
            case "URLRewrite":
                found = replace(found, rewrite=_rewrite(one["urlRewrite"]))
            case "CORS":
                found = replace(found, cors=_cors(one["cors"]))
            case "RequestMirror":
                pass  # no option: it leads to a backend
            case other:
                raise Unsupported(f"filters: {other} is not supported")
    modified = (found.redirect or Redirect()).prefix, (found.rewrite or Rewrite()).prefix
    if any(m is not None for m in modified) and path.kind is not PathKind.PREFIX:
        raise Unsupported("filters: replacePrefixMatch needs a match of type PathPrefix")
    return found


def share(mirror: Object) -> tuple[int, int]:
    """How many of how many requests a RequestMirror gets."""
    if mirror.get("percent") is not None:
        return int(mirror["percent"]), 100
    fraction = mirror.get("fraction") or {"numerator": 1, "denominator": 1}
    return int(fraction["numerator"]), int(fraction.get("denominator") or 100)


def _changes(given: Object) -> Iterator[HeaderChange]:
    names = [one["name"] for kind in ("set", "add") for one in given.get(kind) or ()]
    for name in (*names, *(given.get("remove") or ())):
        if name.lower() in _FRAMING:
            raise Unsupported(f"filters: {name} is not changed: it says where a body ends")
    for one in _first_of_each(given.get("set") or ()):
        yield HeaderChange("set", one["name"], _value(one["value"]))
    for one in _first_of_each(given.get("add") or ()):
        yield HeaderChange("add", one["name"], _value(one["value"]))
    for name in given.get("remove") or ():
        yield HeaderChange("remove", name)


def _first_of_each(headers: Sequence[Object]) -> Iterable[Object]:
    """Of several whose names differ in case only the first counts."""
    found: dict[str, Object] = {}
    for one in headers:
        found.setdefault(one["name"].lower(), one)
    return found.values()


def _value(text: str) -> str:
    """A header's value; what would end it is no part of any."""
    if not text.isprintable():
        raise Unsupported(f"filters: {text!r} has characters that no header may have")
    return text


def _path(given: Object | None) -> tuple[str | None, str | None]:
    """The whole new path, and what the matched prefix becomes. Either begins with a slash, as all paths do, whether or not it is
    written so; only the prefix may be nothing at all."""
    if given is None:
        return None, None
    full, prefix = given.get("replaceFullPath"), given.get("replacePrefixMatch")
    for text in (full, prefix):
        if text is not None and not text.isprintable():
            raise Unsupported(f"filters: {text!r} has characters that no path may have")
    if full is not None:
        full = _absolute(full)
    return full, None if prefix is None else _absolute(prefix).rstrip("/")


def _absolute(path: str) -> str:
    """What cannot stand in a request's first line is percent-encoded; what is so already stays."""
    path = _LONE.sub("%25", quote(path, safe=_PATH_SAFE))
    return path if path.startswith("/") else f"/{path}"


def _redirect(given: Object) -> Redirect:
    full, prefix = _path(given.get("path"))
    return Redirect(
        given.get("scheme") or "",
        given.get("hostname") or "",
        given.get("port") or 0,
        full,
        prefix,
        given.get("statusCode") or 302,
    )


def _rewrite(given: Object) -> Rewrite:
    full, prefix = _path(given.get("path"))
    return Rewrite(given.get("hostname") or "", full, prefix)


def _cors(given: Object) -> Cors:
    return Cors(
        tuple(given.get("allowOrigins") or ()),
        tuple(given.get("allowMethods") or _SAFE_METHODS),
        tuple(given.get("allowHeaders") or _SAFE_HEADERS),
        tuple(given.get("exposeHeaders") or ()),
        bool(given.get("allowCredentials")),
        int(given.get("maxAge") or 5),
        spanning=True,
    )
