"""A namespace's labels say how far its pods may go: `pod-security.kubernetes.io/enforce` refuses, `warn` warns.

`audit` is accepted and has no effect: there is no audit log yet.

Upstream: `k8s.io/pod-security-admission/admission`.
"""

from __future__ import annotations

import re

from sampan.api import errors, pod_templates, resources
from sampan.api.errors import FieldError, Object
from sampan.apiserver.admission.plugin import WRITES, Plugin, refuse
from sampan.apiserver.admission.pod_security_standards import LEVELS, Level, violations
from sampan.apiserver.types import Attributes, ReadCache

PREFIX = "pod-security.kubernetes.io/"
_MODES = ("enforce", "audit", "warn")
_VERSION = re.compile(r"latest|v1\.(0|[1-9][0-9]*)")
_LISTED = 10
"""Most pods that the warning about a namespace's present pods names."""
_CHECKED_ON_UPDATE = ("securityContext", "initContainers", "containers", "ephemeralContainers")


class PodSecurity(Plugin):
    resources = frozenset(("pods", "namespaces", *pod_templates.PLACES))
    operations = WRITES

    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache

    async def validate(self, attributes: Attributes) -> None:
        obj = attributes.obj
        if obj is None or attributes.operation not in ("CREATE", "UPDATE"):
            return
        resource, sub = attributes.resource, attributes.subresource
        if resource is resources.NAMESPACES and not sub:
            self._namespace(attributes, obj)
        elif resource is resources.PODS and sub in ("", "ephemeralcontainers"):
            self._pod(attributes, obj)
        elif resource is not resources.PODS and not sub:
            self._warn(attributes, pod_templates.of(resource, obj))

    def _pod(self, attributes: Attributes, pod: Object) -> None:
        old = attributes.old
        if old is not None and not _more(pod, old):
            return
        labels = self._labels(attributes.namespace)
        level, shown = _policy(labels, "enforce")
        found = _found(level, pod)
        if found:
            raise refuse(attributes, f'violates PodSecurity "{shown}": {found}')
        self._warn(attributes, pod)

    def _warn(self, attributes: Attributes, pod: Object) -> None:
        level, shown = _policy(self._labels(attributes.namespace), "warn")
        found = _found(level, pod)
        if found:
            attributes.warnings.append(f'would violate PodSecurity "{shown}": {found}')

    def _labels(self, namespace: str) -> dict[str, str]:
        found = self._cache.get(resources.NAMESPACES, "", namespace) or {}
        return (found.get("metadata") or {}).get("labels") or {}

    # ---- namespaces

    def _namespace(self, attributes: Attributes, namespace: Object) -> None:
        labels = namespace["metadata"].get("labels") or {}
        old = ((attributes.old or {}).get("metadata") or {}).get("labels") or {}
        problems = [p for mode in _MODES for p in _label_problems(labels, old, mode)]
        if problems:
            raise errors.invalid("Namespace", attributes.name, problems)
        level, shown = _policy(labels, "enforce")
        before = _policy(old, "enforce")[0]
        if attributes.operation == "UPDATE" and LEVELS.index(level) > LEVELS.index(before):
            self._warn_of_present(attributes, level, shown)

    def _warn_of_present(self, attributes: Attributes, level: Level, shown: str) -> None:
        found: dict[str, list[str]] = {}
        for pod in self._cache.list(resources.PODS, attributes.name):
            reasons = ", ".join(
                f.reason for f in violations(level, pod["metadata"].get("annotations") or {}, pod["spec"])
            )
            if reasons:
                found.setdefault(reasons, []).append(pod["metadata"]["name"])
        if not found:
            return
        attributes.warnings.append(
            f'existing pods in namespace "{attributes.name}" violate the new PodSecurity enforce level "{shown}"'
        )
        for reasons, names in list(found.items())[:_LISTED]:
            more = len(names) - 1
            others = f" (and {more} other pod{'s' if more > 1 else ''})" if more else ""
            attributes.warnings.append(f"{min(names)}{others}: {reasons}")


def _found(level: Level, pod: Object) -> str:
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    return ", ".join(map(str, violations(level, annotations, pod.get("spec") or {})))


def _policy(labels: dict[str, str], mode: str) -> tuple[Level, str]:
    """The level of a mode, and how messages name it. A level that is no level, in a namespace from before this was
    looked at, counts as the strictest."""
    given = labels.get(PREFIX + mode, "privileged")
    level: Level = next((known for known in LEVELS if known == given), "restricted")
    return level, f"{level}:{labels.get(f'{PREFIX}{mode}-version', 'latest')}"


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


def _more(pod: Object, old: Object) -> bool:
    """Whether an update touched anything that the standards look at."""
    spec, before = pod["spec"], old["spec"]
    if any(spec.get(f) != before.get(f) for f in _CHECKED_ON_UPDATE):
        return True
    return (pod["metadata"].get("annotations") or {}) != (old["metadata"].get("annotations") or {})
