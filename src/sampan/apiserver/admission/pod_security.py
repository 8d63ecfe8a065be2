"""A namespace's labels say how far its pods may go: `pod-security.kubernetes.io/enforce` refuses, `warn` warns, `audit`
notes it in the audit log. Each may be pinned to a version of the standards.

Nobody is exempt. Upstream: `k8s.io/pod-security-admission/admission`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sampan.api import errors, pod_templates, resources
from sampan.api.errors import FieldError, Object
from sampan.apiserver.admission.plugin import WRITES, Plugin, refuse
from sampan.apiserver.admission.pod_security_controls import Finding
from sampan.apiserver.admission.pod_security_standards import LATEST, LEVELS, Level, violations
from sampan.apiserver.audit.annotations import annotate
from sampan.apiserver.types import Attributes, ReadCache

PREFIX = "pod-security.kubernetes.io/"
_MODES = ("enforce", "audit", "warn")
_VERSION = re.compile(r"latest|v1\.(0|[1-9][0-9]{0,8})")
_MOST = 3000
"""Most present pods that a new level of their namespace is held against."""
_SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP_CONTAINER = "container.seccomp.security.alpha.kubernetes.io/"


@dataclass(frozen=True, slots=True)
class _Policy:
    level: Level = "privileged"
    version: str = "latest"

    def found(self, pod: Object) -> str:
        """What it forbids in a pod, in words; "" if nothing."""
        return ", ".join(map(str, self._violations(pod)))

    def reasons(self, pod: Object) -> str:
        return ", ".join(f.reason for f in self._violations(pod))

    def _violations(self, pod: Object) -> list[Finding]:
        annotations = (pod.get("metadata") or {}).get("annotations") or {}
        minor = LATEST if self.version == "latest" else int(self.version[3:])
        return violations(self.level, annotations, pod.get("spec") or {}, minor)

    def __str__(self) -> str:
        return f"{self.level}:{self.version}"


_PRIVILEGED = _Policy()


class PodSecurity(Plugin):
    resources = frozenset(("pods", "namespaces", *pod_templates.PLACES))
    operations = WRITES

    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache

    async def validate(self, attributes: Attributes) -> None:
        obj, resource, sub = attributes.obj, attributes.resource, attributes.subresource
        if obj is None:
            return
        if resource is resources.NAMESPACES:
            if not sub:
                self._namespace(attributes, obj)
        elif resource is resources.PODS:
            if sub in ("", "ephemeralcontainers", "resize"):
                self._pod(attributes, obj)
        elif not sub:
            template = pod_templates.of(resource, obj)
            if template:
                self._tell(attributes, template, self._labels(attributes.namespace))

    def _pod(self, attributes: Attributes, pod: Object) -> None:
        labels = self._labels(attributes.namespace)
        if not labels or (attributes.old is not None and not _significant(pod, attributes.old)):
            return
        policy = _policy(labels, "enforce")
        if policy.level != "privileged":
            annotate(f"{PREFIX}enforce-policy", str(policy))
        found = policy.found(pod)
        self._tell(attributes, pod, labels, warn=not found)
        if found:
            raise refuse(attributes, f'violates PodSecurity "{policy}": {found}')

    def _tell(self, attributes: Attributes, pod: Object, labels: dict[str, str], warn: bool = True) -> None:
        """Note in the audit log, and warn of, what a namespace does not refuse."""
        if not labels:
            return
        audit = _policy(labels, "audit")
        if problems := [p for mode in _MODES for p in _label_problems(labels, {}, mode)]:
            wrong = "; ".join(f"{p.path}: {p.detail}" for p in problems)
            annotate(f"{PREFIX}error", f"Failed to parse policy: {wrong}")
        if found := audit.found(pod):
            annotate(f"{PREFIX}audit-violations", f'would violate PodSecurity "{audit}": {found}')
        if not warn:
            return
        policy = _policy(labels, "warn")
        if policy != audit:
            found = policy.found(pod)
        if found:
            attributes.warnings.append(f'would violate PodSecurity "{policy}": {found}')

    def _labels(self, namespace: str) -> dict[str, str]:
        """A namespace's labels; none if it has no policy."""
        found = self._cache.get(resources.NAMESPACES, "", namespace) or {}
        labels = (found.get("metadata") or {}).get("labels") or {}
        return labels if any(key.startswith(PREFIX) for key in labels) else {}

    # ---- namespaces

    def _namespace(self, attributes: Attributes, namespace: Object) -> None:
        labels = namespace["metadata"].get("labels") or {}
        old = ((attributes.old or {}).get("metadata") or {}).get("labels") or {}
        problems = [p for mode in _MODES for p in _label_problems(labels, old, mode)]
        if problems:
            raise errors.invalid("Namespace", attributes.name, problems)
        policy, before = _policy(labels, "enforce"), _policy(old, "enforce")
        if attributes.operation != "UPDATE" or policy.level == "privileged" or policy == before:
            return
        stricter = LEVELS.index(policy.level) > LEVELS.index(before.level)
        if stricter or policy.version != before.version:
            self._warn_of_present(attributes, policy)

    def _warn_of_present(self, attributes: Attributes, policy: _Policy) -> None:
        name = attributes.name
        pods = self._cache.list(resources.PODS, name)
        found: dict[str, list[str]] = {}
        for pod in pods[:_MOST]:
            if reasons := policy.reasons(pod):
                found.setdefault(reasons, []).append(pod["metadata"]["name"])
        if len(pods) > _MOST:
            attributes.warnings.append(
                f"new PodSecurity enforce level only checked against the first {_MOST} of {len(pods)} existing pods"
            )
        if found:
            attributes.warnings.append(
                f'existing pods in namespace "{name}" violate the new PodSecurity enforce level "{policy}"'
            )
        attributes.warnings += sorted(_with_names(reasons, names) for reasons, names in found.items())


def _with_names(reasons: str, names: list[str]) -> str:
    more = len(names) - 1
    others = f" (and {more} other pod{'s' if more > 1 else ''})" if more else ""
    return f"{min(names)}{others}: {reasons}"


def _policy(labels: dict[str, str], mode: str) -> _Policy:
    """The policy of a mode. A level that is no level, in a namespace from before this was looked at, counts as the
    strictest where it is enforced, and else as none."""
    given, version = labels.get(PREFIX + mode), labels.get(f"{PREFIX}{mode}-version", "latest")
    if given is None:
        if mode == "warn" and labels.get(f"{PREFIX}enforce") in LEVELS:
            # Whoever is refused pods wants to know when they make what makes them.
            return _policy(labels, "enforce")
        return _PRIVILEGED
    level: Level = next(
        (known for known in LEVELS if known == given), "restricted" if mode == "enforce" else "privileged"
    )
    return _Policy(level, version if _VERSION.fullmatch(version) else "latest")


def _label_problems(labels: dict[str, str], old: dict[str, str], mode: str) -> list[FieldError]:
    key, version_key = PREFIX + mode, f"{PREFIX}{mode}-version"
    problems = []
    level, version = labels.get(key), labels.get(version_key)
    if level is not None and level not in LEVELS and level != old.get(key):
        why = f"must be one of {', '.join(LEVELS)}"
        problems.append(errors.invalid_value(f"metadata.labels[{key}]", level, why))
    if version is not None and not _VERSION.fullmatch(version) and version != old.get(version_key):
        why = 'must be "latest" or "v1.x"'
        problems.append(errors.invalid_value(f"metadata.labels[{version_key}]", version, why))
    return problems


def _significant(pod: Object, old: Object) -> bool:
    """Whether an update touched anything that the standards look at and that can be changed: images, and what seccomp
    was told by before there were fields."""
    annotations, before = ((p["metadata"].get("annotations") or {}) for p in (pod, old))
    if annotations.get(_SECCOMP_POD) != before.get(_SECCOMP_POD):
        return True
    for field in ("containers", "initContainers", "ephemeralContainers"):
        present, known = pod["spec"].get(field) or [], old["spec"].get(field) or []
        if field != "ephemeralContainers" and len(present) != len(known):
            return True
        images = {c["name"]: c.get("image") for c in known}
        for container in present:
            name = container["name"]
            key = _SECCOMP_CONTAINER + name
            if name not in images or images[name] != container.get("image"):
                return True
            if annotations.get(key) != before.get(key):
                return True
    return False
