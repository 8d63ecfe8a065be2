"""Roles within kube-system and kube-public."""

from __future__ import annotations

from sampan.api.errors import Object
from sampan.apiserver.authorization.bootstrap_policy.rules import EVENTS, READ, binding, role, rule

_SYSTEM, _PUBLIC = "kube-system", "kube-public"
_READER = "extension-apiserver-authentication-reader"
_SIGNER = "system:controller:bootstrap-signer"
_CLOUD = "system:controller:cloud-provider"
_CLEANER = "system:controller:token-cleaner"
_DNS = "sampan:node-dns"
_LEADER = "system::leader-locking-kube-"


def roles() -> list[Object]:
    return [
        role(_READER, rule(READ, "", "configmaps", "extension-apiserver-authentication"), namespace=_SYSTEM),
        role(_SIGNER, rule(READ, "", "secrets"), namespace=_SYSTEM),
        role(_CLOUD, rule(f"create {READ}", "", "configmaps"), namespace=_SYSTEM),
        role(_CLEANER, rule(f"delete {READ}", "", "secrets"), EVENTS, namespace=_SYSTEM),
        *(_leader(part) for part in ("controller-manager", "scheduler")),
        role(_DNS, rule(READ, "", "configmaps", "coredns"), namespace=_SYSTEM),
        role(
            _SIGNER,
            rule(READ, "", "configmaps"),
            rule("update", "", "configmaps", "cluster-info"),
            EVENTS,
            namespace=_PUBLIC,
        ),
    ]


def _leader(part: str) -> Object:
    return role(
        f"{_LEADER}{part}",
        rule("watch", "", "configmaps"),
        rule("get update", "", "configmaps", f"kube-{part}"),
        namespace=_SYSTEM,
    )


def bindings() -> list[Object]:
    managers = [("User", "system:kube-controller-manager"), ("User", "system:kube-scheduler")]
    return [
        binding(_READER, *managers, namespace=_SYSTEM, name=f"system::{_READER}"),
        *(
            binding(
                f"{_LEADER}{part}",
                ("User", f"system:kube-{part}"),
                ("ServiceAccount", f"{_SYSTEM}:kube-{part}"),
                namespace=_SYSTEM,
            )
            for part in ("controller-manager", "scheduler")
        ),
        binding(_SIGNER, ("ServiceAccount", f"{_SYSTEM}:bootstrap-signer"), namespace=_SYSTEM),
        binding(_DNS, ("Group", "system:nodes"), namespace=_SYSTEM),
        binding(_CLOUD, ("ServiceAccount", f"{_SYSTEM}:cloud-provider"), namespace=_SYSTEM),
        binding(_CLEANER, ("ServiceAccount", f"{_SYSTEM}:token-cleaner"), namespace=_SYSTEM),
        binding(_SIGNER, ("ServiceAccount", f"{_SYSTEM}:bootstrap-signer"), namespace=_PUBLIC),
    ]
