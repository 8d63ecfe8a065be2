"""What a client is told beyond yes and no: fields that do not work here yet, and fields that are a bad idea.

`support_table` says which fields work. The deprecations are upstream's (`pkg/api/pod/warnings.go`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sampan.api import deprecations, devices, intent, pod_templates, quantity, service_warnings
from sampan.api.errors import FieldError, Object, forbidden_field
from sampan.api.resources import Resource
from sampan.api.support_table import KINDS, POD, SERVICE, State, Support
from sampan.api.validation.formats import dns1123_label


@dataclass(slots=True)
class _Branch:
    """The part of a table below one field, of what does not simply work."""

    support: Support | None = None
    below: dict[str, _Branch] = field(default_factory=dict)


def _tree(table: Mapping[str, Support]) -> _Branch:
    root = _Branch()
    for path, support in table.items():
        if support.state is State.WORKS:
            continue
        at = root
        for name in path.removesuffix(".*").split("."):
            at = at.below.setdefault(name, _Branch())
        at.support = support
    return root


_POD = _tree(POD)
_SERVICE = _tree(SERVICE)


def unsupported(resource: Resource, obj: Object) -> tuple[list[str], list[FieldError]]:
    """The warnings for the client, and the fields that are refused because people rely on them for safety.

    For a new object, and for a changed one unless only its status changed. The object has its defaults.
    """
    warnings = [*_of_finalizers(obj), *_of_workload(resource, obj), *deprecations.of(resource, obj)]
    refusals: list[FieldError] = []
    key = (resource.group, resource.kind)
    if (whole := KINDS.get(key)) is not None:
        if whole.state is State.REFUSED:
            refusals.append(forbidden_field("kind", whole.why))
        else:
            warnings.append(whole.why)
    if key == ("", "Pod"):
        _hold(_POD, obj, obj.get("spec") or {}, "", warnings, refusals)
        warnings += _of_pod(obj.get("spec") or {}, obj.get("metadata") or {}, "")
    elif (place := pod_templates.PLACES.get(resource.key_stem)) is not None:
        template, at = pod_templates.of(resource, obj), ".".join(place)
        spec = template.get("spec") or {}
        _hold(_POD, template, spec, at, warnings, refusals)
        warnings += _of_pod(spec, template.get("metadata") or {}, f"{at}.")
    elif key == ("coordination.k8s.io", "Lease"):
        warnings += _of_lease(obj.get("spec") or {})
    elif key[0] == "resource.k8s.io":
        warnings += devices.unchecked(resource.kind, obj)
    elif key == ("", "Service"):
        _hold(_SERVICE, obj, obj.get("spec") or {}, "", warnings, refusals)
        warnings += service_warnings.of(obj)
    return list(dict.fromkeys(warnings)), refusals


def of_resize(new: Object, old: Object) -> Iterator[str]:
    """What is told to who changes the resources of a pod that is there."""
    spec = new.get("spec") or {}
    if spec.get("nodeName") and spec != old.get("spec"):
        yield (
            "spec.containers: resizing a running container is not implemented: it gets its new resources when it is "
            "started again"
        )


def _hold(
    branch: _Branch, value: Any, spec: Object, path: str, warnings: list[str], refusals: list[FieldError]
) -> None:
    """Hold a value against the part of the table that is about it."""
    if isinstance(value, list) and branch.below:
        for i, item in enumerate(value):
            _hold(branch, item, spec, f"{path}[{i}]", warnings, refusals)
        return
    support = branch.support
    if (
        support is not None
        and value not in (None, [], "")
        and (support.when is None or support.when(value, spec))
    ):
        if support.state is State.REFUSED:
            refusals.append(forbidden_field(path, support.why))
        else:
            warnings.append(f"{path}: {support.why}")
    if isinstance(value, dict):
        for name, inner in branch.below.items():
            if name in value:
                _hold(inner, value[name], spec, f"{path}.{name}" if path else name, warnings, refusals)


def _of_finalizers(obj: Object) -> Iterator[str]:
    for name in (obj.get("metadata") or {}).get("finalizers") or ():
        if "/" not in name and name not in ("orphan", "foregroundDeletion"):
            yield (
                f'metadata.finalizers: "{name}": prefer a domain-qualified finalizer name including a path (/) to avoid '
                "accidental conflicts with other finalizer writers"
            )


_NAMED_AFTER = frozenset(
    {"Pod", "ReplicationController", "Deployment", "ReplicaSet", "StatefulSet", "Job", "CronJob"}
)
"""Kinds after which pods and their hosts are named."""


def _of_workload(resource: Resource, obj: Object) -> Iterator[str]:
    name, spec = (obj.get("metadata") or {}).get("name") or "", obj.get("spec") or {}
    if resource.kind in _NAMED_AFTER and name and (problems := dns1123_label(name)):
        used = "the Pod's hostname" if resource.kind == "Pod" else "Pod names and hostnames"
        yield (
            f"metadata.name: this is used in {used}, which can result in surprising behavior; a DNS label is "
            f"recommended: [{' '.join(problems)}]"
        )
    if resource.kind == "StatefulSet" and (spec.get("revisionHistoryLimit") or 0) < 0:
        yield (
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"
        )
    elif resource.kind == "Job" and spec.get("completionMode") == "Indexed":
        if (spec.get("completions") or 0) > 100_000 and (spec.get("parallelism") or 0) > 10_000:
            yield (
                "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, "
                "Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
            )
    elif resource.kind == "CronJob" and "TZ" in (spec.get("schedule") or ""):
        yield (
            "cannot use TZ or CRON_TZ in spec.schedule, use timeZone instead, see "
            "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
        )


_MISSPELT = {"/ect/": "/etc/", "/user/": "/usr/", "/vat/": "/var/"}
"""Beginnings of a mount path that are legal but hardly ever meant."""


def _of_pod(spec: Object, meta: Object, prefix: str) -> Iterator[str]:
    for key in spec.get("nodeSelector") or ():
        if key in deprecations.NODE_LABELS:
            yield f"{prefix}spec.nodeSelector[{key}]: {deprecations.NODE_LABELS[key]}"
    for key in meta.get("annotations") or ():
        at = f"{prefix}metadata.annotations[{key}]"
        if key == "scheduler.alpha.kubernetes.io/critical-pod":
            yield f'{at}: non-functional in v1.16+; use the "priorityClassName" field instead'
        elif key.startswith(
            ("seccomp.security.alpha.kubernetes.io/pod", "container.seccomp.security.alpha.kubernetes.io/")
        ):
            yield f'{at}: non-functional in v1.27+; use the "seccompProfile" field instead'
        elif key.startswith("container.apparmor.security.beta.kubernetes.io/"):
            yield f'{at}: deprecated since v1.30; use the "appArmorProfile" field instead'
    grace = spec.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0:
        yield (
            f"{prefix}spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be "
            "treated as 1"
        )
    seen: set[str] = set()
    for i, secret in enumerate(spec.get("imagePullSecrets") or ()):
        name = secret.get("name") or ""
        at = f"{prefix}spec.imagePullSecrets[{i}].name"
        if not name:
            yield f'{at}: invalid empty name ""'
        elif name in seen:
            yield f'{at}: duplicate name "{name}"'
        seen.add(name)
    for kind in ("initContainers", "containers"):
        for i, container in enumerate(spec.get(kind) or ()):
            yield from _of_container(container, f"{prefix}spec.{kind}[{i}]")


def _of_container(container: Object, path: str) -> Iterator[str]:
    for i, mount in enumerate(container.get("volumeMounts") or ()):
        where = mount.get("mountPath") or ""
        at = f"{path}.volumeMounts[{i}].mountPath"
        for wrong, right in _MISSPELT.items():
            if where.startswith(wrong):
                meant = right + where.removeprefix(wrong).split(" ")[0]
                yield f'{at}: did you mean "{meant}"? "{where}" is mounted as given'
        hint = intent.of_folded_text(
            where, ("subPath", "name", "readOnly", "mountPropagation", "subPathExpr")
        )
        if hint:
            yield f"{at}: {hint}"
    names: set[str] = set()
    for i, variable in enumerate(container.get("env") or ()):
        name = variable.get("name") or ""
        # A later definition that refers to the earlier one extends it, and hides nothing.
        if name in names and f"$({name})" not in (variable.get("value") or ""):
            yield (
                f'{path}.env[{i}]: hides previous definition of "{name}", which may be dropped when using apply'
            )
        names.add(name)
    ports: dict[tuple[object, ...], int] = {}
    for i, port in enumerate(container.get("ports") or ()):
        key = (port.get("containerPort"), port.get("protocol"), port.get("hostPort"), port.get("hostIP"))
        if key in ports:
            yield f"{path}.ports[{i}]: duplicate port definition with {path}.ports[{ports[key]}]"
        ports.setdefault(key, i)
    for kind, amounts in (container.get("resources") or {}).items():
        if kind in ("limits", "requests"):
            for name in ("memory", "ephemeral-storage"):
                value = amounts.get(name)
                if value is not None and value[-1:] in ("m", "u", "n") and quantity.parse(value) % 1:
                    at = f"{path}.resources.{kind}[{name}]"
                    yield f'{at}: fractional byte value "{value}" is invalid, must be an integer'


def _of_lease(spec: Object) -> Iterator[str]:
    for name in ("strategy", "preferredHolder"):
        if spec.get(name):
            yield f"spec.{name}: coordinated leader election is not implemented: the Lease is its holder's alone"
