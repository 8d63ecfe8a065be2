"""What counts against a ResourceQuota: which quotas an object concerns, and how much of them it uses.

One evaluator a resource; most resources are only counted. Admission asks them what a write would use, the quota
controller what is used. Upstream: `k8s.io/apiserver/pkg/quota/v1` and `pkg/quota/v1/evaluator/core`.
"""

from __future__ import annotations

from sampan.api import resources
from sampan.api.quota.evaluator import Evaluator
from sampan.api.quota.persistent_volume_claims import PersistentVolumeClaims
from sampan.api.quota.pods import Pods
from sampan.api.quota.resource_claims import ResourceClaims
from sampan.api.quota.services import Services
from sampan.api.resources import Resource

_SPECIAL: dict[str, Evaluator] = {
    e.resource.key_stem: e for e in (Pods(), Services(), PersistentVolumeClaims(), ResourceClaims())
}
_NOT_COUNTED = frozenset((resources.EVENTS.key_stem,))

EVALUATORS: dict[str, Evaluator] = {
    r.key_stem: _SPECIAL.get(r.key_stem) or Evaluator(r)
    for r in resources.stored()
    if r.namespaced and r.key_stem not in _NOT_COUNTED
}
"""Every resource that can be counted, by key stem."""


def evaluator(resource: Resource) -> Evaluator | None:
    return EVALUATORS.get(resource.key_stem)
