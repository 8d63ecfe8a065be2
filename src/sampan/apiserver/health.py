"""/healthz, /livez and /readyz, each a list of named checks.

Upstream: `k8s.io/apiserver/pkg/server/healthz`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sampan.transport.types import Request, Response

Check = Callable[[], str]
"""Answers "" when all is well, else what is wrong."""


class Health:
    """The checks of a server by name; `readiness` are those that only /readyz asks."""

    def __init__(self, checks: Mapping[str, Check], readiness: Mapping[str, Check]) -> None:
        self._checks = dict(checks)
        self._readiness = dict(readiness)

    def handle(self, request: Request) -> Response | None:
        """The answer to a health path, None for any other path."""
        endpoint, _, rest = request.path.strip("/").partition("/")
        if endpoint not in ("healthz", "livez", "readyz"):
            return None
        checks = {**self._checks, **self._readiness} if endpoint == "readyz" else self._checks
        if rest:
            if rest not in checks:
                return None
            return self._answer(endpoint, {rest: checks[rest]}, (), False)
        excluded = request.params.get("exclude", [])
        return self._answer(endpoint, checks, excluded, "verbose" in request.params)

    def _answer(
        self, endpoint: str, checks: Mapping[str, Check], excluded: Sequence[str], verbose: bool
    ) -> Response:
        lines = []
        failed = False
        for name, check in checks.items():
            if name in excluded:
                lines.append(f"[+]{name} excluded: ok")
            elif why := check():
                failed = True
                lines.append(f"[-]{name} failed: {why}")
            else:
                lines.append(f"[+]{name} ok")
        if failed:
            text = "\n".join([*lines, f"{endpoint} check failed"]) + "\n"
        else:
            text = "\n".join([*lines, f"{endpoint} check passed"]) + "\n" if verbose else "ok"
        return Response(500 if failed else 200, text.encode(), "text/plain; charset=utf-8")
