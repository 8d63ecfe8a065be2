"""Pods and pod templates."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from sampan.api.errors import (
    FieldError,
    Object,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    too_long,
)
from sampan.api.objects import deep_copy
from sampan.api.strategy import same
from sampan.api.validation import (
    containers,
    formats,
    metadata,
    resize,
    resources,
    scheduling,
    security,
    volumes,
)
from sampan.api.validation.values import Problems, formatted, ip, one_of, within

_UPDATABLE = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` "
    "(allow it to be set to 1 if it was previously negative)"
)
_MAX_INT32 = 0x7FFFFFFF
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
_RESTART_POLICIES = ("Always", "OnFailure", "Never")


def create(obj: Object) -> Problems:
    pod = obj.get("spec") or {}
    out = _whole(obj)
    if pod.get("ephemeralContainers"):
        out.append(forbidden_field("spec.ephemeralContainers", "cannot be set on create"))
    if pod.get("nodeName") and pod.get("schedulingGates"):
        detail = "cannot be set until all schedulingGates have been cleared"
        out.append(forbidden_field("spec.nodeName", detail))
    return out


def _whole(obj: Object) -> Problems:
    """What holds of a Pod at all times, and not of a template."""
    pod = obj.get("spec") or {}
    out = spec(pod, "spec", is_pod=True) + _deletion_cost(obj.get("metadata") or {})
    if not pod.get("serviceAccountName"):
        for i, volume in enumerate(pod.get("volumes") or ()):
            for j, source in enumerate((volume.get("projected") or {}).get("sources") or ()):
                if source.get("serviceAccountToken") is not None:
                    path = f"spec.volumes[{i}].projected.sources[{j}].serviceAccountToken"
                    detail = "must not be specified when serviceAccountName is not set"
                    out.append(forbidden_field(path, detail))
    for kind in ("containers", "initContainers"):
        for i, container in enumerate(pod.get(kind) or ()):
            out += containers.image_blanks(container, f"spec.{kind}[{i}]")
    return out


def _deletion_cost(meta: Object) -> Problems:
    """The annotation that ranks the pods of a ReplicaSet when it shrinks."""
    cost = (meta.get("annotations") or {}).get(DELETION_COST)
    if cost is None:
        return []
    path = f"metadata.annotations.{DELETION_COST}"
    if not re.fullmatch(r"0|-?[1-9]\d{0,9}", cost) or not -_MAX_INT32 - 1 <= int(cost) <= _MAX_INT32:
        return [invalid_value(path, cost, "must be a 32bit integer")]
    return []


def template(item: Object, path: str) -> Problems:
    """A pod template; what its owner requires of it (labels, restart policy) the owner checks."""
    meta = item.get("metadata") or {}
    out = metadata.labels(meta.get("labels") or {}, f"{path}.labels")
    out += metadata.annotation_map(meta.get("annotations") or {}, f"{path}.annotations")
    pod = item.get("spec") or {}
    out += spec(pod, f"{path}.spec", is_pod=False)
    if pod.get("ephemeralContainers"):
        where = f"{path}.spec.ephemeralContainers"
        out.append(forbidden_field(where, "ephemeral containers not allowed in pod template"))
    return out


def spec(pod: Object, path: str, *, is_pod: bool) -> Problems:
    out: list[FieldError] = []
    if pod.get("terminationGracePeriodSeconds") is None:
        out.append(required(f"{path}.terminationGracePeriodSeconds"))
    out += volumes.volumes(pod.get("volumes") or [], f"{path}.volumes")
    out += _resource_claims(pod.get("resourceClaims") or [], f"{path}.resourceClaims")
    out += containers.regular(pod, f"{path}.containers")
    if pod.get("initContainers"):
        out += containers.init(pod, f"{path}.initContainers")
    if pod.get("ephemeralContainers"):
        out += containers.ephemeral(pod, f"{path}.ephemeralContainers")
    out += resources.requirements(pod.get("resources"), f"{path}.resources")
    out += _host_network(pod, path, is_pod)
    out += one_of(f"{path}.restartPolicy", pod.get("restartPolicy"), _RESTART_POLICIES)
    out += one_of(f"{path}.dnsPolicy", pod.get("dnsPolicy"), _DNS_POLICIES)
    out += metadata.labels(pod.get("nodeSelector") or {}, f"{path}.nodeSelector")
    out += security.pod(pod.get("securityContext"), pod, f"{path}.securityContext")
    out += scheduling.affinity(pod.get("affinity"), f"{path}.affinity")
    out += _dns_config(pod, f"{path}.dnsConfig")
    for i, gate in enumerate(pod.get("readinessGates") or ()):
        at = f"{path}.readinessGates[{i}].conditionType"
        out += formatted(at, gate.get("conditionType") or "", formats.qualified_name)
    out += _scheduling_gates(pod.get("schedulingGates") or [], f"{path}.schedulingGates")
    spreading = pod.get("topologySpreadConstraints") or []
    out += scheduling.topology_spread(spreading, f"{path}.topologySpreadConstraints")
    for name in ("serviceAccountName", "nodeName", "priorityClassName", "runtimeClassName"):
        if pod.get(name):
            out += formatted(f"{path}.{name}", pod[name], formats.dns1123_subdomain)
    out += within(f"{path}.activeDeadlineSeconds", pod.get("activeDeadlineSeconds"), 1, _MAX_INT32)
    for name in ("hostname", "subdomain"):
        if pod.get(name):
            out += formatted(f"{path}.{name}", pod[name], formats.dns1123_label)
    out += _hostname_override(pod, f"{path}.hostnameOverride")
    out += scheduling.tolerations(pod.get("tolerations") or [], f"{path}.tolerations")
    for i, alias in enumerate(pod.get("hostAliases") or ()):
        at = f"{path}.hostAliases[{i}]"
        out += ip(f"{at}.ip", alias.get("ip") or "")
        for j, name in enumerate(alias.get("hostnames") or ()):
            out += formatted(f"{at}.hostnames[{j}]", name, formats.dns1123_subdomain)
    preemption = ("PreemptLowerPriority", "Never")
    out += one_of(f"{path}.preemptionPolicy", pod.get("preemptionPolicy"), preemption, absent=True)
    if pod.get("os") is not None:
        out += one_of(f"{path}.os.name", pod["os"].get("name"), ("linux", "windows"))
    return out


def _resource_claims(given: list[Object], path: str) -> Problems:
    out: list[FieldError] = []
    seen: set[str] = set()
    for i, claim in enumerate(given):
        name = claim.get("name") or ""
        if not name:
            out.append(required(f"{path}[{i}].name"))
        elif name in seen:
            out.append(duplicate(f"{path}[{i}].name", name))
        else:
            out += formatted(f"{path}[{i}].name", name, formats.dns1123_label)
        seen.add(name)
        kinds = [k for k in ("resourceClaimName", "resourceClaimTemplateName") if claim.get(k) is not None]
        if len(kinds) > 1:
            detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            out.append(invalid_value(f"{path}[{i}]", claim, detail))
        elif not kinds:
            detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            out.append(invalid_value(f"{path}[{i}]", claim, detail))
    return out


def _host_network(pod: Object, path: str, is_pod: bool) -> Problems:
    if not pod.get("hostNetwork"):
        return []
    out: list[FieldError] = []
    for i, container in enumerate(pod.get("containers") or ()):
        for j, port in enumerate(container.get("ports") or ()):
            host = port.get("hostPort") or 0
            if (is_pod or host) and host != port.get("containerPort"):
                where = f"{path}.containers[{i}].ports[{j}].hostPort"
                detail = "must match `containerPort` when `hostNetwork` is true"
                out.append(invalid_value(where, host, detail))
    return out


def _dns_config(pod: Object, path: str) -> Problems:
    config = pod.get("dnsConfig")
    servers = (config or {}).get("nameservers") or []
    if pod.get("dnsPolicy") == "None":
        if config is None:
            return [required(path, "must provide `dnsConfig` when `dnsPolicy` is None")]
        if not servers:
            detail = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            return [required(f"{path}.nameservers", detail)]
    if config is None:
        return []
    out: list[FieldError] = []
    if len(servers) > 3:
        out.append(invalid_value(f"{path}.nameservers", servers, "must not have more than 3 nameservers"))
    for i, server in enumerate(servers):
        out += ip(f"{path}.nameservers[{i}]", server)
    searches = config.get("searches") or []
    if len(searches) > 32:
        out.append(invalid_value(f"{path}.searches", searches, "must not have more than 32 search paths"))
    if len(" ".join(searches)) > 2048:
        detail = "must not have more than 2048 characters (including spaces) in the search list"
        out.append(invalid_value(f"{path}.searches", searches, detail))
    for i, search in enumerate(searches):
        if search != ".":
            name = search.removesuffix(".").replace("_", "a")
            out += [
                invalid_value(f"{path}.searches[{i}]", search, m) for m in formats.dns1123_subdomain(name)
            ]
    for i, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            out.append(required(f"{path}.options[{i}]", "must not be empty"))
    return out


def _hostname_override(pod: Object, path: str) -> Problems:
    """The kernel takes host names of up to 64 bytes."""
    name = pod.get("hostnameOverride")
    if not name:
        return []
    out = formatted(path, name, formats.dns1123_subdomain)
    if len(name) > 64:
        out.append(too_long(path, 64))
    for other in ("hostNetwork", "setHostnameAsFQDN"):
        if pod.get(other):
            out.append(forbidden_field(path, f"may not be specified when `{other}` is true"))
    return out


def _scheduling_gates(given: list[Object], path: str) -> Problems:
    out: list[FieldError] = []
    seen: set[str] = set()
    for i, gate in enumerate(given):
        name = gate.get("name") or ""
        out += formatted(f"{path}[{i}]", name, formats.qualified_name)
        if name in seen:
            out.append(duplicate(f"{path}[{i}]", name))
        seen.add(name)
    return out


# Updates


def update(new: Object, old: Object, subresource: str) -> Problems:
    if subresource == "status":
        return _status(new, old)
    if subresource == "ephemeralcontainers":
        return _whole(new) + _ephemeral_containers(new, old)
    if subresource == "resize":
        return _whole(new) + resize.update(new, old)
    after, before = new.get("spec") or {}, old.get("spec") or {}
    out = _whole(new)
    for kind in ("containers", "initContainers"):
        if len(after.get(kind) or ()) != len(before.get(kind) or ()):
            out.append(forbidden_field(f"spec.{kind}", "pod updates may not add or remove containers"))
            return out
    wrong = _deadline(after.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds"))
    if wrong:
        return out + wrong
    out += _only_added_tolerations(after.get("tolerations") or [], before.get("tolerations") or [])
    known = {g.get("name") for g in before.get("schedulingGates") or ()}
    for i, gate in enumerate(after.get("schedulingGates") or ()):
        if gate.get("name") not in known:
            detail = f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'"
            out.append(forbidden_field(f"spec.schedulingGates[{i}].name", detail))
    if not same(after, before):
        out += _only_updatable(after, before)
    return out


def _deadline(new: int | None, old: int | None) -> Problems:
    path = "spec.activeDeadlineSeconds"
    if new is None:
        detail = "must not update from a positive integer to nil value"
        return [] if old is None else [invalid_value(path, None, detail)]
    if old is not None and old < new:
        return [invalid_value(path, new, "must be less than or equal to previous value")]
    return within(path, new, 0, _MAX_INT32)


def _only_added_tolerations(new: list[Object], old: list[Object]) -> Problems:
    def key(toleration: Object) -> Object:
        return {k: v for k, v in toleration.items() if k != "tolerationSeconds"}

    kept = [key(t) for t in new]
    if all(key(t) in kept for t in old):
        return []
    detail = "existing toleration can not be modified except its tolerationSeconds"
    return [forbidden_field("spec.tolerations", detail)]


def _only_updatable(after: Object, before: Object) -> Problems:
    munged = deep_copy(after)
    for kind in ("containers", "initContainers"):
        for new, old in zip(munged.get(kind) or (), before.get(kind) or (), strict=True):
            new["image"] = old.get("image")
    allowed = ["activeDeadlineSeconds", "schedulingGates", "tolerations"]
    grace = before.get("terminationGracePeriodSeconds")
    if grace is not None and grace < 0 and after.get("terminationGracePeriodSeconds") == 1:
        allowed.append("terminationGracePeriodSeconds")
    out: list[FieldError] = []
    if before.get("schedulingGates"):
        # A pod that is not scheduled yet may still be narrowed down.
        wanted, given = after.get("nodeSelector") or {}, before.get("nodeSelector") or {}
        if any(wanted.get(k) != v for k, v in given.items()):
            detail = "only additions are allowed (no mutations or deletions)"
            out.append(invalid_value("spec.nodeSelector", wanted, detail))
        allowed.append("nodeSelector")
    for name in allowed:
        if name in before:
            munged[name] = before[name]
        else:
            munged.pop(name, None)
    changed = list(_changes(munged, before, "spec"))
    if changed:
        detail = f"pod updates may not change fields other than {_UPDATABLE}\nchanged: {', '.join(changed)}"
        out.append(forbidden_field("spec", detail))
    return out


def _changes(new: Any, old: Any, path: str) -> Iterator[str]:
    """The paths of what differs, as deep as they can be told."""
    if same(new, old):
        return
    if isinstance(new, dict) and isinstance(old, dict):
        for name in dict.fromkeys([*new, *old]):
            yield from _changes(new.get(name), old.get(name), f"{path}.{name}")
    elif isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        for i, (left, right) in enumerate(zip(new, old, strict=True)):
            yield from _changes(left, right, f"{path}[{i}]")
    else:
        yield path


def _ephemeral_containers(new: Object, old: Object) -> Problems:
    out: list[FieldError] = []
    path = "spec.ephemeralContainers"
    known = {c.get("name"): c for c in new["spec"].get("ephemeralContainers") or ()}
    for container in old["spec"].get("ephemeralContainers") or ():
        name = container.get("name")
        if name not in known:
            out.append(forbidden_field(path, f'existing ephemeral containers "{name}" may not be removed\n'))
        elif not same(known[name], container):
            changed = ", ".join(_changes(known[name], container, path))
            detail = f'existing ephemeral containers "{name}" may not be changed\n{changed}'
            out.append(forbidden_field(path, detail))
    return out


_SYSTEM_CONDITIONS = {"PodScheduled", "Ready", "Initialized"}


def _status(new: Object, old: Object) -> Problems:
    after, before = new.get("status") or {}, old.get("status") or {}
    out: list[FieldError] = []
    for i, condition in enumerate(after.get("conditions") or ()):
        kind = condition.get("type") or ""
        if kind not in _SYSTEM_CONDITIONS:
            out += formatted(f"status.conditions[{i}].Type", kind, formats.qualified_name)
    nominated = after.get("nominatedNodeName")
    if nominated and nominated != before.get("nominatedNodeName"):
        out += formatted("status.nominatedNodeName", nominated, formats.dns1123_subdomain)
    if before.get("qosClass"):
        out += metadata.immutable("status.qosClass", after.get("qosClass"), before.get("qosClass"))
    policy = (old.get("spec") or {}).get("restartPolicy")
    sidecars = {
        c.get("name")
        for c in (old.get("spec") or {}).get("initContainers") or ()
        if c.get("restartPolicy") == "Always"
    }
    for kind, effective in (
        ("containerStatuses", policy),
        ("initContainerStatuses", policy),
        ("ephemeralContainerStatuses", "Never"),
    ):
        skip = sidecars if kind == "initContainerStatuses" else set()
        out += _resurrected(after.get(kind) or [], before.get(kind) or [], f"status.{kind}", effective, skip)
    for name in ("podIPs", "hostIPs"):
        addresses = [a.get("ip") or "" for a in after.get(name) or ()]
        for i, address in enumerate(addresses):
            out += ip(f"status.{name}[{i}]", address)
        if len(addresses) != len(set(addresses)):
            out.append(duplicate(f"status.{name}", addresses))
    hosts = after.get("hostIPs") or ()
    if hosts and hosts[0].get("ip") != after.get("hostIP"):
        out.append(invalid_value("status.hostIPs[0].ip", hosts[0].get("ip"), "must be equal to `hostIP`"))
    return out


def _resurrected(
    new: list[Object], old: list[Object], path: str, policy: str | None, skip: set[Any]
) -> Problems:
    """A container that ended and is not to be restarted may not be reported as running again."""
    if policy == "Always":
        return []
    out: list[FieldError] = []
    current = {s.get("name"): s for s in new}
    for i, status in enumerate(old):
        ended = (status.get("state") or {}).get("terminated")
        if ended is None or status.get("name") in skip:
            continue
        if policy == "OnFailure" and ended.get("exitCode") != 0:
            continue
        now = current.get(status.get("name"))
        if now is not None and (now.get("state") or {}).get("terminated") is None:
            detail = "may not be transitioned to non-terminated state"
            out.append(forbidden_field(f"{path}[{i}].state", detail))
    return out


def binding(obj: Object) -> Problems:
    """The target of a `pods/binding`."""
    target = obj.get("target") or {}
    kind = target.get("kind") or ""
    out = [] if kind in ("", "Node") else [not_supported("target.kind", kind, ("Node", "<empty>"))]
    return out + ([] if target.get("name") else [required("target.name")])
