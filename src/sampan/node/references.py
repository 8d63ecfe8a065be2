"""What ConfigMaps and Secrets hold, for the containers that get it."""

from __future__ import annotations

import base64

from sampan.api.errors import Object
from sampan.api.resources import CONFIGMAPS, Resource


def data_of(obj: Object, resource: Resource) -> dict[str, bytes]:
    """All keys of a ConfigMap (text and binary) or a Secret, with their content."""
    data = obj.get("data") or {}
    if resource is not CONFIGMAPS:
        return {k: base64.b64decode(v or "") for k, v in data.items()}
    binary = {k: base64.b64decode(v or "") for k, v in (obj.get("binaryData") or {}).items()}
    return {**{k: v.encode() for k, v in data.items()}, **binary}
