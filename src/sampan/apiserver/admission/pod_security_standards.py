"""The Pod Security Standards by level and version: which controls `baseline` and `restricted` are made of.

A namespace may pin a version; then the controls are those of that version, as upstream keeps them. A version newer than any
change is the newest. Upstream: `k8s.io/pod-security-admission/policy/registry.go`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

from sampan.api.errors import Object
from sampan.apiserver.admission import pod_security_controls as controls
from sampan.apiserver.admission.pod_security_controls import Annotations, Control, Finding

Level = Literal["privileged", "baseline", "restricted"]
LEVELS: tuple[Level, ...] = ("privileged", "baseline", "restricted")
LATEST = 10_000
"""The minor version that `latest` means: later than every change."""


@dataclass(frozen=True, slots=True)
class _Check:
    """A control under upstream's name, since each minor version in which it changed."""

    id: str
    since: tuple[tuple[int, Control], ...]
    overrides: str = ""
    """The check of `baseline` that is not asked where this one of `restricted` is."""

    def at(self, minor: int) -> Control | None:
        return next((control for first, control in reversed(self.since) if first <= minor), None)


_BASELINE = (
    _Check("appArmorProfile", ((0, controls.app_armor),)),
    _Check("capabilities_baseline", ((0, controls.capabilities_baseline),)),
    _Check("hostNamespaces", ((0, controls.host_namespaces),)),
    _Check("hostPathVolumes", ((0, controls.host_paths),)),
    _Check("hostPorts", ((0, controls.host_ports),)),
    _Check("hostProbesAndHostLifecycle", ((34, controls.probe_hosts),)),
    _Check("privileged", ((0, controls.privileged),)),
    _Check("procMount", ((0, controls.proc_mount), (35, controls.own_users(controls.proc_mount)))),
    _Check("seLinuxOptions", ((0, controls.selinux()), (31, controls.selinux("container_engine_t")))),
    _Check("seccompProfile_baseline", ((0, controls.seccomp_annotations), (19, controls.seccomp_baseline))),
    _Check(
        "sysctls",
        (
            (0, controls.sysctls()),
            (27, controls.sysctls(controls.SYSCTLS_27)),
            (29, controls.sysctls(controls.SYSCTLS_27, controls.SYSCTLS_29)),
            (32, controls.sysctls(controls.SYSCTLS_27, controls.SYSCTLS_29, controls.SYSCTLS_32)),
        ),
    ),
    _Check("windowsHostProcess", ((0, controls.host_process),)),
)
_RESTRICTED = (
    _Check(
        "allowPrivilegeEscalation",
        ((8, controls.privilege_escalation), (25, controls.not_windows(controls.privilege_escalation))),
    ),
    _Check(
        "capabilities_restricted",
        (
            (22, controls.capabilities_restricted),
            (25, controls.not_windows(controls.capabilities_restricted)),
        ),
        overrides="capabilities_baseline",
    ),
    _Check("procMount_restricted", ((35, controls.proc_mount),), overrides="procMount"),
    _Check("restrictedVolumes", ((0, controls.restricted_volumes),), overrides="hostPathVolumes"),
    _Check("runAsNonRoot", ((0, controls.non_root), (35, controls.own_users(controls.non_root)))),
    _Check("runAsUser", ((23, controls.root_user), (35, controls.own_users(controls.root_user)))),
    _Check(
        "seccompProfile_restricted",
        ((19, controls.seccomp_restricted), (25, controls.not_windows(controls.seccomp_restricted))),
        overrides="seccompProfile_baseline",
    ),
)


_NEWEST = max(first for check in (*_BASELINE, *_RESTRICTED) for first, _ in check.since)


@functools.cache
def _controls(level: Level, minor: int) -> tuple[Control, ...]:
    """The controls of a level at a version, in the order in which upstream lists what they find."""
    if level == "privileged":
        return ()
    restricted = [c for c in _RESTRICTED if c.at(minor)] if level == "restricted" else []
    overridden = {c.overrides for c in restricted}
    checks = [*(c for c in _BASELINE if c.id not in overridden), *restricted]
    return tuple(control for c in checks if (control := c.at(minor)) is not None)


def violations(level: Level, annotations: Annotations, spec: Object, minor: int = LATEST) -> list[Finding]:
    """All that `level` forbids in a pod at version 1.`minor`."""
    # Beyond the newest change all versions are one: a label cannot make the cache grow.
    found = (control(annotations, spec) for control in _controls(level, min(minor, _NEWEST)))
    return [f for f in found if f is not None]
