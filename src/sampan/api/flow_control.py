"""The FlowSchemas and PriorityLevelConfigurations that every cluster has.

The mandatory ones are always as they are here; the suggested ones follow as long as their annotation says so. Upstream:
`k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sampan.api.errors import Object

AUTOUPDATE = "apf.kubernetes.io/autoupdate-spec"
_VERSION = "flowcontrol.apiserver.k8s.io/v1"
_EVERY = ["*"]
_LEADING = ["get", "create", "update"]
_KUBE_SYSTEM = "kube-system"


def _level(name: str, spec: Object) -> Object:
    return _object("PriorityLevelConfiguration", name, spec)


def _object(kind: str, name: str, spec: Object) -> Object:
    return {
        "apiVersion": _VERSION,
        "kind": kind,
        "metadata": {"name": name, "annotations": {AUTOUPDATE: "true"}},
        "spec": spec,
    }


def _limited(name: str, shares: int, lendable: int, queues: int, hand: int) -> Object:
    """A level whose requests wait in queues."""
    queuing = {"queues": queues, "handSize": hand, "queueLengthLimit": 50}
    response = {"type": "Queue", "queuing": queuing}
    return _level(
        name,
        {
            "type": "Limited",
            "limited": {
                "nominalConcurrencyShares": shares,
                "lendablePercent": lendable,
                "limitResponse": response,
            },
        },
    )


MANDATORY_LEVELS: dict[str, Object] = {
    "exempt": _level(
        "exempt", {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}
    ),
    "catch-all": _level(
        "catch-all",
        {
            "type": "Limited",
            "limited": {
                "nominalConcurrencyShares": 5,
                "lendablePercent": 0,
                "limitResponse": {"type": "Reject"},
            },
        },
    ),
}
SUGGESTED_LEVELS: dict[str, Object] = {
    level["metadata"]["name"]: level
    for level in (
        _limited("system", 30, 33, 64, 6),
        _limited("node-high", 40, 25, 64, 6),
        _limited("leader-election", 10, 0, 16, 4),
        _limited("workload-high", 40, 50, 128, 6),
        _limited("workload-low", 100, 90, 128, 6),
        _limited("global-default", 20, 50, 128, 6),
    )
}


def _groups(*names: str) -> list[Object]:
    return [{"kind": "Group", "group": {"name": n}} for n in names]


def _users(*names: str) -> list[Object]:
    return [{"kind": "User", "user": {"name": n}} for n in names]


def _accounts(*names: str) -> list[Object]:
    """Service accounts of kube-system."""
    return [
        {"kind": "ServiceAccount", "serviceAccount": {"name": n, "namespace": _KUBE_SYSTEM}} for n in names
    ]


def _rule(verbs: list[str], groups: list[str], names: list[str], cluster: bool = False) -> Object:
    rule: Object = {"verbs": verbs, "apiGroups": groups, "resources": names, "namespaces": _EVERY}
    return {**rule, "clusterScope": True} if cluster else rule


_ALL_RESOURCES = [_rule(_EVERY, _EVERY, _EVERY, True)]
_ALL_PATHS = [{"verbs": _EVERY, "nonResourceURLs": _EVERY}]
_LEASES = _rule(_LEADING, ["coordination.k8s.io"], ["leases"])


def _schema(
    name: str,
    level: str,
    precedence: int,
    by: str,
    subjects: list[Object],
    rules: Sequence[Object] | None = None,
    paths: Sequence[Object] = (),
) -> Object:
    """Requests of some subjects: those of `rules` and `paths`, or all if no rules are given."""
    if rules is None:
        rules, paths = _ALL_RESOURCES, _ALL_PATHS
    rule: Object = {"subjects": subjects}
    if rules:
        rule["resourceRules"] = list(rules)
    if paths:
        rule["nonResourceRules"] = list(paths)
    spec: Object = {
        "priorityLevelConfiguration": {"name": level},
        "matchingPrecedence": precedence,
        "rules": [rule],
    }
    if by:
        spec["distinguisherMethod"] = {"type": by}
    return _object("FlowSchema", name, spec)


_USER, _NAMESPACE = "ByUser", "ByNamespace"
_ANYBODY = _groups("system:unauthenticated", "system:authenticated")
_MANAGER, _SCHEDULER = "system:kube-controller-manager", "system:kube-scheduler"

MANDATORY_SCHEMAS: dict[str, Object] = {
    "exempt": _schema("exempt", "exempt", 1, "", _groups("system:masters")),
    "catch-all": _schema("catch-all", "catch-all", 10000, _USER, _ANYBODY),
}
SUGGESTED_SCHEMAS: dict[str, Object] = {
    schema["metadata"]["name"]: schema
    for schema in (
        _schema("system-nodes", "system", 500, _USER, _groups("system:nodes")),
        _schema("system-node-high", "node-high", 400, _USER, _groups("system:nodes"), (
            _rule(_EVERY, [""], ["nodes", "nodes/status"], True),
            _rule(_EVERY, ["coordination.k8s.io"], ["leases"]),
        )),
        _schema("probes", "exempt", 2, "", _ANYBODY, (), (
            {"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]},
        )),
        _schema("system-leader-election", "leader-election", 100, _USER, [
            *_users(_MANAGER, _SCHEDULER), *_accounts("*")], (_LEASES,)),
        _schema("endpoint-controller", "workload-high", 150, _USER, [
            *_users(_MANAGER), *_accounts("endpoint-controller", "endpointslicemirroring-controller"),
        ], (_rule(_LEADING, [""], ["endpoints"]),)),
        _schema("workload-leader-election", "leader-election", 200, _USER, _accounts("*"), (
            _rule(_LEADING, [""], ["endpoints", "configmaps"]), _LEASES,
        )),
        _schema("kube-controller-manager", "workload-high", 800, _NAMESPACE, _users(_MANAGER)),
        _schema("kube-scheduler", "workload-high", 800, _NAMESPACE, _users(_SCHEDULER)),
        _schema("kube-system-service-accounts", "workload-high", 900, _NAMESPACE, _accounts("*")),
        _schema("service-accounts", "workload-low", 9000, _USER, _groups("system:serviceaccounts")),
        _schema("global-default", "global-default", 9900, _USER, _ANYBODY),
    )
}  # fmt: skip
