"""Defaults of Deployments, ReplicaSets, DaemonSets and StatefulSets. Upstream: `pkg/apis/apps/v1/defaults.go`."""

from __future__ import annotations

from sampan.api.defaults import storage
from sampan.api.defaults.pods import pod_spec
from sampan.api.errors import Object


def deployment(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if spec.get("replicas") is None:
        spec["replicas"] = 1
    strategy = spec.get("strategy")
    if strategy is None:
        strategy = spec["strategy"] = {}
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.get("rollingUpdate")
        if rolling is None:
            rolling = strategy["rollingUpdate"] = {}
        for name in ("maxUnavailable", "maxSurge"):
            if rolling.get(name) is None:
                rolling[name] = "25%"
    if spec.get("revisionHistoryLimit") is None:
        spec["revisionHistoryLimit"] = 10
    if spec.get("progressDeadlineSeconds") is None:
        spec["progressDeadlineSeconds"] = 600
    template(spec)


def replica_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if spec.get("replicas") is None:
        spec["replicas"] = 1
    template(spec)


def daemon_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    strategy = _update_strategy(spec)
    if strategy["type"] == "RollingUpdate":
        rolling = _section(strategy, "rollingUpdate")
        for name, value in (("maxUnavailable", 1), ("maxSurge", 0)):
            if rolling.get(name) is None:
                rolling[name] = value
    if spec.get("revisionHistoryLimit") is None:
        spec["revisionHistoryLimit"] = 10
    template(spec)


def stateful_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("podManagementPolicy"):
        spec["podManagementPolicy"] = "OrderedReady"
    chosen = (spec.get("updateStrategy") or {}).get("type")
    strategy = _update_strategy(spec)
    if not chosen:
        _section(strategy, "rollingUpdate")
    if strategy["type"] == "RollingUpdate" and strategy.get("rollingUpdate") is not None:
        for name, value in (("partition", 0), ("maxUnavailable", 1)):
            if strategy["rollingUpdate"].get(name) is None:
                strategy["rollingUpdate"][name] = value
    retention = _section(spec, "persistentVolumeClaimRetentionPolicy")
    for name in ("whenDeleted", "whenScaled"):
        if not retention.get(name):
            retention[name] = "Retain"
    for name, value in (("replicas", 1), ("revisionHistoryLimit", 10)):
        if spec.get(name) is None:
            spec[name] = value
    for claim in spec.get("volumeClaimTemplates") or ():
        claim["apiVersion"], claim["kind"] = "v1", "PersistentVolumeClaim"
        storage.persistent_volume_claim(claim)
        _section(claim, "status").setdefault("phase", "Pending")
    template(spec)


def _update_strategy(spec: Object) -> Object:
    strategy = _section(spec, "updateStrategy")
    if not strategy.get("type"):
        strategy["type"] = "RollingUpdate"
    return strategy


def _section(obj: Object, name: str) -> Object:
    """The object under a name, which is made if it is not there."""
    found: Object | None = obj.get(name)
    if found is None:
        found = obj[name] = {}
    return found


def template(spec: Object) -> None:
    """The pod template of a workload's spec."""
    item = spec.get("template")
    if item is not None:
        item.setdefault("metadata", {})
        pod_spec(item.setdefault("spec", {}))
