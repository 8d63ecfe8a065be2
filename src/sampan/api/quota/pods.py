"""Pods: their number, and what they ask for and may use at most."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sampan.api import pod_resources, qos
from sampan.api.errors import Object
from sampan.api.objects import parse_time
from sampan.api.pod_resources import Amounts
from sampan.api.quota import scopes
from sampan.api.quota.evaluator import Evaluator
from sampan.api.resources import PODS

_HUGE = "hugepages-"
_ASKED = ("cpu", "memory", "ephemeral-storage")
_MUST_BE_SET = frozenset(
    ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
)  # fmt: skip
"""If one of these is limited, every container must say what it wants of it."""


class Pods(Evaluator):
    counts_only = False

    def __init__(self) -> None:
        super().__init__(PODS)
        limited = (f"{prefix}{n}" for n in _ASKED for prefix in ("", "requests.", "limits."))
        self.names = frozenset(("pods", self.count, *limited))

    def handles(self, operation: str, subresource: str, new: Object, old: Object | None) -> bool:
        return (operation, subresource) in (("CREATE", ""), ("UPDATE", "resize"))

    def named(self, names: Iterable[str]) -> list[str]:
        return [n for n in names if n in self.names or n.startswith(_HUGE) or _of_extended(n)]

    def in_scope(self, rule: Mapping[str, Any], obj: Object) -> bool:
        spec = obj.get("spec") or {}
        match rule.get("scopeName"):
            case "Terminating":
                return _terminating(spec)
            case "NotTerminating":
                return not _terminating(spec)
            case "BestEffort":
                return qos.of(obj) == "BestEffort"
            case "NotBestEffort":
                return qos.of(obj) != "BestEffort"
            case "PriorityClass":
                name = spec.get("priorityClassName")
                return scopes.selects(rule, (name,) if name else ())
            case "CrossNamespacePodAffinity":
                return any(
                    t.get("namespaces") or t.get("namespaceSelector") is not None for t in _terms(spec)
                )
        return False

    def missing(self, required: Sequence[str], obj: Object) -> str:
        wanted = sorted(_MUST_BE_SET.intersection(required))
        if not wanted:
            return ""
        spec = obj["spec"]
        without: dict[str, set[str]] = {}
        for container in (*spec["containers"], *(spec.get("initContainers") or ())):
            requests, limits = pod_resources.of(container, "requests"), pod_resources.of(container, "limits")
            for name in wanted:
                part, _, plain = name.rpartition(".")
                if plain not in (limits if part == "limits" else requests):
                    without.setdefault(name, set()).add(container["name"])
        if not without:
            return ""
        listed = "; ".join(f"{name} for: {','.join(sorted(who))}" for name, who in without.items())
        return f"must specify {listed}"

    def usage(self, obj: Object) -> Amounts:
        used: Amounts = {self.count: "1"}
        if not alive(obj):
            return used
        used["pods"] = "1"
        spec, status = obj["spec"], obj.get("status")
        for name, amount in pod_resources.pod_requests(spec, status).items():
            if name in _ASKED or name.startswith(_HUGE):
                used[name] = used[f"requests.{name}"] = amount
            elif not _native(name):
                used[f"requests.{name}"] = amount
        for name, amount in pod_resources.pod_limits(spec, status).items():
            if name in _ASKED:
                used[f"limits.{name}"] = amount
        return used

    def released(self, old: Object, new: Object) -> bool:
        # A changed spec may also bring a pod out of a quota's scope.
        return old.get("spec") != new.get("spec") or self.usage(old) != self.usage(new)


def alive(pod: Object) -> bool:
    """Whether a pod still uses anything: not if it is over, or should have been gone for some time."""
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return False
    gone_at = expected_end(pod)
    return gone_at is None or time.time() <= gone_at


def expected_end(pod: Object) -> float | None:
    """When a pod that is being deleted no longer counts even if its node never says that it is gone; seconds since the
    epoch."""
    metadata = pod["metadata"]
    asked, grace = metadata.get("deletionTimestamp"), metadata.get("deletionGracePeriodSeconds")
    return None if asked is None or grace is None else parse_time(asked) + grace


def _native(name: str) -> bool:
    return "/" not in name or "kubernetes.io/" in name


def _of_extended(name: str) -> bool:
    """Of a resource that devices offer only what is asked for can be limited: nothing of it is overcommitted."""
    return name.startswith("requests.") and not _native(name)


def _terminating(spec: Object) -> bool:
    seconds = spec.get("activeDeadlineSeconds")
    return seconds is not None and seconds >= 0


def _terms(spec: Object) -> Iterator[Object]:
    affinity = spec.get("affinity") or {}
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(kind) or {}
        yield from rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        for weighted in rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ():
            yield weighted.get("podAffinityTerm") or {}
