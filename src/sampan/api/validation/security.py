"""Security contexts of pods and containers."""

from __future__ import annotations

import re

from sampan.api.errors import (
    FieldError,
    Object,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from sampan.api.validation.values import Problems, descending_path, one_of, within

_MAX_ID = 0xFFFFFFFF
_PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
_SYSCTL = r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_IPC_SYSCTLS = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")


def pod(context: Object | None, spec: Object, path: str) -> Problems:
    """The pod's security context, and what it excludes elsewhere in the spec."""
    out: list[FieldError] = []
    if spec.get("hostUsers") is False:
        for name in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(name):
                out.append(
                    forbidden_field(f"{path.rpartition('.')[0]}.{name}", "when `pod.Spec.HostUsers` is false")
                )
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        detail = "ShareProcessNamespace and HostPID cannot both be enabled"
        out.append(invalid_value(f"{path}.shareProcessNamespace", True, detail))
    if not context:
        return out
    for name in ("fsGroup", "runAsUser", "runAsGroup"):
        out += within(f"{path}.{name}", context.get(name), 0, _MAX_ID)
    for i, group in enumerate(context.get("supplementalGroups") or ()):
        out += within(f"{path}.supplementalGroups[{i}]", group, 0, _MAX_ID)
    out += _sysctls(context.get("sysctls") or [], spec, f"{path}.sysctls")
    out += one_of(f"{path}.fsGroupChangePolicy", context.get("fsGroupChangePolicy"), ("Always", "OnRootMismatch"), absent=True)  # fmt: skip
    out += one_of(f"{path}.supplementalGroupsPolicy", context.get("supplementalGroupsPolicy"), ("Merge", "Strict"), absent=True)  # fmt: skip
    out += one_of(f"{path}.seLinuxChangePolicy", context.get("seLinuxChangePolicy"), ("MountOption", "Recursive"), absent=True)  # fmt: skip
    return out + _profiles(context, path)


def _sysctls(given: list[Object], spec: Object, path: str) -> Problems:
    out: list[FieldError] = []
    seen: set[str] = set()
    for i, sysctl in enumerate(given):
        at = f"{path}[{i}].name"
        name = sysctl.get("name") or ""
        if not name:
            out.append(required(at))
        elif len(name) > 253 or not re.fullmatch(_SYSCTL, name):
            out.append(
                invalid_value(at, name, f"must have at most 253 characters and match regex ^{_SYSCTL}$")
            )
        elif name in seen:
            out.append(duplicate(at, name))
        seen.add(name)
        dotted = name.replace("/", ".")
        if spec.get("hostNetwork") and dotted.startswith("net."):
            out.append(invalid_value(at, name, "may not be specified when 'hostNetwork' is true"))
        elif spec.get("hostIPC") and dotted.startswith(_IPC_SYSCTLS):
            out.append(invalid_value(at, name, "may not be specified when 'hostIPC' is true"))
    return out


def _profiles(context: Object, path: str) -> Problems:
    out: list[FieldError] = []
    for name, word in (("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")):
        profile = context.get(name)
        if profile is None:
            continue
        at = f"{path}.{name}"
        kind, local = profile.get("type"), profile.get("localhostProfile")
        if not kind:
            out.append(required(f"{at}.type", f"type is required when {name} is set"))
        elif kind not in _PROFILES:
            out.append(not_supported(f"{at}.type", kind, _PROFILES))
        if kind == "Localhost":
            if not local:
                out.append(required(f"{at}.localhostProfile", f"must be set when {word} type is Localhost"))
            elif name == "seccompProfile":
                out += descending_path(f"{at}.localhostProfile", local)
        elif local is not None:
            detail = f"can only be set when {word} type is Localhost"
            out.append(invalid_value(f"{at}.localhostProfile", local, detail))
    return out


def container(context: Object | None, path: str, host_users: bool) -> Problems:
    if not context:
        return []
    out: list[FieldError] = []
    for name in ("runAsUser", "runAsGroup"):
        out += within(f"{path}.{name}", context.get(name), 0, _MAX_ID)
    mount = context.get("procMount")
    out += one_of(f"{path}.procMount", mount, ("Default", "Unmasked"), absent=True)
    if host_users and mount == "Unmasked":
        out.append(invalid_value(f"{path}.procMount", mount, "`hostUsers` must be false to use `Unmasked`"))
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            out.append(invalid_value(path, context, detail))
        if "CAP_SYS_ADMIN" in ((context.get("capabilities") or {}).get("add") or ()):
            detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            out.append(invalid_value(path, context, detail))
    return out + _profiles(context, path)
