"""The controls of the Pod Security Standards: what each forbids a pod.

A control looks at a pod's annotations and spec and says, in upstream's words, what it found, or None. Which of them belong
to which level of which version says `pod_security_standards`. Upstream: `k8s.io/pod-security-admission/policy`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sampan.api.errors import Object

Annotations = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Finding:
    reason: str
    detail: str

    def __str__(self) -> str:
        return f"{self.reason} ({self.detail})"


Control = Callable[[Annotations, Object], Finding | None]


def containers(spec: Object) -> Iterator[Object]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(kind) or ()


# ---- words


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(json.dumps(w, ensure_ascii=False) for w in words)


def _plural(word: str, items: Sequence[str] | set[str], plural: str = "") -> str:
    return word if len(items) == 1 else plural or f"{word}s"


def _named(names: Sequence[str]) -> str:
    return f"{_plural('container', names)} {_quoted(names)}"


def _security(holder: Object) -> Object:
    return holder.get("securityContext") or {}


def _setters(spec: Object, bad: Callable[[Object], bool]) -> str:
    """Who has a bad security context: `pod and container "a"`, or ""."""
    found = ["pod"] if bad(_security(spec)) else []
    names = [c["name"] for c in containers(spec) if bad(_security(c))]
    if names:
        found.append(_named(names))
    return " and ".join(found)


# ---- baseline

_PROFILES = ("RuntimeDefault", "Localhost")
_APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/"
_ADDABLE = frozenset((
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE",
    "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
))  # fmt: skip
_SYSCTLS = frozenset((
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
))  # fmt: skip
SYSCTLS_27 = frozenset(("net.ipv4.ip_local_reserved_ports",))
SYSCTLS_29 = frozenset((
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
))  # fmt: skip
SYSCTLS_32 = frozenset(("net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"))
"""What v1.27, v1.29 and v1.32 found to be safe as well."""
_SELINUX_TYPES = ("", "container_t", "container_init_t", "container_kvm_t")


def app_armor(annotations: Annotations, spec: Object) -> Finding | None:
    bad: list[str] = []

    def custom(context: Object) -> bool:
        kind = (context.get("appArmorProfile") or {}).get("type")
        return kind is not None and kind not in _PROFILES

    setters = _setters(spec, custom)
    if setters:
        kinds = {
            str((_security(h).get("appArmorProfile") or {})["type"])
            for h in (spec, *containers(spec))
            if custom(_security(h))
        }
        bad.append(f"{setters} must not set AppArmor profile type to {_quoted(sorted(kinds))}")
    found = sorted(
        f"{k}={json.dumps(v)}"
        for k, v in annotations.items()
        if k.startswith(_APP_ARMOR) and v not in ("", "runtime/default") and not v.startswith("localhost/")
    )
    if found:
        bad.append(f"{_plural('annotation', found)} {', '.join(found)}")
    if not bad:
        return None
    return Finding(_plural("forbidden AppArmor profile", bad), "; ".join(bad))


def capabilities_baseline(annotations: Annotations, spec: Object) -> Finding | None:
    return _added(spec, _ADDABLE, "non-default capabilities")


def _added(spec: Object, allowed: frozenset[str], reason: str) -> Finding | None:
    names: list[str] = []
    added: set[str] = set()
    for container in containers(spec):
        bad = set((_security(container).get("capabilities") or {}).get("add") or ()) - allowed
        if bad:
            names.append(container["name"])
            added |= bad
    if not names:
        return None
    why = f"{_named(names)} must not include {_quoted(sorted(added))} in securityContext.capabilities.add"
    return Finding(reason, why)


def host_namespaces(annotations: Annotations, spec: Object) -> Finding | None:
    used = [f"{f}=true" for f in ("hostNetwork", "hostPID", "hostIPC") if spec.get(f)]
    return Finding("host namespaces", ", ".join(used)) if used else None


def host_paths(annotations: Annotations, spec: Object) -> Finding | None:
    names = [v["name"] for v in spec.get("volumes") or () if v.get("hostPath") is not None]
    return Finding("hostPath volumes", f"{_plural('volume', names)} {_quoted(names)}") if names else None


def host_ports(annotations: Annotations, spec: Object) -> Finding | None:
    names: list[str] = []
    ports: set[str] = set()
    for container in containers(spec):
        used = {str(p["hostPort"]) for p in container.get("ports") or () if p.get("hostPort")}
        if used:
            names.append(container["name"])
            ports |= used
    if not names:
        return None
    verb = _plural("uses", names, "use")
    listed = ", ".join(sorted(ports))
    return Finding("hostPort", f"{_named(names)} {verb} {_plural('hostPort', ports)} {listed}")


def probe_hosts(annotations: Annotations, spec: Object) -> Finding | None:
    names: list[str] = []
    hosts: set[str] = set()
    for container in containers(spec):
        used = set(_handler_hosts(container))
        if used:
            names.append(container["name"])
            hosts |= used
    if not names:
        return None
    verb = _plural("uses", names, "use")
    what = f"{_named(names)} {verb} {_plural('host', hosts)} {_quoted(sorted(hosts))}"
    return Finding("probe or lifecycle host", what)


def _handler_hosts(container: Object) -> Iterator[str]:
    lifecycle = container.get("lifecycle") or {}
    handlers = [container.get(p) for p in ("livenessProbe", "readinessProbe", "startupProbe")]
    handlers += [lifecycle.get(h) for h in ("postStart", "preStop")]
    for handler in handlers:
        for action in ("httpGet", "tcpSocket"):
            host = ((handler or {}).get(action) or {}).get("host")
            if host:
                yield str(host)


def privileged(annotations: Annotations, spec: Object) -> Finding | None:
    names = [c["name"] for c in containers(spec) if _security(c).get("privileged")]
    if not names:
        return None
    return Finding("privileged", f"{_named(names)} must not set securityContext.privileged=true")


def proc_mount(annotations: Annotations, spec: Object) -> Finding | None:
    names: list[str] = []
    values: set[str] = set()
    for container in containers(spec):
        value = _security(container).get("procMount")
        if value not in (None, "", "Default"):
            names.append(container["name"])
            values.add(value)
    if not names:
        return None
    why = f"{_named(names)} must not set securityContext.procMount to {_quoted(sorted(values))}"
    return Finding("procMount", why)


def selinux(*more: str) -> Control:
    """The control of SELinux options that allows `more` types than the first version did."""
    types = (*_SELINUX_TYPES, *more)

    def options(holder: Object) -> Object:
        return _security(holder).get("seLinuxOptions") or {}

    def bad(context: Object) -> bool:
        given = context.get("seLinuxOptions") or {}
        return given.get("type", "") not in types or bool(given.get("user") or given.get("role"))

    def check(annotations: Annotations, spec: Object) -> Finding | None:
        setters = _setters(spec, bad)
        if not setters:
            return None
        holders = [options(h) for h in (spec, *containers(spec))]
        wrong = sorted({o["type"] for o in holders if o.get("type", "") not in types})
        what = [f"{_plural('type', wrong)} {_quoted(wrong)}"] if wrong else []
        what += [f"{f} may not be set" for f in ("user", "role") if any(o.get(f) for o in holders)]
        why = f"{setters} set forbidden securityContext.seLinuxOptions: {'; '.join(what)}"
        return Finding("seLinuxOptions", why)

    return check


def _seccomp_type(context: Object) -> Any:
    return (context.get("seccompProfile") or {}).get("type")


_SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"


def seccomp_annotations(annotations: Annotations, spec: Object) -> Finding | None:
    """Before v1.19 there were only annotations."""
    keys = (_SECCOMP_POD, *(_SECCOMP_CONTAINER + c["name"] for c in containers(spec)))
    found = sorted(
        f"{k}={json.dumps(annotations[k])}"
        for k in keys
        if k in annotations
        and annotations[k] not in ("runtime/default", "docker/default")
        and not annotations[k].startswith("localhost/")
    )
    if not found:
        return None
    return Finding("seccompProfile", f"forbidden {_plural('annotation', found)} {', '.join(found)}")


def seccomp_baseline(annotations: Annotations, spec: Object) -> Finding | None:
    def bad(context: Object) -> bool:
        return _seccomp_type(context) not in (None, *_PROFILES)

    setters = _setters(spec, bad)
    if not setters:
        return None
    values = {_seccomp_type(_security(h)) for h in (spec, *containers(spec)) if bad(_security(h))}
    why = f"{setters} must not set securityContext.seccompProfile.type to {_quoted(sorted(values))}"
    return Finding("seccompProfile", why)


def sysctls(*more: frozenset[str]) -> Control:
    """The control of sysctls that allows `more` than the first version did."""
    safe = _SYSCTLS.union(*more)

    def check(annotations: Annotations, spec: Object) -> Finding | None:
        names = [s["name"] for s in _security(spec).get("sysctls") or () if s["name"] not in safe]
        return Finding("forbidden sysctls", ", ".join(names)) if names else None

    return check


def host_process(annotations: Annotations, spec: Object) -> Finding | None:
    def bad(context: Object) -> bool:
        return bool((context.get("windowsOptions") or {}).get("hostProcess"))

    setters = _setters(spec, bad)
    if not setters:
        return None
    return Finding("hostProcess", f"{setters} must not set securityContext.windowsOptions.hostProcess=true")


# ---- restricted

_VOLUMES = frozenset((
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected",
    "secret",
))  # fmt: skip


def privilege_escalation(annotations: Annotations, spec: Object) -> Finding | None:
    names = [c["name"] for c in containers(spec) if _security(c).get("allowPrivilegeEscalation") is not False]
    if not names:
        return None
    why = f"{_named(names)} must set securityContext.allowPrivilegeEscalation=false"
    return Finding("allowPrivilegeEscalation != false", why)


def capabilities_restricted(annotations: Annotations, spec: Object) -> Finding | None:
    details = []
    keeping = [
        c["name"]
        for c in containers(spec)
        if "ALL" not in ((_security(c).get("capabilities") or {}).get("drop") or ())
    ]
    if keeping:
        details.append(f'{_named(keeping)} must set securityContext.capabilities.drop=["ALL"]')
    reason = "unrestricted capabilities"
    added = _added(spec, frozenset(("NET_BIND_SERVICE",)), reason)
    if added is not None:
        details.append(added.detail)
    return Finding(reason, "; ".join(details)) if details else None


def restricted_volumes(annotations: Annotations, spec: Object) -> Finding | None:
    bad = {
        v["name"]: sorted(k for k in v if k != "name" and v[k] is not None)
        for v in spec.get("volumes") or ()
        if not _VOLUMES & {k for k, value in v.items() if value is not None}
    }
    if not bad:
        return None
    names = list(bad)
    kinds = sorted({kind for found in bad.values() for kind in found})
    verb = _plural("uses", names, "use")
    listed = f"{_plural('volume', names)} {_quoted(names)} {verb} restricted volume type {_quoted(kinds)}"
    return Finding(
        "restricted volume types", listed.replace("type ", "types ") if len(kinds) != 1 else listed
    )


def non_root(annotations: Annotations, spec: Object) -> Finding | None:
    reason = "runAsNonRoot != true"
    setters = _setters(spec, lambda context: context.get("runAsNonRoot") is False)
    if setters:
        return Finding(reason, f"{setters} must not set securityContext.runAsNonRoot=false")
    if _security(spec).get("runAsNonRoot"):
        return None
    names = [c["name"] for c in containers(spec) if not _security(c).get("runAsNonRoot")]
    if not names:
        return None
    return Finding(reason, f"pod or {_named(names)} must set securityContext.runAsNonRoot=true")


def root_user(annotations: Annotations, spec: Object) -> Finding | None:
    setters = _setters(spec, lambda context: context.get("runAsUser") == 0)
    return Finding("runAsUser=0", f"{setters} must not set runAsUser=0") if setters else None


def seccomp_restricted(annotations: Annotations, spec: Object) -> Finding | None:
    explicit = seccomp_baseline(annotations, spec)
    if explicit is not None:
        return explicit
    if _seccomp_type(_security(spec)) is not None:
        return None
    names = [c["name"] for c in containers(spec) if _seccomp_type(_security(c)) is None]
    if not names:
        return None
    wanted = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
    return Finding("seccompProfile", f"pod or {_named(names)} {wanted}")


def own_users(control: Control) -> Control:
    """The control, for all but pods in a user namespace: root there is nobody on the node."""

    @functools.wraps(control)
    def check(annotations: Annotations, spec: Object) -> Finding | None:
        return None if spec.get("hostUsers") is False else control(annotations, spec)

    return check


def not_windows(control: Control) -> Control:
    """The control, for all but pods for Windows, which has no such thing."""

    @functools.wraps(control)
    def check(annotations: Annotations, spec: Object) -> Finding | None:
        windows = (spec.get("os") or {}).get("name") == "windows"
        return None if windows else control(annotations, spec)

    return check
