"""Where each kind that makes pods has their template."""

from __future__ import annotations

from sampan.api import resources
from sampan.api.errors import Object
from sampan.api.resources import Resource

_IN_SPEC = ("spec", "template")
PLACES: dict[str, tuple[str, ...]] = {
    resources.PODTEMPLATES.key_stem: ("template",),
    resources.REPLICATIONCONTROLLERS.key_stem: _IN_SPEC,
    resources.DAEMONSETS.key_stem: _IN_SPEC,
    resources.DEPLOYMENTS.key_stem: _IN_SPEC,
    resources.REPLICASETS.key_stem: _IN_SPEC,
    resources.STATEFULSETS.key_stem: _IN_SPEC,
    resources.CRONJOBS.key_stem: ("spec", "jobTemplate", "spec", "template"),
    resources.JOBS.key_stem: _IN_SPEC,
}
"""The path of the template, by the key stem of the kind."""


def of(resource: Resource, obj: Object) -> Object:
    """The pod template of an object of one of these kinds; empty if it has none."""
    template = obj
    for name in PLACES[resource.key_stem]:
        template = template.get(name) or {}
    return template
