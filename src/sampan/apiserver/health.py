"""/healthz, /livez and /readyz, each a list of named checks.

Upstream: `k8s.io/apiserver/pkg/server/healthz`. The names are upstream's, of what there is here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from sampan.api.errors import show
from sampan.transport.types import Request, Response

log = logging.getLogger(__name__)

Check = Callable[[], str]
"""Answers "" when all is well, else what is wrong."""

STARTED = (
    "start-system-namespaces-controller",
    "start-service-ip-repair-controllers",
    "start-legacy-token-tracking-controller",
    "rbac/bootstrap-roles",
    "scheduling/bootstrap-system-priority-classes",
    "priority-and-fairness-config-producer",
    "priority-and-fairness-config-consumer",
    "bootstrap-controller",
)
"""What a server does once before it is healthy, as checks `poststarthook/...`."""

_HEADERS = (("X-Content-Type-Options", "nosniff"),)
_TEXT = "text/plain; charset=utf-8"


class Health:
    """The checks of a server by name; `readiness` are those that only /readyz asks."""

    def __init__(self, checks: Mapping[str, Check], readiness: Mapping[str, Check]) -> None:
        self._checks = dict(checks)
        self._readiness = dict(readiness)

    def handle(self, request: Request) -> Response | None:
        """The answer to a health path, None for any other path."""
        endpoint, _, name = request.path.strip("/").partition("/")
        if endpoint not in ("healthz", "livez", "readyz"):
            return None
        checks = {**self._checks, **self._readiness} if endpoint == "readyz" else self._checks
        if name:
            return _one(name, checks[name]) if name in checks else None
        return _all(endpoint, checks, set(request.params.get("exclude", ())), "verbose" in request.params)


def _one(name: str, check: Check) -> Response:
    if why := check():
        log.info("check %s failed: %s", name, why)
        return Response(500, f"internal server error: {why}\n".encode(), _TEXT, _HEADERS)
    return Response(200, b"ok", _TEXT, _HEADERS)


def _all(endpoint: str, checks: Mapping[str, Check], excluded: set[str], verbose: bool) -> Response:
    lines = []
    failed = []
    for name, check in checks.items():
        if name in excluded:
            lines.append(f"[+]{name} excluded: ok")
        elif why := check():
            failed.append(f"{name}: {why}")
            # Anybody may ask here, and what is wrong is not for anybody.
            lines.append(f"[-]{name} failed: reason withheld")
        else:
            lines.append(f"[+]{name} ok")
    if unknown := sorted(excluded - set(checks)):
        named = ",".join(map(show, unknown))
        lines.append(f"warn: some health checks cannot be excluded: no matches for {named}")
    if failed:
        log.info("%s check failed: %s", endpoint, "; ".join(failed))
        lines.append(f"{endpoint} check failed")
        return Response(500, ("\n".join(lines) + "\n").encode(), _TEXT, _HEADERS)
    lines.append(f"{endpoint} check passed")
    return Response(200, ("\n".join(lines) + "\n").encode() if verbose else b"ok", _TEXT, _HEADERS)
