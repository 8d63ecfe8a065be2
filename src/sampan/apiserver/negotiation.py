"""Which form of an answer a client accepts.

Upstream: `k8s.io/apiserver/pkg/endpoints/handlers/negotiation`. We read protobuf but never write it, and know no CBOR: who
accepts nothing else is refused with what is offered.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Literal

from sampan.api.errors import StatusError, bad_request, show
from sampan.api.resources import Resource
from sampan.apiserver.rendering import JSON, YAML, Form, Rendering, Syntax, rendering, write
from sampan.transport.types import Request

Purpose = Literal["one", "list", "watch"]
"""What is asked for: a single object, a list or a watch. Not every form fits each."""

_BROWSERS = ("curl", "Wget", "Mozilla/5.0")
"""Programs whose users read the answer themselves."""


def not_acceptable(offered: str = f"{JSON}, {YAML}") -> StatusError:
    return _refused(f"only the following media types are accepted: {offered}")


def _refused(message: str) -> StatusError:
    return StatusError(406, "NotAcceptable", message)


def accepts(header: str) -> Iterable[tuple[str, dict[str, str]]]:
    """The media ranges of an Accept header with their parameters, best first: by quality, then the more specific,
    then the earlier."""
    ranges: list[tuple[float, int, int, str, dict[str, str]]] = []
    for i, part in enumerate(header.split(",")):
        media, *rest = (p.strip() for p in part.split(";"))
        params = {k.strip().lower(): v.strip().strip('"') for k, _, v in (p.partition("=") for p in rest)}
        try:
            quality = float(params.pop("q", "1"))
        except ValueError:
            quality = 1.0
        if media and quality > 0:
            ranges.append((-quality, media.count("*"), i, media.lower(), params))
    return [(media, params) for *_, media, params in sorted(ranges, key=lambda r: r[:3])]


@functools.lru_cache(512)
def _choose(header: str, streaming: bool) -> tuple[Form, str, Syntax]:
    """The form, its kind as asked for, and the syntax, of the first range that can be served."""
    if not header:
        return "object", "", "json"
    offered = (JSON,) if streaming else (JSON, YAML)
    for media, params in accepts(header):
        found = next((o for o in offered if media in (o, "application/*", "*/*")), None)
        if found is None or params.get("stream", "watch") not in ("", "watch"):
            continue
        syntax: Syntax = "yaml" if found == YAML else "pretty" if params.get("pretty") == "1" else "json"
        as_ = params.get("as", "")
        if not as_ and "g" not in params and "v" not in params:
            return "object", "", syntax
        if params.get("g") != "meta.k8s.io" or params.get("v") != "v1":
            continue
        if as_ == "Table":
            return "table", as_, syntax
        if as_ in ("PartialObjectMetadata", "PartialObjectMetadataList"):
            return "metadata", as_, syntax
    raise not_acceptable(f"{JSON};stream=watch") if streaming else not_acceptable()


def negotiate(resource: Resource, request: Request, purpose: Purpose = "one") -> Rendering:
    """The rendering that a request asks for. Raises StatusError 406 where nothing that it accepts can be served."""
    accept = request.headers.get("accept", "")
    pretty = _wants_pretty(request)
    if (not accept or accept == JSON) and not pretty:
        return rendering(resource)
    form, kind, syntax = _choose(accept, purpose == "watch")
    if purpose == "watch":
        syntax = "json"
    elif syntax != "yaml" and pretty is not None:
        syntax = "pretty" if pretty else "json"
    if form == "table":
        match include := request.param("includeObject"):
            case "None" | "Object" | "Metadata":
                return rendering(resource, form, include, syntax)
            case "":
                return rendering(resource, form, "Metadata", syntax)
        raise bad_request(
            f"Unable to convert to Table as requested: includeObject: Invalid value: {show(include)}: "
            "must be 'Metadata', 'Object', 'None', or empty"
        )
    if kind == "PartialObjectMetadata" and purpose == "list":
        raise _refused(f"you requested PartialObjectMetadata, but the requested object is a list ({resource.list_kind})")  # fmt: skip
    if kind == "PartialObjectMetadataList" and purpose != "list":
        raise _refused(f"you requested PartialObjectMetadataList, but the requested object is not a list ({resource.kind})")  # fmt: skip
    return rendering(resource, form, syntax=syntax)


def _wants_pretty(request: Request) -> bool | None:
    """Whether JSON is to be easy on the eye; None where neither parameter nor program says."""
    if "pretty=" in request.target and (said := request.param("pretty")):
        return said in ("1", "t", "T", "true", "TRUE", "True")
    agent = request.headers.get("user-agent")
    return True if agent is not None and agent.startswith(_BROWSERS) else None


def plain(value: Any, request: Request) -> tuple[bytes, str]:
    """A value that is no stored object (a Status, a Scale), as (body, content type). Never refuses: an error must get
    out."""
    try:
        syntax = _choose(request.headers.get("accept", ""), False)[2]
    except StatusError:
        syntax = "json"
    pretty = _wants_pretty(request)
    if syntax != "yaml" and pretty is not None:
        syntax = "pretty" if pretty else "json"
    return write(value, syntax), YAML if syntax == "yaml" else JSON
