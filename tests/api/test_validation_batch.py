"""The rules of Jobs and CronJobs: one change to a good object and what upstream says about it."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.api import strategy, validation
from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.resources import CRONJOBS, JOBS, Resource
from tests.api.test_validation import changed, problems, ready

POD: Object = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]}


def job(**spec: object) -> Object:
    return {"metadata": {"name": "j", "uid": "u-1"}, "spec": {"template": {"spec": deep_copy(POD)}, **spec}}


def indexed(**spec: object) -> Object:
    return job(completionMode="Indexed", **{"completions": 5, **spec})


def cron_job(**spec: object) -> Object:
    made: Object = {"spec": {"template": {"spec": deep_copy(POD)}}}
    return {"metadata": {"name": "c"}, "spec": {"schedule": "*/5 * * * *", "jobTemplate": made, **spec}}


RULES = "spec/podFailurePolicy"
R = "spec.podFailurePolicy.rules[0]"
CODES: Object = {"operator": "In", "values": [1, 2]}


def failing(**rule: object) -> Object:
    return {"rules": [{"action": "FailJob", "onExitCodes": CODES, **rule}]}


CASES: list[tuple[Resource, Object, str, object, str]] = [
    (JOBS, job(), "spec/parallelism", -1, "spec.parallelism: Invalid value: -1: must be greater than or equal to 0"),
    (JOBS, job(), "spec/completions", -1, "spec.completions: Invalid value: -1: must be greater than or equal to 0"),
    (JOBS, job(), "spec/backoffLimit", -1, "spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0"),
    (JOBS, job(), "spec/ttlSecondsAfterFinished", -1, "spec.ttlSecondsAfterFinished: Invalid value: -1: must be"),
    (JOBS, job(), "spec/activeDeadlineSeconds", -1, "spec.activeDeadlineSeconds: Invalid value: -1: must be"),
    (JOBS, job(), "spec/template/spec/restartPolicy", "~", 'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'),
    (JOBS, job(), "spec/template/spec/restartPolicy", "Always", 'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'),
    (JOBS, job(), "spec/completionMode", "Sorted", 'spec.completionMode: Unsupported value: "Sorted": supported values: "NonIndexed", "Indexed"'),
    (JOBS, job(parallelism=2), "spec/completionMode", "Indexed", "spec.completions: Required value: when completion mode is Indexed"),
    (JOBS, job(), "spec/backoffLimitPerIndex", 1, "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"),
    (JOBS, indexed(), "spec/maxFailedIndexes", 1, "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified"),
    (JOBS, indexed(), "spec/parallelism", 100001, "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed"),
    (JOBS, indexed(backoffLimitPerIndex=1), "spec/maxFailedIndexes", 6, "spec.maxFailedIndexes: Invalid value: 6: must be less than or equal to completions"),
    (JOBS, indexed(backoffLimitPerIndex=1), "spec/completions", 100001, "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000"),
    (JOBS, indexed(), "metadata/name", "j" * 62, f"metadata.name: Invalid value: \"{'j' * 62}\": will not able to create pod with invalid DNS label: {'j' * 62}-4"),
    (JOBS, job(), "spec/managedBy", "me", 'spec.managedBy: Invalid value: "me": must be a domain-prefixed path (such as "acme.io/foo")'),
    (JOBS, job(), "spec/managedBy", "a.io/" + "x" * 60, "spec.managedBy: Too long: may not be more than 63 bytes"),
    (JOBS, job(), "spec/podReplacementPolicy", "Never", 'spec.podReplacementPolicy: Unsupported value: "Never": supported values: "Failed", "TerminatingOrFailed"'),
    (JOBS, job(podFailurePolicy=failing()), "spec/podReplacementPolicy", "TerminatingOrFailed",
     'spec.podReplacementPolicy: Unsupported value: "TerminatingOrFailed": supported values: "Failed"'),
    (JOBS, job(podFailurePolicy=failing()), "spec/template/spec/restartPolicy", "OnFailure",
     'spec.template.spec.restartPolicy: Invalid value: "OnFailure": only "Never" is supported when podFailurePolicy is specified'),
    (JOBS, job(), RULES, failing(action="Stop"), R + '.action: Unsupported value: "Stop": supported values: "Count", "FailIndex", "FailJob", "Ignore"'),
    (JOBS, job(), RULES, failing(action=""), R + '.action: Required value: valid values: ["Count" "FailIndex" "FailJob" "Ignore"]'),
    (JOBS, job(), RULES, failing(action="FailIndex"), R + '.action: Invalid value: "FailIndex": requires the backoffLimitPerIndex to be set'),
    (JOBS, job(), RULES, {"rules": [{"action": "Ignore"}]}, R + ": Invalid value: specifying one of OnExitCodes and OnPodConditions is required"),
    (JOBS, job(), RULES, failing(onPodConditions=[{"type": "A"}]), R + ": Invalid value: specifying both OnExitCodes and OnPodConditions is not supported"),
    (JOBS, job(), RULES, {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "A", "status": "Maybe"}]}]},
     R + '.onPodConditions[0].status: Unsupported value: "Maybe": supported values: "False", "True", "Unknown"'),
    (JOBS, job(), RULES, failing(onExitCodes={"operator": "In", "values": [0, 1]}), R + ".onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator"),
    (JOBS, job(), RULES, failing(onExitCodes={"operator": "In", "values": [2, 1]}), R + ".onExitCodes.values: Invalid value: [2,1]: must be ordered"),
    (JOBS, job(), RULES, failing(onExitCodes={"operator": "In", "values": [1, 1]}), R + ".onExitCodes.values[1]: Duplicate value: 1"),
    (JOBS, job(), RULES, failing(onExitCodes={"operator": "In", "values": []}), R + ".onExitCodes.values: Invalid value: []: at least one value is required"),
    (JOBS, job(), RULES, failing(onExitCodes={**CODES, "containerName": "x"}),
     R + '.onExitCodes.containerName: Invalid value: "x": must be one of the container or initContainer names in the pod template'),
    (JOBS, job(), RULES, {"rules": [failing()["rules"][0]] * 21}, "spec.podFailurePolicy.rules: Too many: 21: must have at most 20 items"),
    (JOBS, job(), "spec/successPolicy", {"rules": [{"succeededCount": 1}]}, "spec.successPolicy: Invalid value: "),
    (JOBS, indexed(), "spec/successPolicy", {"rules": []}, "spec.successPolicy.rules: Required value: at least one rules must be specified when the successPolicy is specified"),
    (JOBS, indexed(), "spec/successPolicy", {"rules": [{}]}, "spec.successPolicy.rules[0]: Required value: at least one of succeededCount or succeededIndexes must be specified"),
    (JOBS, indexed(), "spec/successPolicy", {"rules": [{"succeededIndexes": "0,5"}]},
     'spec.successPolicy.rules[0].succeededIndexes: Invalid value: "0,5": error parsing succeededIndexes: too large index: "5"'),
    (JOBS, indexed(), "spec/successPolicy", {"rules": [{"succeededIndexes": "3,1"}]}, "error parsing succeededIndexes: non-increasing order, previous: 3, current: 1"),
    (JOBS, indexed(), "spec/successPolicy", {"rules": [{"succeededCount": 6}]}, "succeededCount: Invalid value: 6: must be less than or equal to 5 (the number of specified completions)"),
    (JOBS, indexed(), "spec/successPolicy", {"rules": [{"succeededIndexes": "0-1", "succeededCount": 3}]},
     "succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of indexes in the specified succeededIndexes field)"),
    (JOBS, job(), "spec/selector", {"matchLabels": {"x": "y"}}, "`selector` not auto-generated"),
    (JOBS, job(), "spec/template/metadata", {"labels": {"job-name": "other"}}, "spec.template.metadata.labels[job-name]: Invalid value: "),
    (JOBS, job(manualSelector=True), "spec/parallelism", 1, "spec.selector: Required value"),
    (JOBS, job(manualSelector=True), "spec/selector", {"matchLabels": {"x": "y"}}, "spec.template.metadata.labels: Invalid value: {}: `selector` does not match template `labels`"),
    (CRONJOBS, cron_job(), "spec/schedule", "~", "spec.schedule: Required value"),
    (CRONJOBS, cron_job(), "spec/schedule", "every hour", 'spec.schedule: Invalid value: "every hour": expected exactly 5 fields, found 2: [every hour]'),
    (CRONJOBS, cron_job(), "spec/schedule", "TZ=UTC 0 * * * *", "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"),
    (CRONJOBS, cron_job(), "spec/timeZone", "Mars/Base", 'spec.timeZone: Invalid value: "Mars/Base": unknown time zone Mars/Base'),
    (CRONJOBS, cron_job(), "spec/timeZone", "../UTC", 'spec.timeZone: Invalid value: "../UTC": unknown time zone ../UTC'),
    (CRONJOBS, cron_job(), "spec/timeZone", "", 'spec.timeZone: Invalid value: "": timeZone must be nil or non-empty string'),
    (CRONJOBS, cron_job(), "spec/timeZone", "Local", "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"),
    (CRONJOBS, cron_job(), "spec/concurrencyPolicy", "Sometimes",
     'spec.concurrencyPolicy: Unsupported value: "Sometimes": supported values: "Allow", "Forbid", "Replace"'),
    (CRONJOBS, cron_job(), "spec/startingDeadlineSeconds", -1, "spec.startingDeadlineSeconds: Invalid value: -1: must be"),
    (CRONJOBS, cron_job(), "spec/failedJobsHistoryLimit", -1, "spec.failedJobsHistoryLimit: Invalid value: -1: must be"),
    (CRONJOBS, cron_job(), "metadata/name", "c" * 53, "must be no more than 52 characters"),
    (CRONJOBS, cron_job(), "spec/jobTemplate/spec/selector", {"matchLabels": {}}, "spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{}}: `selector` will be auto-generated"),
    (CRONJOBS, cron_job(), "spec/jobTemplate/spec/manualSelector", True, 'spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: "nil", "false"'),
    (CRONJOBS, cron_job(), "spec/jobTemplate/spec/template/spec/restartPolicy", "~", "spec.jobTemplate.spec.template.spec.restartPolicy: Required value"),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "obj", "path", "value", "text"), CASES)
def test_one_thing_wrong(resource: Resource, obj: Object, path: str, value: object, text: str) -> None:
    found = problems(resource, changed(obj, path, value))
    assert any(text in p for p in found), found


@pytest.mark.parametrize(
    ("resource", "obj"),
    [
        (JOBS, job()),
        (JOBS, job(podFailurePolicy=failing(action="Count"))),
        (JOBS, indexed(backoffLimitPerIndex=0, podFailurePolicy=failing(action="FailIndex"))),
        (JOBS, indexed(successPolicy={"rules": [{"succeededIndexes": "0-2,4", "succeededCount": 4}]})),
        (JOBS, job(managedBy="kueue.x-k8s.io/multikueue")),
        (CRONJOBS, cron_job(timeZone="Europe/Berlin", schedule="@daily")),
    ],
)
def test_good(resource: Resource, obj: Object) -> None:
    assert problems(resource, obj) == []


def test_defaults_of_a_job() -> None:
    made = ready(JOBS, job())
    spec = made["spec"]
    labels = {"job-name": "j", "batch.kubernetes.io/job-name": "j", "controller-uid": "u-1",
              "batch.kubernetes.io/controller-uid": "u-1"}  # fmt: skip
    assert spec["selector"] == {"matchLabels": {"batch.kubernetes.io/controller-uid": "u-1"}}
    assert spec["template"]["metadata"]["labels"] == made["metadata"]["labels"] == labels
    chosen = (
        "completions",
        "parallelism",
        "backoffLimit",
        "completionMode",
        "suspend",
        "podReplacementPolicy",
    )
    assert [spec[n] for n in chosen] == [1, 1, 6, "NonIndexed", False, "TerminatingOrFailed"]
    assert made["status"] == {}
    assert made["metadata"]["generation"] == 1
    assert ready(JOBS, job(parallelism=2))["spec"].get("completions") is None
    assert ready(JOBS, indexed(backoffLimitPerIndex=1))["spec"]["backoffLimit"] == 0x7FFFFFFF
    policy = {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}
    spec = ready(JOBS, job(podFailurePolicy=policy))["spec"]
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["podFailurePolicy"]["rules"][0]["onPodConditions"][0]["status"] == "True"
    labelled = changed(job(), "spec/template/metadata", {"labels": {"app": "x"}})
    assert ready(JOBS, labelled)["metadata"]["labels"] == {"app": "x"}


def test_defaults_of_a_cron_job() -> None:
    spec = ready(CRONJOBS, cron_job())["spec"]
    chosen = ("concurrencyPolicy", "suspend", "successfulJobsHistoryLimit", "failedJobsHistoryLimit")
    assert [spec[n] for n in chosen] == ["Allow", False, 3, 1]
    made = spec["jobTemplate"]["spec"]
    assert made.keys() == {"template"}
    assert made["template"]["spec"]["dnsPolicy"] == "ClusterFirst"


T = "spec/template/"
RESOURCES = {"requests": {"cpu": "1"}}
UPDATES: list[tuple[Resource, Object, str, object, str]] = [
    (JOBS, job(), "spec/parallelism", 3, ""),
    (JOBS, job(), "spec/suspend", True, ""),
    (JOBS, job(), "spec/ttlSecondsAfterFinished", 3, ""),
    (JOBS, job(), "spec/completions", 3, "spec.completions: Invalid value: 3: field is immutable"),
    (JOBS, indexed(), "spec/completions", 3, "spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism"),
    (JOBS, indexed(parallelism=3), "spec/completions", 3, ""),
    (JOBS, job(), "spec/completionMode", "Indexed", 'spec.completionMode: Invalid value: "Indexed": field is immutable'),
    (JOBS, job(), "spec/managedBy", "a.io/b", 'spec.managedBy: Invalid value: "a.io/b": field is immutable'),
    (JOBS, job(), T + "spec/containers/0/image", "other", "spec.template: Invalid value: "),
    (JOBS, job(), T + "spec/nodeSelector", {"a": "b"}, "spec.template: Invalid value: "),
    (JOBS, job(suspend=True), T + "spec/nodeSelector", {"a": "b"}, ""),
    (JOBS, job(suspend=True), T + "spec/tolerations", [{"operator": "Exists"}], ""),
    (JOBS, job(suspend=True), T + "spec/schedulingGates", [{"name": "a.io/b"}], ""),
    (JOBS, job(suspend=True), T + "metadata/labels/x", "y", ""),
    (JOBS, job(suspend=True), T + "spec/affinity", {"nodeAffinity": {}}, ""),
    (JOBS, job(suspend=True), T + "spec/affinity", {"podAffinity": {}}, "spec.template: Invalid value: "),
    (JOBS, job(suspend=True), T + "spec/containers/0/resources", RESOURCES, ""),
    (JOBS, job(suspend=True), T + "spec/containers/0/image", "other", "spec.template: Invalid value: "),
    (CRONJOBS, cron_job(), "spec/schedule", "TZ=UTC 0 * * * *", "cannot use TZ or CRON_TZ in schedule"),
    (CRONJOBS, cron_job(), "spec/suspend", True, ""),
    (CRONJOBS, cron_job(), "spec/jobTemplate/spec/template/spec/containers/0/image", "other", ""),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "obj", "path", "value", "text"), UPDATES)
def test_updates(resource: Resource, obj: Object, path: str, value: object, text: str) -> None:
    old = ready(resource, obj)
    assert validation.update(resource, deep_copy(old), old) == []
    new = changed(old, path, value)
    strategy.prepare_update(resource, new, old)
    found = [str(p) for p in validation.update(resource, new, old)]
    assert found == [] if not text else any(text in p for p in found), found


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        ({"active": 1, "startTime": "2026-01-01T00:00:00Z"}, False),
        ({"startTime": "2026-01-01T00:00:00Z"}, False),
        (
            {"startTime": "2026-01-01T00:00:00Z", "conditions": [{"type": "Suspended", "status": "True"}]},
            True,
        ),
    ],
)
def test_a_template_stands_while_pods_may_run(status: Object, changes: bool) -> None:
    old = {**ready(JOBS, job(suspend=True)), "status": status}
    new = changed(old, T + "spec/containers/0/resources", RESOURCES)
    found = [str(p) for p in validation.update(JOBS, new, old)]
    assert found == [] if changes else found[0].endswith("field is immutable")


def true(*types: str) -> list[Any]:
    return [{"type": t, "status": "True"} for t in types]


START, END = "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"
DONE: Object = {
    "conditions": true("SuccessCriteriaMet", "Complete"),
    "startTime": START,
    "completionTime": END,
    "succeeded": 1,
}
FAILED: Object = {"conditions": true("FailureTarget", "Failed"), "startTime": START, "failed": 1}
STATUS_CASES: list[tuple[Object, Object, Object, str]] = [
    (job(), {}, DONE, ""),
    (job(), {}, FAILED, ""),
    (job(), {}, {"active": -1}, "status.active: Invalid value: -1: must be greater than or equal to 0"),
    (job(), {}, {"active": 1, "ready": 2}, "status.ready: Invalid value: 2: cannot set more ready pods than active"),
    (job(), {}, {**DONE, "conditions": true("Complete")}, "status.conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition"),
    (job(), {}, {**FAILED, "conditions": true("Failed")}, "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition"),
    (job(), {}, {**DONE, "conditions": true("SuccessCriteriaMet", "Complete", "FailureTarget")},
     "status.conditions: Invalid value: cannot set Complete=True and FailureTarget=true conditions"),
    (job(), {}, {**DONE, "active": 1}, "status.active: Invalid value: 1: active>0 is invalid for finished job"),
    (job(), {}, {**DONE, "terminating": 1}, "status.terminating: Invalid value: 1: terminating>0 is invalid for finished job"),
    (job(), {}, {**FAILED, "startTime": None}, "status.startTime: Required value: startTime is required for finished job"),
    (job(), {}, {**DONE, "completionTime": None}, "status.completionTime: Required value: completionTime is required for Complete jobs"),
    (job(), {}, {"startTime": START, "completionTime": END}, "cannot set completionTime when there is no Complete=True condition"),
    (job(), {}, {**DONE, "startTime": END, "completionTime": START}, "completionTime cannot be set before startTime"),
    (job(), {}, {**DONE, "uncountedTerminatedPods": {"failed": ["u"]}}, "uncountedTerminatedPods needs to be empty for finished job"),
    (job(), {}, {"uncountedTerminatedPods": {"failed": ["u"], "succeeded": ["u"]}}, 'status.uncountedTerminatedPods.failed[0]: Duplicate value: "u"'),
    (job(), {}, {"completedIndexes": "0"}, "cannot set non-empty completedIndexes when non-indexed completion mode"),
    (job(), {}, {"failedIndexes": "0"}, "cannot set non-null failedIndexes when backoffLimitPerIndex is null"),
    (indexed(), {}, {"completedIndexes": "0-1-2"}, "error parsing completedIndexes: the fragment \"0-1-2\" violates the requirement"),
    (indexed(backoffLimitPerIndex=1), {}, {"completedIndexes": "0-2", "failedIndexes": "2-4"}, "failedIndexes and completedIndexes overlap at index: 2"),
    (job(), DONE, {**DONE, "conditions": true("SuccessCriteriaMet"), "completionTime": None}, "cannot disable the terminal Complete=True condition"),
    (job(), DONE, {**DONE, "completionTime": "2026-01-01T02:00:00Z"}, "completionTime cannot be mutated"),
    (job(), DONE, {**DONE, "succeeded": 0}, "status.succeeded: Invalid value: 0: cannot decrease the succeeded counter"),
    (job(), FAILED, {**FAILED, "failed": 0}, "status.failed: Invalid value: 0: cannot decrease the failed counter"),
    (job(), {"startTime": START}, {}, "status.startTime: Required value: startTime cannot be removed for unsuspended job"),
    (job(suspend=True), {"startTime": START}, {}, ""),
    (indexed(successPolicy={"rules": [{"succeededCount": 1}]}), {}, {**DONE, "conditions": true("Complete")},
     "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True"),
]  # fmt: skip


@pytest.mark.parametrize(("obj", "before", "status", "text"), STATUS_CASES)
def test_status(obj: Object, before: Object, status: Object, text: str) -> None:
    old = {**ready(JOBS, obj), "status": before}
    new = {**deep_copy(old), "status": status}
    strategy.prepare_update(JOBS, new, old, "status")
    found = [str(p) for p in validation.update(JOBS, new, old, "status")]
    assert found == [] if not text else any(text in p for p in found), found
