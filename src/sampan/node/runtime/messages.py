"""Runtimes' error messages in the words that Kubernetes' users know (runc's, as containerd shows them)."""

from __future__ import annotations

import re


def from_log(text: str, program: str = "") -> str:
    """What went wrong, out of the log or standard error of crun or runc that was to run `program`."""
    lines = [line for line in text.splitlines() if line.strip()]
    # crun: "2026-01-01T00:00:00.000000Z: message"; runc: `time="..." level=error msg="..."`
    line = lines[-1] if lines else ""
    if found := re.search(r'msg="((?:[^"\\]|\\.)*)"', line):
        line = re.sub(r"\\(.)", r"\1", found[1])
    line = re.sub(r"^\d{4}-\d\d-\d\dT[\d:.]+Z?:? ", "", line)
    line = re.sub(r"^(runc (create|start) failed|exec failed): ", "", line.strip())
    return _in_runcs_words(line, program)


def _in_runcs_words(message: str, program: str) -> str:
    if found := re.search(r"executable file `(.*?)` not found(?: in \$PATH)?(?:: (.*))?$", message):
        name, why = found[1], (found[2] or "No such file or directory").lower()
        if "/" in name:
            what = "stat" if why.startswith("no such") else "exec"
            return f'unable to start container process: exec: "{name}": {what} {name}: {why}'
        return f'unable to start container process: exec: "{name}": executable file not found in $PATH'
    if re.search(r"open executable: (Permission denied|Operation not permitted)$", message):
        return f'unable to start container process: exec: "{program}": permission denied'
    return message
