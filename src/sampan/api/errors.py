"""Errors as API clients see them: `Status` objects and the field problems inside them.

Every refusal that leaves the API server is a `StatusError`. Validation collects `FieldError`s, all problems of
an object at once, and `invalid()` turns them into one `Status` whose text is what upstream would print.

Upstream: `k8s.io/apimachinery/pkg/api/errors` (reasons and codes) and `.../util/validation/field` (wording).
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
"""A decoded API object. Objects read from a cache are shared: treat them as immutable."""


class ErrorType(enum.StrEnum):
    """Kinds of field problem; the value is the `reason` of a status cause."""

    REQUIRED = "FieldValueRequired"
    INVALID = "FieldValueInvalid"
    NOT_SUPPORTED = "FieldValueNotSupported"
    DUPLICATE = "FieldValueDuplicate"
    FORBIDDEN = "FieldValueForbidden"
    TOO_LONG = "FieldValueTooLong"
    TOO_MANY = "FieldValueTooMany"
    NOT_FOUND = "FieldValueNotFound"
    TYPE_INVALID = "FieldValueTypeInvalid"
    INTERNAL = "InternalError"


_PREFIX = {
    ErrorType.REQUIRED: "Required value",
    ErrorType.INVALID: "Invalid value",
    ErrorType.NOT_SUPPORTED: "Unsupported value",
    ErrorType.DUPLICATE: "Duplicate value",
    ErrorType.FORBIDDEN: "Forbidden",
    ErrorType.TOO_LONG: "Too long",
    ErrorType.TOO_MANY: "Too many",
    ErrorType.NOT_FOUND: "Not found",
    ErrorType.TYPE_INVALID: "Invalid value",
    ErrorType.INTERNAL: "Internal error",
}
_WITHOUT_VALUE = {
    ErrorType.REQUIRED,
    ErrorType.FORBIDDEN,
    ErrorType.TOO_LONG,
    ErrorType.INTERNAL,
}

OMITTED: Any = object()
"""In the place of a value that is too big to be shown."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """One problem of one field.

    `path` is written as upstream writes it (`spec.ports[0].nodePort`, `metadata.labels[app]`), `value` is what
    was given (shown as JSON), `detail` says what is allowed.
    """

    type: ErrorType
    path: str
    value: Any = None
    detail: str = ""

    def body(self) -> str:
        """The problem without its path, as a status cause carries it."""
        text = _PREFIX[self.type]
        if self.type not in _WITHOUT_VALUE and self.value is not OMITTED:
            text += f": {show(self.value)}"
        return f"{text}: {self.detail}" if self.detail else text

    def __str__(self) -> str:
        return f"{self.path}: {self.body()}"


def show(value: Any) -> str:
    """A given value as upstream quotes it in a message: JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def required(path: str, detail: str = "") -> FieldError:
    return FieldError(ErrorType.REQUIRED, path, "", detail)


def invalid_value(path: str, value: Any, detail: str) -> FieldError:
    return FieldError(ErrorType.INVALID, path, value, detail)


def not_supported(path: str, value: Any, allowed: Iterable[str]) -> FieldError:
    """A value outside an enumeration; the message lists what is allowed, quoted and in the given order."""
    listed = ", ".join(show(a) for a in allowed)
    return FieldError(ErrorType.NOT_SUPPORTED, path, value, f"supported values: {listed}" if listed else "")


def duplicate(path: str, value: Any) -> FieldError:
    return FieldError(ErrorType.DUPLICATE, path, value)


def forbidden_field(path: str, detail: str) -> FieldError:
    return FieldError(ErrorType.FORBIDDEN, path, "", detail)


def too_long(path: str, maximum: int) -> FieldError:
    return FieldError(ErrorType.TOO_LONG, path, "", f"may not be more than {maximum} bytes")


def too_many(path: str, actual: int, maximum: int) -> FieldError:
    return FieldError(ErrorType.TOO_MANY, path, actual, f"must have at most {maximum} items")


class StatusError(Exception):
    """A request that failed with a `Status`: `code` is the HTTP status, `reason` upstream's machine-readable word."""

    def __init__(self, code: int, reason: str, message: str, details: Object | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details

    def status(self) -> Object:
        """The `Status` object to send."""
        out: Object = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if not self.reason:
            del out["reason"]
        if self.details:
            out["details"] = self.details
        return out

    @classmethod
    def from_status(cls, status: Object) -> StatusError:
        """The error that a received `Status` object stands for."""
        return cls(
            int(status.get("code") or 500),
            str(status.get("reason") or ""),
            str(status.get("message") or ""),
            status.get("details"),
        )


def qualified(resource: str, group: str) -> str:
    """`pods` or `deployments.apps`: how messages name a resource."""
    return f"{resource}.{group}" if group else resource


def _details(name: str, resource: str, group: str, **more: Any) -> Object:
    out: Object = {"name": name, "group": group, "kind": resource, **more}
    return {k: v for k, v in out.items() if v}


def not_found(resource: str, name: str, group: str = "") -> StatusError:
    message = f'{qualified(resource, group)} "{name}" not found'
    return StatusError(404, "NotFound", message, _details(name, resource, group))


def page_not_found() -> StatusError:
    """A path that is not served."""
    return StatusError(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(resource: str, name: str, group: str = "", *, deleting: bool = False) -> StatusError:
    message = f'{qualified(resource, group)} "{name}" already exists'
    if deleting:
        message = f"object is being deleted: {message}"
    return StatusError(409, "AlreadyExists", message, _details(name, resource, group))


def conflict(resource: str, name: str, why: str, group: str = "") -> StatusError:
    message = f'Operation cannot be fulfilled on {qualified(resource, group)} "{name}": {why}'
    return StatusError(409, "Conflict", message, _details(name, resource, group))


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def invalid(kind: str, name: str, problems: Sequence[FieldError], group: str = "") -> StatusError:
    """All problems of one object. `kind` is the object's kind (`Service`), not its resource."""
    texts = list(dict.fromkeys(str(p) for p in problems))
    listed = texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
    causes = [{"reason": p.type.value, "message": p.body(), "field": p.path} for p in problems]
    message = f'{qualified(kind, group)} "{name}" is invalid: {listed}'
    return StatusError(422, "Invalid", message, _details(name, kind, group, causes=causes))


def bad_request(message: str) -> StatusError:
    return StatusError(400, "BadRequest", message)


def unauthorized() -> StatusError:
    return StatusError(401, "Unauthorized", "Unauthorized")


def forbidden(resource: str, name: str, why: str, group: str = "") -> StatusError:
    message = f"{qualified(resource, group)} " + (
        f'"{name}" is forbidden: {why}' if name else f"is forbidden: {why}"
    )
    return StatusError(403, "Forbidden", message, _details(name, resource, group))


def method_not_supported(resource: str, verb: str, group: str = "") -> StatusError:
    message = f'{verb} is not supported on resources of kind "{qualified(resource, group)}"'
    return StatusError(405, "MethodNotAllowed", message, _details("", resource, group))


def gone(message: str) -> StatusError:
    """A revision that is no longer kept (`Expired`)."""
    return StatusError(410, "Expired", message)


def unsupported_media_type(message: str) -> StatusError:
    return StatusError(415, "UnsupportedMediaType", message)


def too_many_requests(message: str, retry_after: int, causes: Sequence[Object] = ()) -> StatusError:
    details: Object = {"retryAfterSeconds": retry_after} if retry_after else {}
    if causes:
        details["causes"] = list(causes)
    return StatusError(429, "TooManyRequests", message, details)


def internal(message: str) -> StatusError:
    return StatusError(500, "InternalError", f"Internal error occurred: {message}")


def unavailable(message: str) -> StatusError:
    return StatusError(503, "ServiceUnavailable", message)
