"""Programs of this machine that tests use, and whether they will do."""

from __future__ import annotations

import functools
import json
import re
import subprocess
from shutil import which

OLDEST_KUBECTL = (1, 31)
"""The first that streams over WebSocket; Debian 12's, for one, is 1.20."""


@functools.cache
def kubectl_problem() -> str:
    """Why tests with kubectl cannot run here, or ""."""
    if not which("kubectl"):
        return "kubectl is not installed"
    command = ["kubectl", "version", "--client", "--output=json"]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    try:
        version = json.loads(shown)["clientVersion"]
        numbers = int(version["major"]), int(re.sub(r"\D", "", version["minor"]))
    except (ValueError, KeyError, TypeError):
        return "kubectl does not tell its version"
    if numbers < OLDEST_KUBECTL:
        return f"kubectl {version['gitVersion']} is too old: {OLDEST_KUBECTL[0]}.{OLDEST_KUBECTL[1]} or newer is needed"
    return ""


if __name__ == "__main__":
    if problem := kubectl_problem():
        print(
            f"test: {problem}. Tests with it are skipped; https://kubernetes.io/docs/tasks/tools/ says how to get it"
        )
