"""One object under several names: between the version a client speaks and the one that is stored.

Rows of `resources` with a `storage` share their objects with the row that owns these keys (its `hub`). Whoever adds such a
row adds here how its objects turn into the hub's and back; both ways keep everything. One module a group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sampan.api.conversion import autoscaling, events, ingress
from sampan.api.errors import Object
from sampan.api.resources import GATEWAYS_V1BETA1, Resource


@dataclass(frozen=True, slots=True)
class Conversion:
    """`shown` makes a client's form of a stored object, `kept` the stored form of a client's. Both leave what they get
    as it is and may share parts with it; the caller sets apiVersion and kind. `field` gives the client's name of a field
    of the stored form."""

    shown: Callable[[Object], Object]
    kept: Callable[[Object], Object]
    field: Callable[[str], str] = str


_CONVERSIONS: dict[str, Conversion] = {
    "autoscaling/v1/HorizontalPodAutoscaler": Conversion(autoscaling.from_v2, autoscaling.to_v2),
    "events.k8s.io/v1/Event": Conversion(events.from_core, events.to_core),
    "extensions/v1beta1/Ingress": Conversion(ingress.from_v1, ingress.to_v1, ingress.field),
    **{f"{r.api_version}/{r.kind}": Conversion(dict, dict) for r in GATEWAYS_V1BETA1},
    "networking.k8s.io/v1beta1/Ingress": Conversion(ingress.from_v1, ingress.to_v1, ingress.field),
}
"""By apiVersion and kind of the row that is not stored."""


def shown(resource: Resource, stored: Object) -> Object:
    """A stored object as `resource` shows it (shares what it can with the original)."""
    if not resource.storage:
        return stored
    return _named(resource, _of(resource).shown(stored))


def kept(resource: Resource, hub: Resource, given: Object) -> Object:
    """An object of `resource` in the form of `hub`, in which it is stored."""
    if not resource.storage:
        return given
    return _named(hub, _of(resource).kept(given))


def field(resource: Resource, path: str) -> str:
    """What `resource` calls a field of the stored form."""
    return _of(resource).field(path) if resource.storage else path


def _of(resource: Resource) -> Conversion:
    return _CONVERSIONS[f"{resource.api_version}/{resource.kind}"]


def _named(resource: Resource, obj: Object) -> Object:
    return {**obj, "apiVersion": resource.api_version, "kind": resource.kind}
