"""Tables of Jobs and CronJobs."""

from __future__ import annotations

from typing import Any

from sampan.api import selectors
from sampan.api.errors import Object
from sampan.api.objects import condition_true, parse_time
from sampan.api.tables.cells import (
    AGE,
    NAME,
    NONE,
    Column,
    age,
    human_duration,
    integer,
    name,
    section,
    since,
)
from sampan.api.tables.workloads import TEMPLATE_COLUMNS, containers_cells, template_cells

JOB_COLUMNS = (
    NAME,
    Column("Status", description="Whether it runs, is over, or waits."),
    Column("Completions", description="How many pods succeeded of those wanted."),
    Column("Duration", description="How long it has run, or ran."),
    AGE,
    *TEMPLATE_COLUMNS,
)


def job_row(job: Object, now: float) -> list[Any]:
    spec = section(job, "spec")
    return [
        name(job),
        _status(job),
        _completions(job),
        _duration(job, now),
        age(job, now),
        *template_cells(spec),
    ]


def _status(job: Object) -> str:
    for type_ in ("Complete", "Failed"):
        if condition_true(job, type_):
            return type_
    if job["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for type_ in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if condition_true(job, type_):
            return type_
    return "Running"


def _completions(job: Object) -> str:
    spec, done = section(job, "spec"), section(job, "status").get("succeeded") or 0
    if spec.get("completions") is not None:
        return f"{done}/{spec['completions']}"
    parallelism = spec.get("parallelism") or 0
    return f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"


def _duration(job: Object, now: float) -> str:
    status = section(job, "status")
    if not status.get("startTime"):
        return ""
    end = parse_time(status["completionTime"]) if status.get("completionTime") else now
    return human_duration(end - parse_time(status["startTime"]))


CRONJOB_COLUMNS = (
    NAME,
    Column("Schedule", description="When it starts a Job, in Cron format."),
    Column("Timezone", description="Whose clock that is."),
    Column("Suspend", description="Whether it starts no more Jobs."),
    integer("Active", "How many of its Jobs run."),
    Column("Last Schedule", description="Time since it last started a Job."),
    AGE,
    *TEMPLATE_COLUMNS,
)


def cronjob_row(cronjob: Object, now: float) -> list[Any]:
    spec, status = section(cronjob, "spec"), section(cronjob, "status")
    job = (spec.get("jobTemplate") or {}).get("spec") or {}
    last = status.get("lastScheduleTime")
    return [
        name(cronjob),
        spec.get("schedule") or "",
        spec.get("timeZone") or NONE,
        {True: "True", False: "False", None: "<unset>"}[spec.get("suspend")],
        len(status.get("active") or ()),
        since(last, now) if last else NONE,
        age(cronjob, now),
        *containers_cells(job.get("template")),
        str(selectors.from_object(job.get("selector") or {})) or NONE,
    ]
