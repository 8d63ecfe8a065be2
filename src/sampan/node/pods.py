"""Reading a Pod: its containers, what restarts them, and where it stands. Pure functions of the object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sampan.api.errors import Object

TERMINAL = ("Succeeded", "Failed")


def uid(pod: Object) -> str:
    return str(pod["metadata"]["uid"])


def full_name(pod: Object) -> str:
    """`name_namespace(uid)`: how messages name a pod."""
    meta = pod["metadata"]
    return f"{meta['name']}_{meta['namespace']}({meta['uid']})"


def containers(pod: Object) -> list[Object]:
    return pod["spec"].get("containers") or []


def init_containers(pod: Object) -> list[Object]:
    """All init containers, the restartable ones (sidecars) included."""
    return pod["spec"].get("initContainers") or []


def ephemeral_containers(pod: Object) -> list[Object]:
    return pod["spec"].get("ephemeralContainers") or []


def all_containers(pod: Object) -> Iterator[Object]:
    yield from init_containers(pod)
    yield from containers(pod)
    yield from ephemeral_containers(pod)


def container(pod: Object, name: str) -> Object | None:
    return next((c for c in all_containers(pod) if c["name"] == name), None)


def is_sidecar(init: Object) -> bool:
    """Whether an init container is a restartable one."""
    return bool(init.get("restartPolicy") == "Always")


def field_path(pod: Object, name: str) -> str:
    """Where a container stands in the pod, as events say it."""
    for group in ("containers", "initContainers", "ephemeralContainers"):
        if any(c["name"] == name for c in pod["spec"].get(group) or ()):
            return f"spec.{group}{{{name}}}"
    return ""


def restart_policy(pod: Object) -> str:
    return str(pod["spec"].get("restartPolicy") or "Always")


def should_restart(pod: Object, which: Object, exit_code: int, *, init: bool = False) -> bool:
    """Whether a container that ended with `exit_code` is to be started again. An init container that did its work
    never is."""
    if init and not is_sidecar(which) and exit_code == 0:
        return False
    policy = which.get("restartPolicy") or restart_policy(pod)
    rules = which.get("restartPolicyRules") or ()
    for rule in rules:
        codes = rule.get("exitCodes") or {}
        inside = exit_code in (codes.get("values") or ())
        if (inside if codes.get("operator") == "In" else not inside) and rule.get("action") == "Restart":
            return True
    if policy == "Always":
        return True
    return policy == "OnFailure" and exit_code != 0


def is_terminal(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in TERMINAL


def is_deleted(pod: Object) -> bool:
    return pod["metadata"].get("deletionTimestamp") is not None


def host_network(pod: Object) -> bool:
    return bool(pod["spec"].get("hostNetwork"))


def security(pod: Object) -> Mapping[str, Any]:
    return pod["spec"].get("securityContext") or {}


def grace_seconds(pod: Object) -> float:
    """How long the pod's containers have to end: the deletion's grace period, else the spec's; at least 1 s."""
    grace = pod["metadata"].get("deletionGracePeriodSeconds")
    if grace is None:
        grace = pod["spec"].get("terminationGracePeriodSeconds")
    return max(1.0, float(30 if grace is None else grace))


def hostname(pod: Object) -> tuple[str, str]:
    """The pod's host name, and its fully qualified one without the cluster's domain (or "")."""
    spec, meta = pod["spec"], pod["metadata"]
    if spec.get("hostnameOverride"):
        return spec["hostnameOverride"], ""
    name = str(spec.get("hostname") or meta["name"])[:63].rstrip("-.")
    if spec.get("subdomain"):
        return name, f"{name}.{spec['subdomain']}.{meta['namespace']}.svc"
    return name, ""


def fs_user(pod: Object) -> int | None:
    """The user that all containers run as, where the pod says so: owner of projected tokens."""
    default = security(pod).get("runAsUser")
    found: set[int | None] = {
        (c.get("securityContext") or {}).get("runAsUser", default) for c in all_containers(pod)
    }
    return found.pop() if len(found) == 1 else None
