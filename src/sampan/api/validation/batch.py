"""Jobs and CronJobs; a Job's status is in `job_status`. Upstream: `pkg/apis/batch/validation/validation.go`."""

from __future__ import annotations

import re

from sampan.api import cron, selectors
from sampan.api.errors import (
    OMITTED,
    FieldError,
    Object,
    duplicate,
    invalid_value,
    not_supported,
    required,
    show,
    too_long,
    too_many,
)
from sampan.api.objects import condition_true, deep_copy
from sampan.api.strategy import same
from sampan.api.strategy.batch import CONTROLLER_UID, JOB_NAME, OLD_CONTROLLER_UID, OLD_JOB_NAME
from sampan.api.validation import formats, job_status, metadata, pods
from sampan.api.validation.values import Problems, domain_prefixed_path, formatted, non_negative

_MOST_PARALLEL_INDEXED = 100_000
_MOST_FAILED_INDEXES = 100_000
_MANY_COMPLETIONS = 100_000
_OF_MANY_COMPLETIONS = 10_000
_RULES = 20
_CONDITION_PATTERNS = 20
_EXIT_CODES = 255
_SUCCEEDED_INDEXES = 64 * 1024
_MANAGED_BY = 63
_CRON_JOB_NAME = 52
"""A Job of a CronJob has eleven characters more in its name."""
_ACTIONS = ("Count", "FailIndex", "FailJob", "Ignore")

# Jobs


def job(obj: Object) -> Problems:
    spec = obj.get("spec") or {}
    out = _generated_selector(obj, spec) + _selected_spec(spec)
    if spec.get("completionMode") == "Indexed" and (spec.get("completions") or 0) > 0:
        name = obj["metadata"].get("name", "")
        longest = f"{name}-{spec['completions'] - 1}"
        if formats.dns1123_label(longest):
            detail = f"will not able to create pod with invalid DNS label: {longest}"
            out.append(invalid_value("metadata.name", name, detail))
    return out


def _generated_selector(obj: Object, spec: Object) -> Problems:
    """Labels and selector that the strategy made, if the author did not come in between."""
    if spec.get("manualSelector") or spec.get("selector") is None:
        return []
    uid, name = obj["metadata"].get("uid", ""), obj["metadata"].get("name", "")
    out = [] if uid else [required("metadata.uid")]
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    expected = {OLD_CONTROLLER_UID: uid, OLD_JOB_NAME: name, CONTROLLER_UID: uid, JOB_NAME: name}
    for key, value in expected.items():
        at = f"spec.template.metadata.labels[{key}]"
        if key not in labels:
            out.append(required(at, f"must be '{value}'"))
        elif labels[key] != value:
            out.append(invalid_value(at, labels, f"must be '{value}'"))
    selector = spec["selector"]
    if not metadata.label_selector(selector, "") and not selectors.from_object(selector).matches(expected):
        out.append(invalid_value("spec.selector", selector, "`selector` not auto-generated"))
    return out


def _selected_spec(spec: Object) -> Problems:
    out = _spec(spec, "spec")
    selector = spec.get("selector")
    if selector is None:
        return [*out, required("spec.selector")]
    wrong = metadata.label_selector(selector, "spec.selector")
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    if not wrong and not selectors.from_object(selector).matches(labels):
        detail = "`selector` does not match template `labels`"
        out.append(invalid_value("spec.template.metadata.labels", labels, detail))
    return out + wrong


_NUMBERS = (
    "parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished",
    "backoffLimitPerIndex", "maxFailedIndexes",
)  # fmt: skip


def _spec(spec: Object, path: str) -> Problems:
    """A Job's spec, in a Job or in a CronJob's template."""
    out = [p for name in _NUMBERS for p in non_negative(f"{path}.{name}", spec.get(name))]
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        out.append(required(f"{path}.backoffLimitPerIndex", "when maxFailedIndexes is specified"))
    manager = spec.get("managedBy")
    if manager is not None:
        out += domain_prefixed_path(f"{path}.managedBy", manager)
        if len(manager) > _MANAGED_BY:
            out.append(too_long(f"{path}.managedBy", _MANAGED_BY))
    mode = spec.get("completionMode")
    if mode not in (None, "NonIndexed", "Indexed"):
        out.append(not_supported(f"{path}.completionMode", mode, ("NonIndexed", "Indexed")))
    if mode == "Indexed":
        out += _indexed(spec, path)
    elif mode in (None, "NonIndexed"):
        for name in ("backoffLimitPerIndex", "maxFailedIndexes"):
            if spec.get(name) is not None:
                out.append(invalid_value(f"{path}.{name}", spec[name], "requires indexed completion mode"))
    if spec.get("podFailurePolicy") is not None:
        out += _failure_policy(spec, f"{path}.podFailurePolicy")
    success = spec.get("successPolicy")
    if success is not None:
        if mode != "Indexed":
            out.append(invalid_value(f"{path}.successPolicy", success, "requires indexed completion mode"))
        else:
            out += _success_policy(spec, f"{path}.successPolicy")
    out += _replacement_policy(spec, f"{path}.podReplacementPolicy")
    out += pods.template(spec.get("template") or {}, f"{path}.template")
    return out + _restart_policy(spec, f"{path}.template.spec.restartPolicy")


def _indexed(spec: Object, path: str) -> Problems:
    out: list[FieldError] = []
    completions, parallelism = spec.get("completions"), spec.get("parallelism") or 0
    failed = spec.get("maxFailedIndexes")
    if completions is None:
        out.append(required(f"{path}.completions", "when completion mode is Indexed"))
    if parallelism > _MOST_PARALLEL_INDEXED:
        detail = f"must be less than or equal to {_MOST_PARALLEL_INDEXED} when completion mode is Indexed"
        out.append(invalid_value(f"{path}.parallelism", parallelism, detail))
    if completions is not None and failed is not None and failed > completions:
        detail = "must be less than or equal to completions"
        out.append(invalid_value(f"{path}.maxFailedIndexes", failed, detail))
    if failed is not None and failed > _MOST_FAILED_INDEXES:
        detail = f"must be less than or equal to {_MOST_FAILED_INDEXES}"
        out.append(invalid_value(f"{path}.maxFailedIndexes", failed, detail))
    if (completions or 0) > _MANY_COMPLETIONS and spec.get("backoffLimitPerIndex") is not None:
        if failed is None:
            detail = f"must be specified when completions is above {_MANY_COMPLETIONS}"
            out.append(required(f"{path}.maxFailedIndexes", detail))
        detail = (
            f"must be less than or equal to {_OF_MANY_COMPLETIONS} when completions are above {_MANY_COMPLETIONS} "
            "and used with backoff limit per index"
        )
        if parallelism > _OF_MANY_COMPLETIONS:
            out.append(invalid_value(f"{path}.parallelism", parallelism, detail))
        if (failed or 0) > _OF_MANY_COMPLETIONS:
            out.append(invalid_value(f"{path}.maxFailedIndexes", failed, detail))
    return out


def _restart_policy(spec: Object, path: str) -> Problems:
    policy = ((spec.get("template") or {}).get("spec") or {}).get("restartPolicy")
    if policy in (None, "", "Always"):
        return [required(path, 'valid values: "OnFailure", "Never"')]
    if policy not in ("OnFailure", "Never"):
        return [not_supported(path, policy, ("OnFailure", "Never"))]
    if spec.get("podFailurePolicy") is not None and policy != "Never":
        return [invalid_value(path, policy, 'only "Never" is supported when podFailurePolicy is specified')]
    return []


def _replacement_policy(spec: Object, path: str) -> Problems:
    policy = spec.get("podReplacementPolicy")
    allowed = ("Failed",) if spec.get("podFailurePolicy") is not None else ("Failed", "TerminatingOrFailed")
    return [not_supported(path, policy, allowed)] if policy is not None and policy not in allowed else []


def _enumerated(path: str, value: str | None, allowed: tuple[str, ...]) -> Problems:
    if not value:
        return [required(path, f"valid values: [{' '.join(map(show, allowed))}]")]
    return [] if value in allowed else [not_supported(path, value, allowed)]


def _failure_policy(spec: Object, path: str) -> Problems:
    rules = spec["podFailurePolicy"].get("rules") or []
    out = [too_many(f"{path}.rules", len(rules), _RULES)] if len(rules) > _RULES else []
    pod = (spec.get("template") or {}).get("spec") or {}
    names = {c.get("name") for kind in ("containers", "initContainers") for c in pod.get(kind) or ()}
    for i, rule in enumerate(rules):
        at = f"{path}.rules[{i}]"
        action, codes, conditions = rule.get("action"), rule.get("onExitCodes"), rule.get("onPodConditions")
        if action == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
            detail = "requires the backoffLimitPerIndex to be set"
            out.append(invalid_value(f"{at}.action", action, detail))
        else:
            out += _enumerated(f"{at}.action", action, _ACTIONS)
        if codes is not None:
            out += _exit_codes(codes, names, f"{at}.onExitCodes")
        out += _pod_conditions(conditions or [], f"{at}.onPodConditions")
        if codes is not None and conditions:
            out.append(
                invalid_value(at, OMITTED, "specifying both OnExitCodes and OnPodConditions is not supported")
            )
        if codes is None and not conditions:
            out.append(
                invalid_value(at, OMITTED, "specifying one of OnExitCodes and OnPodConditions is required")
            )
    return out


def _pod_conditions(patterns: list[Object], path: str) -> Problems:
    out: list[FieldError] = []
    if len(patterns) > _CONDITION_PATTERNS:
        out.append(too_many(path, len(patterns), _CONDITION_PATTERNS))
    for i, pattern in enumerate(patterns):
        out += formatted(f"{path}[{i}].type", pattern.get("type") or "", formats.qualified_name)
        out += _enumerated(f"{path}[{i}].status", pattern.get("status"), ("False", "True", "Unknown"))
    return out


def _exit_codes(wanted: Object, names: set[str | None], path: str) -> Problems:
    operator, values = wanted.get("operator"), wanted.get("values") or []
    out = _enumerated(f"{path}.operator", operator, ("In", "NotIn"))
    name = wanted.get("containerName")
    if name is not None and name not in names:
        detail = "must be one of the container or initContainer names in the pod template"
        out.append(invalid_value(f"{path}.containerName", name, detail))
    if not values:
        out.append(invalid_value(f"{path}.values", values, "at least one value is required"))
    elif len(values) > _EXIT_CODES:
        out.append(too_many(f"{path}.values", len(values), _EXIT_CODES))
    for i, value in enumerate(values):
        if operator == "In" and value == 0:
            out.append(invalid_value(f"{path}.values[{i}]", value, "must not be 0 for the In operator"))
        if value in values[:i]:
            out.append(duplicate(f"{path}.values[{i}]", value))
    if values != sorted(values):
        out.append(invalid_value(f"{path}.values", values, "must be ordered"))
    return out


def _success_policy(spec: Object, path: str) -> Problems:
    rules = spec["successPolicy"].get("rules") or []
    out: list[FieldError] = []
    if not rules:
        detail = "at least one rules must be specified when the successPolicy is specified"
        out.append(required(f"{path}.rules", detail))
    if len(rules) > _RULES:
        out.append(too_many(f"{path}.rules", len(rules), _RULES))
    completions = spec.get("completions") or 0
    for i, rule in enumerate(rules):
        out += _success_rule(rule, completions, f"{path}.rules[{i}]")
    return out


def _success_rule(rule: Object, completions: int, path: str) -> Problems:
    indexes, count = rule.get("succeededIndexes"), rule.get("succeededCount")
    if indexes is None and count is None:
        return [required(path, "at least one of succeededCount or succeededIndexes must be specified")]
    out: list[FieldError] = []
    total = 0
    if indexes is not None:
        at = f"{path}.succeededIndexes"
        if len(indexes) > _SUCCEEDED_INDEXES:
            out.append(too_long(at, _SUCCEEDED_INDEXES))
        try:
            total = job_status.count_indexes(indexes, completions)
        except ValueError as e:
            out.append(invalid_value(at, indexes, f"error parsing succeededIndexes: {e}"))
    if count is not None:
        at = f"{path}.succeededCount"
        out += non_negative(at, count)
        if count > completions:
            detail = f"must be less than or equal to {completions} (the number of specified completions)"
            out.append(invalid_value(at, count, detail))
        if indexes is not None and count > total:
            detail = f"must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
            out.append(invalid_value(at, count, detail))
    return out


_IMMUTABLE = (
    "selector",
    "completionMode",
    "podFailurePolicy",
    "backoffLimitPerIndex",
    "managedBy",
    "successPolicy",
)


def job_update(new: Object, old: Object, subresource: str) -> Problems:
    if subresource == "status":
        return job_status.update(new, old)
    after, before = new.get("spec") or {}, old.get("spec") or {}
    out = _selected_spec(after) + _completions(after, before)
    for name in _IMMUTABLE:
        out += metadata.immutable(f"spec.{name}", after.get(name), before.get(name))
    return out + _template_update(after, old)


def _completions(after: Object, before: Object) -> Problems:
    completions, path = after.get("completions"), "spec.completions"
    if after.get("completionMode") != "Indexed":
        return metadata.immutable(path, completions, before.get("completions"))
    if completions in (None, before.get("completions"), after.get("parallelism")):
        return []
    return [invalid_value(path, completions, "can only be modified in tandem with spec.parallelism")]


def _template_update(after: Object, old: Object) -> Problems:
    """A template stands, but for where its pods may run and what they ask for while none of them does."""
    before, template = old["spec"].get("template") or {}, after.get("template") or {}
    status = old.get("status") or {}
    idle = not status.get("active") and (not status.get("startTime") or condition_true(old, "Suspended"))
    if old["spec"].get("suspend") and idle:
        before = _with_mutable(before, template)
    if same(template, before):
        return []
    return [invalid_value("spec.template", template, formats.IMMUTABLE)]


def _with_mutable(before: Object, after: Object) -> Object:
    """The old template with everything new that a suspended Job may change."""
    out = deep_copy(before)
    meta, pod = out.setdefault("metadata", {}), out.setdefault("spec", {})
    new_meta, new_pod = after.get("metadata") or {}, after.get("spec") or {}
    meta |= {name: new_meta.get(name) for name in ("labels", "annotations")}
    pod |= {name: new_pod.get(name) for name in ("nodeSelector", "tolerations", "schedulingGates")}
    affinity = {
        **(pod.get("affinity") or {}),
        "nodeAffinity": (new_pod.get("affinity") or {}).get("nodeAffinity"),
    }
    pod["affinity"] = affinity if any(affinity.values()) or new_pod.get("affinity") is not None else None
    for kind in ("containers", "initContainers"):
        given = new_pod.get(kind) or []
        for container, wanted in zip(pod.get(kind) or (), given, strict=False):
            if container.get("name") == wanted.get("name"):
                container["resources"] = wanted.get("resources")
    return out


# CronJobs


def cron_job(obj: Object) -> Problems:
    name = obj["metadata"].get("name") or ""
    out = _cron_spec(obj.get("spec") or {}, None)
    if len(name) > _CRON_JOB_NAME:
        out.append(invalid_value("metadata.name", name, f"must be no more than {_CRON_JOB_NAME} characters"))
    return out


def cron_job_update(new: Object, old: Object, subresource: str) -> Problems:
    return [] if subresource == "status" else _cron_spec(new.get("spec") or {}, old.get("spec") or {})


def _cron_spec(spec: Object, before: Object | None) -> Problems:
    schedule, zone = spec.get("schedule") or "", spec.get("timeZone")
    out = _schedule(schedule, zone, before) if schedule else [required("spec.schedule")]
    out += non_negative("spec.startingDeadlineSeconds", spec.get("startingDeadlineSeconds"))
    if zone is not None and (before is None or before.get("timeZone") != zone):
        out += _time_zone(zone, "spec.timeZone")
    policy = spec.get("concurrencyPolicy")
    if not policy:
        out.append(required("spec.concurrencyPolicy"))
    elif policy not in ("Allow", "Forbid", "Replace"):
        out.append(not_supported("spec.concurrencyPolicy", policy, ("Allow", "Forbid", "Replace")))
    made = (spec.get("jobTemplate") or {}).get("spec") or {}
    path = "spec.jobTemplate.spec"
    out += _spec(made, path)
    if made.get("selector") is not None:
        out.append(invalid_value(f"{path}.selector", made["selector"], "`selector` will be auto-generated"))
    if made.get("manualSelector"):
        out.append(not_supported(f"{path}.manualSelector", True, ("nil", "false")))
    for name in ("successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        out += non_negative(f"spec.{name}", spec.get(name))
    return out


def _schedule(schedule: str, zone: str | None, before: Object | None) -> Problems:
    path = "spec.schedule"
    out: list[FieldError] = []
    try:
        named = cron.parse(schedule).zone
        if named and not _known_zone(named):
            out.append(
                invalid_value(path, schedule, f"provided bad location {named}: unknown time zone {named}")
            )
    except ValueError as e:
        out.append(invalid_value(path, schedule, str(e)))
    if "TZ" in schedule:
        if before is None or "TZ" not in (before.get("schedule") or ""):
            detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
            out.append(invalid_value(path, schedule, detail))
        elif zone is not None:
            detail = "cannot use both timeZone field and TZ or CRON_TZ in schedule"
            out.append(invalid_value(path, schedule, detail))
    return out


def _time_zone(zone: str, path: str) -> Problems:
    if not zone:
        return [invalid_value(path, zone, "timeZone must be nil or non-empty string")]
    for part in zone.split("/"):
        if part in (".", "..") or part.startswith("-") or not re.fullmatch(r"[A-Za-z._\-0-9+]{1,14}", part):
            return [invalid_value(path, zone, f"unknown time zone {zone}")]
    out: list[FieldError] = []
    if zone.lower() == "local":
        detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        out.append(invalid_value(path, zone, detail))
    if zone != "Local" and not _known_zone(zone):
        out.append(invalid_value(path, zone, f"unknown time zone {zone}"))
    return out


def _known_zone(zone: str) -> bool:
    import zoneinfo  # A hundred kilobytes that few clusters need.

    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
