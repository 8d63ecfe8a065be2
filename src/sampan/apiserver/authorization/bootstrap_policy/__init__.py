"""The roles and bindings that every cluster starts with, as data.

Facts of upstream's bootstrap policy (`plugin/pkg/auth/authorizer/rbac/bootstrappolicy`) with the feature gates of
v1.36 at their defaults. Kinds that are not served here are named all the same, so that a binding to `edit` means the
same as elsewhere.
"""

from __future__ import annotations

from sampan.api.errors import Object
from sampan.apiserver.authorization.bootstrap_policy import controllers, namespaced, users
from sampan.apiserver.authorization.bootstrap_policy.rules import AUTOUPDATE, GROUP
from sampan.apiserver.authorization.bootstrap_policy.users import NODE_RULES

__all__ = [
    "AUTOUPDATE",
    "GROUP",
    "NODE_RULES",
    "cluster_role_bindings",
    "cluster_roles",
    "role_bindings",
    "roles",
]


def cluster_roles() -> list[Object]:
    """Every default ClusterRole, freshly made."""
    return users.roles() + controllers.roles()


def cluster_role_bindings() -> list[Object]:
    """Every default ClusterRoleBinding, freshly made."""
    return users.bindings() + controllers.bindings()


def roles() -> list[Object]:
    """Every default Role, freshly made."""
    return namespaced.roles()


def role_bindings() -> list[Object]:
    """Every default RoleBinding, freshly made."""
    return namespaced.bindings()
