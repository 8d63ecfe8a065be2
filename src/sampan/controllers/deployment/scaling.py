"""How large each ReplicaSet of a Deployment is to be. Pure arithmetic; `rollout` carries it out.

Upstream: `util/deployment_util.go`, `sync.go` (`scale`) and `rolling.go`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sampan.api.errors import Object
from sampan.controllers.deployment import facts

Sizes = list[tuple[Object, int]]
"""ReplicaSets with the replicas that each shall have."""


def new_size(deployment: Object, sets: Iterable[Object], new: Object) -> int:
    """How far the newest ReplicaSet can grow now."""
    wanted = facts.replicas(deployment)
    present = facts.replicas(new)
    if present > wanted or not facts.rolling(deployment):
        return wanted
    room = wanted + facts.max_surge(deployment) - facts.total_replicas(sets)
    if room <= 0:
        return present
    return present + min(room, wanted - present)


def old_sizes(deployment: Object, sets: Sequence[Object], old: Sequence[Object], new: Object) -> Sizes:
    """How far the older ReplicaSets can shrink now: what is broken first, then what can be spared."""
    wanted = facts.replicas(deployment)
    old = facts.by_age(facts.active(old))
    if not old:
        return []
    least = wanted - facts.max_unavailable(deployment)
    missing_new = facts.replicas(new) - facts.counted(new, "availableReplicas")
    allowed = facts.total_replicas(sets) - least - missing_new
    if allowed <= 0:
        return []
    sizes = {s["metadata"]["name"]: facts.replicas(s) for s in old}
    for replica_set in old:
        name = replica_set["metadata"]["name"]
        broken = max(0, sizes[name] - facts.counted(replica_set, "availableReplicas"))
        gone = min(allowed, broken)
        sizes[name] -= gone
        allowed -= gone
    spare = facts.total_counted(sets, "availableReplicas") - least
    for replica_set in old:
        name = replica_set["metadata"]["name"]
        gone = min(max(spare, 0), sizes[name])
        sizes[name] -= gone
        spare -= gone
    return [
        (s, sizes[s["metadata"]["name"]]) for s in old if sizes[s["metadata"]["name"]] != facts.replicas(s)
    ]


def rescaled(deployment: Object, new: Object | None, old: Sequence[Object]) -> Sizes:
    """Sizes after the Deployment itself was scaled, perhaps in the middle of a rollout."""
    wanted = facts.replicas(deployment)
    only = facts.active_or_latest(new, old)
    if only is not None:
        return [(only, wanted)]
    if facts.saturated(deployment, new):
        return [(s, 0) for s in facts.active(old)]
    if not facts.rolling(deployment):
        return []
    return _proportional(deployment, facts.active([*old, *([new] if new is not None else [])]))


def _proportional(deployment: Object, sets: list[Object]) -> Sizes:
    """The difference shared out in proportion to present sizes, so that a rollout keeps its balance."""
    wanted = facts.replicas(deployment)
    allowed = wanted + facts.max_surge(deployment) if wanted > 0 else 0
    to_add = allowed - facts.total_replicas(sets)
    # Largest first; of equals the newer grows first and the older shrinks first.
    ordered = facts.by_age(sets)
    if to_add > 0:
        ordered.reverse()
    ordered.sort(key=lambda s: -facts.replicas(s))
    sizes: list[int] = []
    added = 0
    for replica_set in ordered:
        share = 0
        if to_add and added != to_add and facts.replicas(replica_set):
            fraction, left = _fraction(deployment, replica_set), to_add - added
            share = min(fraction, left) if to_add > 0 else max(fraction, left)
        sizes.append(facts.replicas(replica_set) + share)
        added += share
    if sizes and to_add:
        sizes[0] = max(0, sizes[0] + to_add - added)
    return list(zip(ordered, sizes, strict=True))


def _fraction(deployment: Object, replica_set: Object) -> int:
    wanted, present = facts.replicas(deployment), facts.replicas(replica_set)
    if wanted == 0:
        return -present
    before = facts.number_annotation(replica_set, facts.MAX_REPLICAS) or facts.counted(deployment, "replicas")
    if not before:
        return 0
    share = present * (wanted + facts.max_surge(deployment)) / before
    return int(share + 0.5) - present
