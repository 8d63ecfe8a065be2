"""What a write request brings along: its body as an object, and its options.

Upstream: `k8s.io/apiserver/pkg/endpoints/handlers/{create,update,patch}.go`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from sampan.api import decoding, errors
from sampan.api.errors import FieldError, Object, StatusError, bad_request
from sampan.apiserver.list_options import flag
from sampan.apiserver.preparation import Writing
from sampan.apiserver.types import User
from sampan.client.types import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH
from sampan.transport.types import Request

PROTOBUF = "application/vnd.kubernetes.protobuf"


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


_LARGE = 32 * 1024
"""Bytes from which on a body is read in a thread: YAML takes a millisecond and more for each."""


async def read(request: Request, duplicates: bool = True) -> tuple[Object, list[str]]:
    """The object in the body and its duplicate fields. Raises StatusError."""
    if len(request.body) < _LARGE:
        return _read(request, duplicates)
    return await asyncio.to_thread(_read, request, duplicates)


async def read_patch(request: Request) -> tuple[Any, list[str], str]:
    """The patch in the body, its duplicate fields and its media type. Raises StatusError."""
    if len(request.body) < _LARGE:
        return _read_patch(request)
    return await asyncio.to_thread(_read_patch, request)


def _read(request: Request, duplicates: bool) -> tuple[Object, list[str]]:
    if media_type(request) == PROTOBUF:
        from sampan.api import protobuf

        return protobuf.decode(request.body), []
    if not request.body.strip():
        raise bad_request("the body of the request is empty")
    return decoding.parse(request.body, request.headers.get("content-type", ""), duplicates)


def _read_patch(request: Request) -> tuple[Any, list[str], str]:
    media = media_type(request)
    if media == APPLY_PATCH:
        # Nearly always JSON, which is YAML too but far quicker to read as what it is.
        if request.body.startswith(b"{"):
            with contextlib.suppress(StatusError):
                config, duplicates = decoding.parse(request.body, "application/json")
                if not duplicates:
                    return config, [], media
        return (*decoding.parse(request.body, "application/yaml"), media)
    if media not in (JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH):
        raise _patch_type()
    patch, problems = decoding.parse_patch(request.body)
    if media == JSON_PATCH:
        problems = [f"json patch {problem}" for problem in [*_unknown_members(patch), *problems]]
    return patch, problems, media


def _unknown_members(patch: Any) -> list[str]:
    """What the operations of a JSON patch say that no operation knows."""
    if not isinstance(patch, list):
        return []
    return [
        f'unknown field "[{i}].{name}"'
        for i, op in enumerate(patch)
        if isinstance(op, dict)
        for name in op
        if name not in ("op", "path", "from", "value")
    ]


def _patch_type() -> StatusError:
    kinds = ", ".join((JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH, APPLY_PATCH))
    return errors.unsupported_media_type(
        f"the body of the request was in an unknown format - accepted media types include: {kinds}"
    )


_OPTIONS = {"POST": "CreateOptions", "PUT": "UpdateOptions", "PATCH": "PatchOptions"}
_MOST_MANAGER = 128
"""Bytes of a field manager's name."""


def writing(request: Request, user: User) -> Writing:
    """The options of a write. Raises StatusError with all that are wrong. (Those of a deletion: `deletion.options_from`.)"""
    out = Writing(user, default_manager(request))
    kind = _OPTIONS.get(request.method)
    apply = kind == "PatchOptions" and media_type(request) == APPLY_PATCH
    if kind is None or ("?" not in request.target and not apply):
        return out
    params = request.params
    problems = _force_problems(params, apply) if kind == "PatchOptions" else []
    manager = params.get("fieldManager", [""])[0]
    problems += _manager_problems(manager)
    dry_run = [v for v in params.get("dryRun", ()) if v]
    if set(dry_run) - {"All"}:
        problems.append(errors.not_supported("dryRun", dry_run, ("All",)))
    validation = params.get("fieldValidation", [""])[0]
    if validation in ("Strict", "Warn", "Ignore"):
        out.field_validation = validation  # type: ignore[assignment]
    elif validation:
        problems.append(errors.not_supported("fieldValidation", validation, ("", "Ignore", "Strict", "Warn")))
    if problems:
        raise errors.invalid(kind, "", problems, "meta.k8s.io")
    out.manager = manager or out.manager
    out.dry_run = bool(dry_run)
    out.force = flag(params, "force")
    return out


def _force_problems(params: dict[str, list[str]], apply: bool) -> list[FieldError]:
    if not apply and "force" in params:
        return [errors.forbidden_field("force", "may not be specified for non-apply patch")]
    if apply and not params.get("fieldManager", [""])[0]:
        return [errors.required("fieldManager", "is required for apply patch")]
    return []


def _manager_problems(manager: str) -> list[FieldError]:
    if len(manager.encode(errors="replace")) > _MOST_MANAGER:
        return [errors.too_long("fieldManager", _MOST_MANAGER)]
    at = next((i for i, c in enumerate(manager) if not c.isprintable()), None)
    if at is None:
        return []
    why = f"invalid character U+{ord(manager[at]):04X} (at position {at})"
    return [errors.invalid_value("fieldManager", manager, f"should not contain an unprintable one: {why}")]


def default_manager(request: Request) -> str:
    """The manager of a client that names none: its User-Agent up to the first slash."""
    return request.headers.get("user-agent", "").partition("/")[0][:128] or "unknown"


def warning_headers(warnings: Sequence[str]) -> list[tuple[str, str]]:
    """Warnings as HTTP headers (RFC 7234: `299 - "text"`)."""
    out = []
    for text in dict.fromkeys(warnings):
        clean = "".join(c if c.isprintable() else " " for c in text)
        quoted = clean.replace("\\", "\\\\").replace('"', '\\"')
        # Header values are sent as Latin-1; what clients make of them is UTF-8.
        out.append(("Warning", f'299 - "{quoted}"'.encode().decode("latin-1")))
    return out
