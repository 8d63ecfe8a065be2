"""/debug: what the server is about, for whoever may ask (only members of system:masters by default).

`/debug/api_priority_and_fairness/dump_priority_levels | dump_queues` as upstream's; `/debug/pprof/goroutine` tells of tasks,
which are what goroutines are to us.

Upstream: `k8s.io/apiserver/pkg/util/flowcontrol/apf_controller_debug.go`.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterable, Sequence

from sampan.apiserver.flowcontrol.control import FlowControl
from sampan.transport.types import Request, Response

_FAIRNESS = "/debug/api_priority_and_fairness/"
PATHS = (f"{_FAIRNESS}dump_priority_levels", f"{_FAIRNESS}dump_queues", "/debug/pprof/goroutine")


def handle(flows: FlowControl, request: Request) -> Response | None:
    """Answer a debug path; None for any other."""
    path = request.path
    if not path.startswith("/debug/"):
        return None
    if path == PATHS[0]:
        return _text(_table(("PriorityLevelName", "ActiveQueues", "IsIdle", "IsQuiescing", "WaitingRequests", "ExecutingRequests", "DispatchedRequests", "RejectedRequests"), _levels(flows)))  # fmt: skip
    if path == PATHS[1]:
        return _text(_table(("PriorityLevelName", "Index", "PendingRequests"), _queues(flows)))
    return _text(_tasks()) if path == PATHS[2] else None


def _levels(flows: FlowControl) -> Iterable[Sequence[object]]:
    for name, level in sorted(flows.levels.items()):
        idle = not level.executing and not level.waiting
        yield (
            name,
            sum(1 for length in level.queue_lengths if length),
            str(idle).lower(),
            "false",
            level.waiting,
            level.executing,
            sum(level.counts.dispatched.values()),
            sum(level.counts.rejected.values()),
        )


def _queues(flows: FlowControl) -> Iterable[Sequence[object]]:
    for name, level in sorted(flows.levels.items()):
        for i, length in enumerate(level.queue_lengths):
            yield name, i, length


def _tasks() -> str:
    out = io.StringIO()
    for task in sorted(asyncio.all_tasks(), key=lambda t: t.get_name()):
        task.print_stack(file=out)
    return out.getvalue()


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [", ".join(columns), *(", ".join(map(str, row)) for row in rows)]
    return "\n".join(lines) + "\n"


def _text(text: str) -> Response:
    return Response(200, text.encode(), "text/plain; charset=utf-8")
