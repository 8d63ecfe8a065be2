"""Defaults of Jobs and CronJobs. Upstream: `pkg/apis/batch/v1/defaults.go`."""

from __future__ import annotations

from sampan.api.defaults.apps import template
from sampan.api.errors import Object

_MAX_INT32 = 0x7FFFFFFF


def job(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    metadata = obj.setdefault("metadata", {})
    if labels and not metadata.get("labels"):
        metadata["labels"] = dict(labels)
    for name, value in (
        ("parallelism", 1),
        ("backoffLimit", 6 if spec.get("backoffLimitPerIndex") is None else _MAX_INT32),
        ("completionMode", "NonIndexed"),
        ("suspend", False),
        ("manualSelector", False),
        ("podReplacementPolicy", "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed"),
    ):
        if spec.get(name) is None:
            spec[name] = value
    _failure_policy(spec)
    template(spec)


def cron_job(obj: Object) -> None:
    """What the Jobs that it makes leave out is theirs to fill in, but for their pod template."""
    spec = obj.setdefault("spec", {})
    if not spec.get("concurrencyPolicy"):
        spec["concurrencyPolicy"] = "Allow"
    for name, value in (("suspend", False), ("successfulJobsHistoryLimit", 3), ("failedJobsHistoryLimit", 1)):
        if spec.get(name) is None:
            spec[name] = value
    made = (spec.get("jobTemplate") or {}).get("spec")
    if made is not None:
        _failure_policy(made)
        template(made)


def _failure_policy(spec: Object) -> None:
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            if not pattern.get("status"):
                pattern["status"] = "True"
