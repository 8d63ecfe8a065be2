"""What Sampan implements of the API: for each field whether it works, is warned of, or is refused by name."""

from __future__ import annotations

from sampan.api.errors import FieldError, Object
from sampan.api.resources import Resource


def unsupported(resource: Resource, obj: Object) -> tuple[list[str], list[FieldError]]:
    """The warnings for the client, and the fields that are refused because people rely on them for safety."""
    return [], []
