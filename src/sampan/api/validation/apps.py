"""Deployments, ReplicaSets, DaemonSets, StatefulSets and ControllerRevisions.

Upstream: `pkg/apis/apps/validation/validation.go`.
"""

from __future__ import annotations

from sampan.api import selectors
from sampan.api.errors import FieldError, Object, forbidden_field, invalid_value, not_supported, required
from sampan.api.strategy import same
from sampan.api.validation import formats, metadata, persistent_volumes, pods
from sampan.api.validation.values import (
    Problems,
    at_most_100_percent,
    formatted,
    int_or_percent_amount,
    non_negative,
    one_of,
    positive_int_or_percent,
)

# Deployments and ReplicaSets


def deployment(obj: Object) -> Problems:
    spec = obj.get("spec") or {}
    out = _replicated(spec)
    out += _strategy(spec.get("strategy") or {}, "spec.strategy")
    out += non_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    out += non_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))
    deadline = spec.get("progressDeadlineSeconds")
    if deadline is not None:
        out += non_negative("spec.progressDeadlineSeconds", deadline)
        if deadline <= (spec.get("minReadySeconds") or 0):
            detail = "must be greater than minReadySeconds"
            out.append(invalid_value("spec.progressDeadlineSeconds", deadline, detail))
    return out


def replica_set(obj: Object) -> Problems:
    spec = obj.get("spec") or {}
    return _replicated(spec) + non_negative("spec.minReadySeconds", spec.get("minReadySeconds"))


def _replicated(spec: Object) -> Problems:
    out = non_negative("spec.replicas", spec.get("replicas"))
    wrong, usable = _selector(spec.get("selector"), "empty selector is invalid for deployment")
    out += wrong
    item = spec.get("template")
    if item is None:
        return [*out, required("spec.template")]
    out += _selected(spec["selector"], item) if usable else []
    return out + pods.template(item, "spec.template") + always_restarted(item, "ReplicaSet")


def _selector(selector: Object | None, empty: str) -> tuple[Problems, bool]:
    """What is wrong with the selector of a workload, and whether it can be held against the template."""
    if selector is None:
        return [required("spec.selector")], False
    wrong = metadata.label_selector(selector, "spec.selector")
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        return [*wrong, invalid_value("spec.selector", selector, empty)], False
    return wrong, not wrong


def _selected(selector: Object, item: Object) -> Problems:
    labels = (item.get("metadata") or {}).get("labels") or {}
    if selectors.from_object(selector).matches(labels):
        return []
    detail = "`selector` does not match template `labels`"
    return [invalid_value("spec.template.metadata.labels", labels, detail)]


def always_restarted(item: Object, owner: str) -> Problems:
    """A pod template whose pods are to run for ever."""
    out: list[FieldError] = []
    pod = item.get("spec") or {}
    policy = pod.get("restartPolicy")
    if policy in ("OnFailure", "Never"):
        out.append(not_supported("spec.template.spec.restartPolicy", policy, ("Always",)))
    if pod.get("activeDeadlineSeconds") is not None:
        detail = f"activeDeadlineSeconds in {owner} is not Supported"
        out.append(forbidden_field("spec.template.spec.activeDeadlineSeconds", detail))
    return out


def _strategy(strategy: Object, path: str) -> Problems:
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if kind == "Recreate":
        if rolling is None:
            return []
        detail = "may not be specified when strategy `type` is 'Recreate'"
        return [forbidden_field(f"{path}.rollingUpdate", detail)]
    if kind != "RollingUpdate":
        return one_of(f"{path}.type", kind, ("Recreate", "RollingUpdate"))
    if rolling is None:
        return [required(f"{path}.rollingUpdate", "this should be defaulted and never be nil")]
    unavailable, surge = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
    at = f"{path}.rollingUpdate"
    out = positive_int_or_percent(f"{at}.maxUnavailable", unavailable)
    out += positive_int_or_percent(f"{at}.maxSurge", surge)
    if not int_or_percent_amount(unavailable) and not int_or_percent_amount(surge):
        out.append(invalid_value(f"{at}.maxUnavailable", unavailable, "may not be 0 when `maxSurge` is 0"))
    return out + at_most_100_percent(f"{at}.maxUnavailable", unavailable)


def deployment_update(new: Object, old: Object, subresource: str) -> Problems:
    if subresource == "status":
        return _status(new, old, _DEPLOYMENT_COUNTS, "readyReplicas")
    return _selector_kept(new, old) + deployment(new)


def replica_set_update(new: Object, old: Object, subresource: str) -> Problems:
    if subresource == "status":
        return replica_status(new.get("status") or {})
    return _selector_kept(new, old) + replica_set(new)


def _selector_kept(new: Object, old: Object) -> Problems:
    selector = (new.get("spec") or {}).get("selector")
    return metadata.immutable("spec.selector", selector, (old.get("spec") or {}).get("selector"))


_DEPLOYMENT_COUNTS = ("updatedReplicas", "readyReplicas", "availableReplicas")
_NEVER_NEGATIVE = (
    "observedGeneration", "replicas", "updatedReplicas", "readyReplicas", "currentReplicas", "availableReplicas",
    "unavailableReplicas", "fullyLabeledReplicas", "terminatingReplicas", "collisionCount", "currentNumberScheduled",
    "numberMisscheduled", "desiredNumberScheduled", "numberReady", "updatedNumberScheduled", "numberAvailable",
    "numberUnavailable",
)  # fmt: skip


def _status(new: Object, old: Object, parts: tuple[str, ...], ready: str) -> Problems:
    """A status that counts: nothing below zero, and no part above the whole."""
    status, before = new.get("status") or {}, old.get("status") or {}
    out = _counts(status, parts, ready)
    collisions = status.get("collisionCount")
    if before.get("collisionCount") is not None and (collisions or 0) < before["collisionCount"]:
        out.append(invalid_value("status.collisionCount", collisions or 0, "cannot be decremented"))
    return out


def _counts(status: Object, parts: tuple[str, ...], ready: str) -> Problems:
    out = [p for name in _NEVER_NEGATIVE for p in non_negative(f"status.{name}", status.get(name))]
    total = status.get("replicas") or 0
    for name in parts:
        count = status.get(name) or 0
        if count > total:
            out.append(invalid_value(f"status.{name}", count, "cannot be greater than status.replicas"))
    available = status.get("availableReplicas") or 0
    if parts and available > (status.get("readyReplicas") or 0):
        out.append(invalid_value("status.availableReplicas", available, f"cannot be greater than {ready}"))
    return out


def replica_status(status: Object) -> Problems:
    """The status of a ReplicaSet or ReplicationController."""
    return _counts(status, ("fullyLabeledReplicas", "readyReplicas", "availableReplicas"), "readyReplicas")


# DaemonSets


def daemon_set(obj: Object) -> Problems:
    spec = obj.get("spec") or {}
    selector, item = spec.get("selector"), spec.get("template") or {}
    out = metadata.label_selector(selector, "spec.selector")
    if selector is not None and not out:
        out += _selected(selector, item)
    if selector is not None and not selector.get("matchLabels") and not selector.get("matchExpressions"):
        out.append(invalid_value("spec.selector", selector, "empty selector is invalid for daemonset"))
    out += pods.template(item, "spec.template")
    out += always_restarted(item, "DaemonSet")
    out += non_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    out += _daemon_set_strategy(spec.get("updateStrategy") or {}, "spec.updateStrategy")
    return out + non_negative("spec.revisionHistoryLimit", spec.get("revisionHistoryLimit"))


def _daemon_set_strategy(strategy: Object, path: str) -> Problems:
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if kind == "OnDelete":
        return []
    if kind != "RollingUpdate":
        return [not_supported(path, strategy, ("RollingUpdate", "OnDelete"))]
    at = f"{path}.rollingUpdate"
    if rolling is None:
        return [required(at)]
    unavailable, surge = rolling.get("maxUnavailable", 0), rolling.get("maxSurge", 0)
    out = positive_int_or_percent(f"{at}.maxUnavailable", unavailable)
    out += positive_int_or_percent(f"{at}.maxSurge", surge)
    out += at_most_100_percent(f"{at}.maxUnavailable", unavailable)
    out += at_most_100_percent(f"{at}.maxSurge", surge)
    without, more = int_or_percent_amount(unavailable), int_or_percent_amount(surge)
    if without and more:
        out.append(invalid_value(f"{at}.maxSurge", surge, "may not be set when maxUnavailable is non-zero"))
    elif not without and not more:
        out.append(required(f"{at}.maxUnavailable", "cannot be 0 when maxSurge is 0"))
    return out


def daemon_set_update(new: Object, old: Object, subresource: str) -> Problems:
    if subresource == "status":
        return _status(new, old, (), "")
    return daemon_set(new) + _selector_kept(new, old)


# StatefulSets

_MUTABLE = (
    "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy", "minReadySeconds",
)  # fmt: skip


def stateful_set(obj: Object) -> Problems:
    spec = obj.get("spec") or {}
    out = _stateful_set(obj)
    if spec.get("serviceName"):
        out += formatted("spec.serviceName", spec["serviceName"], formats.dns1123_label)
    for i, claim in enumerate(spec.get("volumeClaimTemplates") or ()):
        out += persistent_volumes.claim_spec(claim.get("spec") or {}, f"spec.volumeClaimTemplates[{i}].spec")
    return out


def _stateful_set(obj: Object) -> Problems:
    spec = obj.get("spec") or {}
    out: list[FieldError] = []
    policy = spec.get("podManagementPolicy")
    if policy not in ("OrderedReady", "Parallel"):
        detail = "must be 'OrderedReady' or 'Parallel'"
        out.append(invalid_value("spec.podManagementPolicy", policy, detail))
    out += _stateful_set_strategy(spec.get("updateStrategy") or {}, "spec.updateStrategy")
    for name, kept in (spec.get("persistentVolumeClaimRetentionPolicy") or {}).items():
        if kept not in ("Retain", "Delete"):
            where = f"spec.persistentVolumeClaimRetentionPolicy.{name}"
            out.append(not_supported(where, kept, ("Retain", "Delete")))
    out += non_negative("spec.replicas", spec.get("replicas"))
    out += non_negative("spec.minReadySeconds", spec.get("minReadySeconds"))
    out += non_negative("spec.ordinals.start", (spec.get("ordinals") or {}).get("start"))
    wrong, usable = _selector(spec.get("selector"), "empty selector is invalid for statefulset")
    out += wrong
    item = spec.get("template")
    if item is None:
        return [*out, required("spec.template")]
    out += _selected(spec["selector"], item) if usable else []
    out += pods.template(_with_claims(item, spec), "spec.template")
    return out + always_restarted(item, "StatefulSet")


def _with_claims(item: Object, spec: Object) -> Object:
    """The template with a volume for each claim, which the mounts of its containers may name."""
    pod = item.get("spec") or {}
    given = list(pod.get("volumes") or ())
    names = [(c.get("metadata") or {}).get("name") or "" for c in spec.get("volumeClaimTemplates") or ()]
    claimed = [{"name": n, "persistentVolumeClaim": {"claimName": n}} for n in names if n]
    kept = [v for v in given if v.get("name") not in names]
    return {**item, "spec": {**pod, "volumes": [*kept, *claimed]}}


def _stateful_set_strategy(strategy: Object, path: str) -> Problems:
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    at = f"{path}.rollingUpdate"
    if kind == "OnDelete":
        detail = "only allowed for updateStrategy 'RollingUpdate'"
        return [] if rolling is None else [invalid_value(at, rolling, detail)]
    if kind != "RollingUpdate":
        return [invalid_value(path, strategy, "must be 'RollingUpdate' or 'OnDelete'")]
    if rolling is None:
        return []
    out = non_negative(f"{at}.partition", rolling.get("partition"))
    unavailable = rolling.get("maxUnavailable")
    if unavailable is not None:
        out += positive_int_or_percent(f"{at}.maxUnavailable", unavailable)
        if int_or_percent_amount(unavailable) == 0:
            out.append(invalid_value(f"{at}.maxUnavailable", unavailable, "cannot be 0"))
        out += at_most_100_percent(f"{at}.maxUnavailable", unavailable)
    return out


def stateful_set_update(new: Object, old: Object, subresource: str) -> Problems:
    if subresource == "status":
        parts = ("readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas")
        return _status(new, old, parts, "status.readyReplicas")
    after, before = new.get("spec") or {}, old.get("spec") or {}
    out = _stateful_set(new)
    if any(not same(after.get(n), before.get(n)) for n in {*after, *before} - {*_MUTABLE}):
        *most, last = (f"'{name}'" for name in _MUTABLE)
        listed = ", ".join(most)
        detail = f"updates to statefulset spec for fields other than {listed} and {last} are forbidden"
        out.append(forbidden_field("spec", detail))
    return out


# ControllerRevisions


def controller_revision(obj: Object) -> Problems:
    out = [required("data", "data is mandatory")] if obj.get("data") is None else []
    return out + non_negative("revision", obj.get("revision"))


def controller_revision_update(new: Object, old: Object, _: str) -> Problems:
    return controller_revision(new) + metadata.immutable("data", new.get("data"), old.get("data"))
