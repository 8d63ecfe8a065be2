"""Jobs and CronJobs. Upstream: `pkg/registry/batch/*/strategy.go`."""

from __future__ import annotations

from sampan.api.errors import Object
from sampan.api.strategy.types import Strategy, empty_status, spec_changed

JOB_NAME = "batch.kubernetes.io/job-name"
CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
OLD_JOB_NAME = "job-name"
OLD_CONTROLLER_UID = "controller-uid"


def _generate_selector(job: Object) -> None:
    """Give a new Job the selector and labels that no other Job can have, unless its author makes them himself."""
    spec = job.setdefault("spec", {})
    template = spec.get("template")
    if spec.get("manualSelector") or template is None:
        return
    name, uid = job["metadata"].get("name", ""), job["metadata"].get("uid", "")
    meta = template["metadata"] = dict(template.get("metadata") or {})
    meta["labels"] = {
        OLD_JOB_NAME: name,
        JOB_NAME: name,
        OLD_CONTROLLER_UID: uid,
        CONTROLLER_UID: uid,
        **(meta.get("labels") or {}),
    }
    if not job["metadata"].get("labels"):
        job["metadata"]["labels"] = dict(meta["labels"])
    selector = spec["selector"] = dict(spec.get("selector") or {})
    selector["matchLabels"] = {CONTROLLER_UID: uid, **(selector.get("matchLabels") or {})}


def _rename(job: Object, before: str) -> None:
    name = job["metadata"]["name"]
    for labels in (job["metadata"].get("labels"), job["spec"]["template"]["metadata"].get("labels")):
        for key in (JOB_NAME, OLD_JOB_NAME):
            if labels and labels.get(key) == before:
                labels[key] = name


STRATEGIES: dict[str, Strategy] = {
    "jobs.batch": Strategy(
        generation=spec_changed, first_status=empty_status, create=_generate_selector, renamed=_rename
    ),
    "cronjobs.batch": Strategy(generation=spec_changed, first_status=empty_status),
}
