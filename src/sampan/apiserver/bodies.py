"""What a write request brings along: its body as an object, and its options.

Upstream: `k8s.io/apiserver/pkg/endpoints/handlers/{create,update,patch}.go`.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

from sampan.api import decoding, errors
from sampan.api.errors import Object, StatusError, bad_request
from sampan.apiserver.list_options import flag
from sampan.apiserver.preparation import Writing
from sampan.apiserver.types import User
from sampan.client.types import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH
from sampan.transport.types import Request

PROTOBUF = "application/vnd.kubernetes.protobuf"


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def read(request: Request, duplicates: bool = True) -> tuple[Object, list[str]]:
    """The object in the body and its duplicate fields. Raises StatusError."""
    if media_type(request) == PROTOBUF:
        from sampan.api import protobuf

        return protobuf.decode(request.body), []
    if not request.body.strip():
        raise bad_request("the body of the request is empty")
    return decoding.parse(request.body, request.headers.get("content-type", ""), duplicates)


def read_patch(request: Request) -> tuple[Any, list[str], str]:
    """The patch in the body, its duplicate fields and its media type. Raises StatusError."""
    media = media_type(request)
    if media == APPLY_PATCH:
        # Nearly always JSON, which is YAML too but far quicker to read as what it is.
        if request.body.startswith(b"{"):
            with contextlib.suppress(StatusError):
                return (*decoding.parse(request.body, "application/json"), media)
        return (*decoding.parse(request.body, "application/yaml"), media)
    if media not in (JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH):
        raise _patch_type()
    try:
        return json.loads(request.body), [], media
    except (ValueError, RecursionError) as e:
        raise bad_request(f"error decoding patch: {e}") from None


def _patch_type() -> StatusError:
    kinds = ", ".join((JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, APPLY_PATCH))
    return errors.unsupported_media_type(
        f"the body of the request was in an unknown format - accepted media types include: {kinds}"
    )


def writing(request: Request, user: User) -> Writing:
    """The options of a write. Raises StatusError for unknown values."""
    out = Writing(user, default_manager(request))
    if "?" not in request.target:
        return out
    params = request.params
    if "fieldManager" in params:
        manager = params["fieldManager"][0]
        if len(manager.encode()) > 128 or not manager.isprintable():
            problem = errors.invalid_value("fieldManager", manager, "must be printable and at most 128 bytes")
            raise errors.invalid("CreateOptions", "", [problem], "meta.k8s.io")
        out.manager = manager or out.manager
    if "dryRun" in params and any(params["dryRun"]):
        if set(params["dryRun"]) != {"All"}:
            problem = errors.not_supported("dryRun", params["dryRun"], ("All",))
            raise errors.invalid("CreateOptions", "", [problem], "meta.k8s.io")
        out.dry_run = True
    validation = request.param("fieldValidation")
    if validation:
        if validation not in ("Strict", "Warn", "Ignore"):
            problem = errors.not_supported("fieldValidation", validation, ("", "Ignore", "Strict", "Warn"))
            raise errors.invalid("CreateOptions", "", [problem], "meta.k8s.io")
        out.field_validation = validation  # type: ignore[assignment]
    out.force = flag(params, "force")
    return out


def default_manager(request: Request) -> str:
    """The manager of a client that names none: its User-Agent up to the first slash."""
    return request.headers.get("user-agent", "").partition("/")[0][:128] or "unknown"


def warning_headers(warnings: list[str]) -> list[tuple[str, str]]:
    """Warnings as HTTP headers (RFC 7234: `299 - "text"`)."""
    out = []
    for text in dict.fromkeys(warnings):
        clean = "".join(c if c.isprintable() else " " for c in text)
        quoted = clean.replace("\\", "\\\\").replace('"', '\\"')
        # Header values are sent as Latin-1; what clients make of them is UTF-8.
        out.append(("Warning", f'299 - "{quoted}"'.encode().decode("latin-1")))
    return out
