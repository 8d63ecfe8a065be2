"""ReplicationControllers and PodTemplates. Upstream: their directories in `pkg/registry/core`."""

from __future__ import annotations

from sampan.api.errors import Object
from sampan.api.strategy.types import Strategy, same, spec_changed


def _template_changed(new: Object, old: Object) -> bool:
    return not same(new.get("template"), old.get("template"))


STRATEGIES: dict[str, Strategy] = {
    "replicationcontrollers": Strategy(generation=spec_changed, first_status=lambda _: {"replicas": 0}),
    "podtemplates": Strategy(generation=_template_changed),
}
