"""The ReplicaSet of the present template: found or made, numbered, and annotated.

Upstream: `pkg/controller/deployment/sync.go` and `util/deployment_util.go`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sampan.api.errors import Object
from sampan.api.objects import deep_copy, owner_reference
from sampan.controllers.deployment import facts

_NOT_COPIED = frozenset(
    (
        "kubectl.kubernetes.io/last-applied-configuration",
        facts.REVISION,
        facts.REVISION_HISTORY,
        facts.DESIRED_REPLICAS,
        facts.MAX_REPLICAS,
        "deprecated.deployment.rollback.to",
    )
)


def find_new(deployment: Object, sets: Sequence[Object]) -> Object | None:
    """The oldest ReplicaSet of the present template."""
    template = deployment["spec"]["template"]
    return next((s for s in facts.by_age(sets) if facts.same_template(s["spec"]["template"], template)), None)


def next_revision(old: Sequence[Object]) -> int:
    return max((facts.revision(s) for s in old), default=0) + 1


def annotated(deployment: Object, replica_set: Object, revision: int) -> Object:
    """`replica_set` with the annotations and minReadySeconds that it must have as the newest; itself if nothing changes."""
    meta = replica_set["metadata"]
    annotations = dict(meta.get("annotations") or {})
    for name, value in (deployment["metadata"].get("annotations") or {}).items():
        if name not in _NOT_COPIED:
            annotations[name] = value
    before = annotations.get(facts.REVISION, "")
    if facts.revision(replica_set) < revision:
        annotations[facts.REVISION] = str(revision)
        if before:
            history = annotations.get(facts.REVISION_HISTORY, "")
            annotations[facts.REVISION_HISTORY] = f"{history},{before}" if history else before
    min_ready = deployment["spec"].get("minReadySeconds") or 0
    if annotations == (meta.get("annotations") or {}) and min_ready == (
        replica_set["spec"].get("minReadySeconds") or 0
    ):
        return replica_set
    changed = deep_copy(replica_set)
    changed["metadata"]["annotations"] = annotations
    _set_min_ready(changed, min_ready)
    return changed


def _set_min_ready(replica_set: Object, seconds: int) -> None:
    if seconds:
        replica_set["spec"]["minReadySeconds"] = seconds
    else:
        replica_set["spec"].pop("minReadySeconds", None)


def make(deployment: Object, old: Sequence[Object], revision: int) -> Object:
    """A new ReplicaSet of the present template, with no replicas yet."""
    meta, spec = deployment["metadata"], deployment["spec"]
    collisions = (deployment.get("status") or {}).get("collisionCount")
    name = facts.template_hash(spec["template"], collisions)
    template = deep_copy(spec["template"])
    labels = {**((template.get("metadata") or {}).get("labels") or {}), facts.HASH_LABEL: name}
    template["metadata"] = {**(template.get("metadata") or {}), "labels": labels}
    selector = deep_copy(spec.get("selector") or {})
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), facts.HASH_LABEL: name}
    made: Object = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{meta['name']}-{name}",
            "namespace": meta["namespace"],
            "labels": labels,
            "ownerReferences": [
                owner_reference({**deployment, "apiVersion": "apps/v1", "kind": "Deployment"})
            ],
        },
        "spec": {"replicas": 0, "selector": selector, "template": template},
    }
    return annotated(deployment, made, revision)
