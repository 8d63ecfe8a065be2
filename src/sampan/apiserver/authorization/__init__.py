"""Whether a user may: superusers, then nodes, then RBAC; the first that says yes decides.

Upstream: `k8s.io/apiserver/pkg/authorization/union`, with `--authorization-mode=Node,RBAC`.
"""

from __future__ import annotations

import json

from sampan.api import errors
from sampan.api.errors import StatusError
from sampan.apiserver.authorization.node import NodeAuthorizer, node_name
from sampan.apiserver.authorization.rbac import RBACAuthorizer, UserRules
from sampan.apiserver.config import Config
from sampan.apiserver.types import SYSTEM_MASTERS, Decision, ReadCache, RequestInfo, User

_MASTER = Decision(True)


class UnionAuthorizer:
    """The `Authorizer` of a server."""

    def __init__(self, config: Config, cache: ReadCache) -> None:
        self._node = NodeAuthorizer(cache, config.front_doors)
        self.rbac = RBACAuthorizer(cache)

    def authorize(self, user: User, info: RequestInfo) -> Decision:
        if SYSTEM_MASTERS in user.groups:
            return _MASTER
        node = self._node.authorize(user, info)
        if node is not None and node.allowed:
            return node
        decision = self.rbac.authorize(user, info)
        if decision.allowed or node is None:
            return decision
        reasons = [r for r in (node.reason, decision.reason) if r]
        return Decision(False, ", ".join(reasons))

    def rules(self, user: User, namespace: str) -> UserRules:
        """What `user` may do in `namespace` as far as rules can tell; the node authorizer's answers depend on the
        object and are left out, as upstream does."""
        found = self.rbac.rules(user, namespace)
        if node_name(user) is not None:
            found.errors.append("node authorizer does not support user rule resolution")
        return found


def build(config: Config, cache: ReadCache) -> UnionAuthorizer:
    """The authorizer over what `cache` holds; keep one a server, it follows the cache's changes."""
    return UnionAuthorizer(config, cache)


def action(user: User, info: RequestInfo) -> str:
    """`User "x" cannot list resource "pods" in API group "" in the namespace "default"`."""
    who = f"User {_quote(user.name)} cannot {info.verb}"
    if not info.is_resource:
        return f"{who} path {_quote(info.path)}"
    what = f"{info.plural}/{info.subresource}" if info.subresource else info.plural
    where = f"in the namespace {_quote(info.namespace)}" if info.namespace else "at the cluster scope"
    return f"{who} resource {_quote(what)} in API group {_quote(info.group)} {where}"


def forbidden(user: User, info: RequestInfo, reason: str = "") -> StatusError:
    """The refusal of a request, worded as upstream words it. `reason` is the decision's."""
    message = action(user, info)
    if reason:
        message = f"{message}: {reason}"
    if not info.is_resource:
        return StatusError(403, "Forbidden", f"forbidden: {message}", {})
    return errors.forbidden(info.plural, info.name, message, info.group)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
