"""Nobody gives away more than they have: the rules of a role, or of the role a binding names, must be the writer's own.

Upstream does this in the storage of the RBAC kinds (`pkg/registry/rbac/*/policybased`); the verbs `escalate` (on a
role) and `bind` (on the role a binding names) are the way around it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from sampan.api import errors, resources
from sampan.api.errors import Object
from sampan.api.resources import Resource
from sampan.apiserver.admission.plugin import WRITES, Plugin, refuse
from sampan.apiserver.admission.rights import ask
from sampan.apiserver.authorization import UnionAuthorizer
from sampan.apiserver.authorization.rbac import GROUP, Rule, compact, uncovered
from sampan.apiserver.types import SYSTEM_MASTERS, Attributes, ReadCache

_ROLES = (resources.ROLES, resources.CLUSTERROLES)


class PrivilegeEscalation(Plugin):
    resources = frozenset(f"{p}.{GROUP}" for p in ("roles", "rolebindings", "clusterroles", "clusterrolebindings"))  # fmt: skip
    operations = WRITES

    def __init__(self, cache: ReadCache, authorizer: UnionAuthorizer) -> None:
        self._cache = cache
        self._authorizer = authorizer

    async def validate(self, attributes: Attributes) -> None:
        obj, old = attributes.obj, attributes.old
        if obj is None or attributes.operation not in ("CREATE", "UPDATE"):
            return
        if SYSTEM_MASTERS in attributes.user.groups:
            return
        if attributes.resource in _ROLES:
            if old is not None and _same(obj, old, "rules", "aggregationRule"):
                return
            self._check_role(attributes, obj)
        elif old is None or not _same(obj, old, "roleRef", "subjects"):
            self._check_binding(attributes, obj["roleRef"])

    def _check_role(self, attributes: Attributes, role: Object) -> None:
        name = attributes.name or role["metadata"].get("name", "")
        if self._may(attributes, "escalate", attributes.resource, _home(attributes), name):
            return
        rules = list(role.get("rules") or ())
        if role.get("aggregationRule"):
            # What an aggregated role will hold is not known now, so that its writer must hold everything.
            rules.append({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]})
            rules.append({"nonResourceURLs": ["*"], "verbs": ["*"]})
        self._check_held(attributes, rules)

    def _check_binding(self, attributes: Attributes, reference: Object) -> None:
        cluster = reference.get("kind") == "ClusterRole"
        resource = resources.CLUSTERROLES if cluster else resources.ROLES
        name = str(reference.get("name", ""))
        if self._may(attributes, "bind", resource, _home(attributes), name):
            return
        role = self._cache.get(resource, "" if cluster else _home(attributes), name)
        if role is None:
            raise errors.not_found(resource.plural, name, GROUP)
        self._check_held(attributes, role.get("rules") or ())

    def _may(self, attributes: Attributes, verb: str, resource: Resource, namespace: str, name: str) -> bool:
        return ask(self._authorizer, attributes.user, verb, resource, namespace, name).allowed

    def _check_held(self, attributes: Attributes, rules: Iterable[Object]) -> None:
        user = attributes.user
        held, unresolved = self._authorizer.rbac.held(user, _home(attributes))
        missing = uncovered(held, (Rule.compile(r) for r in rules))
        if missing:
            listed = "\n".join(sorted(_show(r) for r in compact(missing)))
            why = (
                f"user {json.dumps(user.name)} (groups={_quoted(user.groups)}) is attempting to grant RBAC permissions "
                f"not currently held:\n{listed}"
            )
            if unresolved:
                why = f"{why}; resolution errors: {_quoted(unresolved)}"
            raise refuse(attributes, why)


def _home(attributes: Attributes) -> str:
    return attributes.namespace if attributes.resource.namespaced else ""


def _same(a: Object, b: Object, *fields: str) -> bool:
    return all((a.get(f) or None) == (b.get(f) or None) for f in fields)


def _show(rule: Rule) -> str:
    parts = {
        "APIGroups": rule.groups,
        "Resources": rule.resources,
        "NonResourceURLs": rule.urls,
        "ResourceNames": rule.names,
        "Verbs": rule.verbs,
    }
    return "{" + ", ".join(f"{k}:{_quoted(sorted(v))}" for k, v in parts.items() if v) + "}"


def _quoted(texts: Iterable[str]) -> str:
    """Texts as upstream's messages list them: `["a" "b"]`."""
    return "[" + " ".join(json.dumps(t, ensure_ascii=False) for t in texts) + "]"
