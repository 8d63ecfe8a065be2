"""The status of a Job: what its controller, ours or one of `managedBy`, may say.

A rule is held only against a write that changes what it is about. Upstream: `getStatusValidationOptions` in
`pkg/registry/batch/job/strategy.go`, `validateJobStatus` in `pkg/apis/batch/validation/validation.go`.
"""

from __future__ import annotations

from collections.abc import Iterator

from sampan.api.errors import OMITTED, FieldError, Object, duplicate, invalid_value, required
from sampan.api.objects import condition_true, parse_time
from sampan.api.strategy import same
from sampan.api.validation.values import Problems, non_negative


def update(new: Object, old: Object) -> Problems:
    status, before, spec = new.get("status") or {}, old.get("status") or {}, new.get("spec") or {}
    changed = {name for name in {*status, *before} if not same(status.get(name), before.get(name))}
    for type_ in _TYPES:
        if condition_true(new, type_) is not condition_true(old, type_):
            changed.add(type_)
    if _finished(new) is not _finished(old):
        changed.add("finished")
    out = [p for n in _COUNTS for p in non_negative(f"status.{n}", status.get(n))]
    out += _uncounted(status.get("uncountedTerminatedPods") or {})
    out += _conditions(new, spec, changed)
    out += _times(new, status, changed)
    out += _when_finished(new, status, spec, changed)
    out += _indexes(status, spec, changed)
    pods_ready, active = status.get("ready") or 0, status.get("active") or 0
    if changed & {"ready", "active"} and pods_ready and pods_ready > active:
        out.append(invalid_value("status.ready", pods_ready, "cannot set more ready pods than active"))
    return out + list(_against_before(new, old))


_COUNTS = ("active", "succeeded", "failed", "ready", "terminating")
_TYPES = ("Complete", "Failed", "FailureTarget", "SuccessCriteriaMet")


def _finished(job: Object) -> bool:
    return condition_true(job, "Complete") or condition_true(job, "Failed")


def _uncounted(pods: Object) -> Problems:
    out: list[FieldError] = []
    seen: set[str] = set()
    for kind in ("succeeded", "failed"):
        for i, uid in enumerate(pods.get(kind) or ()):
            at = f"status.uncountedTerminatedPods.{kind}[{i}]"
            if not uid:
                out.append(invalid_value(at, uid, "must not be empty"))
            elif uid in seen:
                out.append(duplicate(at, uid))
            seen.add(uid)
    return out


def _conditions(job: Object, spec: Object, changed: set[str]) -> Problems:
    complete, failed, target, met = (condition_true(job, t) for t in _TYPES)
    rules = (
        (
            changed & {"Complete", "Failed"},
            complete and failed,
            "cannot set Complete=True and Failed=true conditions",
        ),
        (
            changed & {"Complete", "FailureTarget"},
            complete and target,
            "cannot set Complete=True and FailureTarget=true conditions",
        ),
        (
            changed & {"Failed", "FailureTarget"},
            failed and not target,
            "cannot set Failed=True condition without the FailureTarget=true condition",
        ),
        (
            changed & {"Complete", "SuccessCriteriaMet"},
            complete and not met,
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
        (True, met and failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
        (True, met and target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
        (
            spec.get("successPolicy") is not None,
            complete and not met,
            "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
        ),
    )
    return [
        invalid_value("status.conditions", OMITTED, why) for asked, wrong, why in rules if asked and wrong
    ]


def _times(job: Object, status: Object, changed: set[str]) -> Problems:
    out: list[FieldError] = []
    started, completed = status.get("startTime"), status.get("completionTime")
    at = "status.completionTime"
    if changed & {"Complete", "completionTime"}:
        complete = condition_true(job, "Complete")
        if completed and not complete:
            detail = "cannot set completionTime when there is no Complete=True condition"
            out.append(invalid_value(at, completed, detail))
        if complete and not completed:
            out.append(required(at, "completionTime is required for Complete jobs"))
    if not changed & {"startTime", "completionTime"}:
        return out
    if started and completed and parse_time(completed) < parse_time(started):
        out.append(invalid_value(at, completed, "completionTime cannot be set before startTime"))
    return out


def _when_finished(job: Object, status: Object, spec: Object, changed: set[str]) -> Problems:
    if not _finished(job):
        return []
    out: list[FieldError] = []
    if changed & {"finished", "active"} and (status.get("active") or 0) > 0:
        detail = "active>0 is invalid for finished job"
        out.append(invalid_value("status.active", status["active"], detail))
    nothing_to_do = spec.get("suspend") and spec.get("completions") == 0
    if changed & {"finished", "startTime"} and not status.get("startTime") and not nothing_to_do:
        out.append(required("status.startTime", "startTime is required for finished job"))
    uncounted = status.get("uncountedTerminatedPods") or {}
    if changed & {"finished", "uncountedTerminatedPods"} and any(uncounted.values()):
        detail = "uncountedTerminatedPods needs to be empty for finished job"
        out.append(invalid_value("status.uncountedTerminatedPods", uncounted, detail))
    if changed & {"finished", "terminating"} and (status.get("terminating") or 0) > 0:
        detail = "terminating>0 is invalid for finished job"
        out.append(invalid_value("status.terminating", status["terminating"], detail))
    return out


def _indexes(status: Object, spec: Object, changed: set[str]) -> Problems:
    out: list[FieldError] = []
    completed, failed = status.get("completedIndexes") or "", status.get("failedIndexes")
    completions, per_index = spec.get("completions"), spec.get("backoffLimitPerIndex") is not None
    if "completedIndexes" in changed:
        if completions is not None:
            out += _format("completedIndexes", completed, completions)
        if completed and spec.get("completionMode") != "Indexed":
            detail = "cannot set non-empty completedIndexes when non-indexed completion mode"
            out.append(invalid_value("status.completedIndexes", completed, detail))
    if "failedIndexes" in changed and failed is not None:
        if completions is not None and per_index:
            out += _format("failedIndexes", failed, completions)
        if not per_index:
            detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null"
            out.append(invalid_value("status.failedIndexes", failed, detail))
    if changed & {"completedIndexes", "failedIndexes"} and completions is not None and failed and completed:
        overlap = _overlap(completed, failed, completions)
        if overlap is not None:
            detail = f"failedIndexes and completedIndexes overlap at index: {overlap}"
            out.append(invalid_value("status.failedIndexes", failed, detail))
    return out


def _format(name: str, text: str, completions: int) -> Problems:
    try:
        count_indexes(text, completions)
    except ValueError as e:
        return [invalid_value(f"status.{name}", text, f"error parsing {name}: {e}")]
    return []


def _overlap(completed: str, failed: str, completions: int) -> int | None:
    """The first index that is in both; intervals that cannot be read are told elsewhere."""
    theirs = list(_intervals(failed, completions))
    for low, high in _intervals(completed, completions):
        for other_low, other_high in theirs:
            if low <= other_high and other_low <= high:
                return max(low, other_low)
    return None


def _intervals(text: str, completions: int) -> Iterator[tuple[int, int]]:
    for part in text.split(","):
        try:
            yield _interval(part, completions)
        except ValueError:
            continue


def count_indexes(text: str, completions: int) -> int:
    """How many indexes `0,2-4` names, of a Job with so many completions. Raises ValueError with upstream's words."""
    if not text:
        return 0
    total, last = 0, -1
    for part in text.split(","):
        low, high = _interval(part, completions)
        if low <= last:
            raise ValueError(f"non-increasing order, previous: {last}, current: {low}")
        total += high - low + 1
        last = high
    return total


def _interval(text: str, completions: int) -> tuple[int, int]:
    ends = text.split("-")
    if len(ends) > 2:
        raise ValueError(
            f'the fragment "{text}" violates the requirement that an index interval can have at most two parts '
            "separated by '-'"
        )
    numbers = []
    for end in ends:
        if not end.isascii() or not end.isdecimal():
            raise ValueError(f'cannot convert string to integer for index: "{end}"')
        if int(end) >= completions:
            raise ValueError(f'too large index: "{end}"')
        numbers.append(int(end))
    if len(numbers) == 2 and numbers[0] >= numbers[1]:
        raise ValueError(f"non-increasing order, previous: {numbers[0]}, current: {numbers[1]}")
    return numbers[0], numbers[-1]


def _against_before(new: Object, old: Object) -> Iterator[FieldError]:
    """What has once been said and cannot be taken back."""
    status, before, spec = new.get("status") or {}, old.get("status") or {}, new.get("spec") or {}
    conditions = "status.conditions"
    for type_ in ("Failed", "Complete", "FailureTarget"):
        if condition_true(old, type_) and not condition_true(new, type_):
            yield invalid_value(conditions, OMITTED, f"cannot disable the terminal {type_}=True condition")
    if (status.get("failed") or 0) < (before.get("failed") or 0):
        yield invalid_value("status.failed", status.get("failed") or 0, "cannot decrease the failed counter")
    # An Indexed Job can be scaled down together with its parallelism, and then counts less.
    elastic = spec.get("completionMode") == "Indexed" and spec.get("completions") == spec.get("parallelism")
    if not elastic and (status.get("succeeded") or 0) < (before.get("succeeded") or 0):
        detail = "cannot decrease the succeeded counter"
        yield invalid_value("status.succeeded", status.get("succeeded") or 0, detail)
    completed = status.get("completionTime")
    if completed and before.get("completionTime") and completed != before["completionTime"]:
        yield invalid_value("status.completionTime", completed, "completionTime cannot be mutated")
    started = before.get("startTime")
    if started and started != status.get("startTime") and not spec.get("suspend"):
        yield required("status.startTime", "startTime cannot be removed for unsuspended job")
    if condition_true(old, "SuccessCriteriaMet") and not condition_true(new, "SuccessCriteriaMet"):
        yield invalid_value(conditions, OMITTED, "cannot disable the SuccessCriteriaMet=True condition")
    elif (
        condition_true(old, "Complete")
        and not condition_true(old, "SuccessCriteriaMet")
        and condition_true(new, "SuccessCriteriaMet")
    ):
        detail = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions"
        yield invalid_value(conditions, OMITTED, detail)
