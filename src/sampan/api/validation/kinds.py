"""The rules of each kind: the one table from a kind to its checks."""

from __future__ import annotations

from sampan.api.validation import Rules, formats

_RBAC = "rbac.authorization.k8s.io"

RULES: dict[tuple[str, str], Rules] = {
    ("", "Namespace"): Rules(formats.dns1123_label),
    ("", "Service"): Rules(formats.dns1035_label),
    (_RBAC, "Role"): Rules(formats.path_segment),
    (_RBAC, "ClusterRole"): Rules(formats.path_segment),
    (_RBAC, "RoleBinding"): Rules(formats.path_segment),
    (_RBAC, "ClusterRoleBinding"): Rules(formats.path_segment),
}
"""Keyed by group and kind. What is not here has the name of a DNS subdomain and no more rules."""
