"""RBAC: roles are lists of rules, bindings give them to users, groups and ServiceAccounts.

Rules are compiled when first used. Bindings are indexed by subject, and a change of one touches its own entries alone;
it also drops every remembered decision. So neither a decision nor a change costs more where there are many bindings.

Upstream: `plugin/pkg/auth/authorizer/rbac` and `pkg/registry/rbac/validation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sampan.api import resources
from sampan.api.errors import Object
from sampan.api.resources import Resource
from sampan.apiserver.authorization.binding_index import BindingIndex, Grant
from sampan.apiserver.types import Decision, ReadCache, RequestInfo, User

GROUP = "rbac.authorization.k8s.io"
_REMEMBERED = 8192
_DENIED = Decision(False)


@dataclass(frozen=True, slots=True)
class Rule:
    """A PolicyRule, ready to be asked."""

    verbs: frozenset[str]
    groups: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    urls: tuple[str, ...] = ()

    @classmethod
    def compile(cls, rule: Mapping[str, Sequence[str]]) -> Rule:
        return cls(
            frozenset(rule.get("verbs") or ()),
            frozenset(rule.get("apiGroups") or ()),
            frozenset(rule.get("resources") or ()),
            frozenset(rule.get("resourceNames") or ()),
            tuple(rule.get("nonResourceURLs") or ()),
        )

    def allows(self, info: RequestInfo) -> bool:
        if "*" not in self.verbs and info.verb not in self.verbs:
            return False
        if not info.is_resource:
            return self._matches_url(info.path)
        if "*" not in self.groups and info.group not in self.groups:
            return False
        if not self._matches_resource(info.plural, info.subresource):
            return False
        return not self.names or info.name in self.names

    def _matches_resource(self, plural: str, subresource: str) -> bool:
        if "*" in self.resources:
            return True
        if not subresource:
            return plural in self.resources
        return f"{plural}/{subresource}" in self.resources or f"*/{subresource}" in self.resources

    def _matches_url(self, path: str) -> bool:
        return any(u == "*" or u == path or (u[-1:] == "*" and path.startswith(u[:-1])) for u in self.urls)

    def covers_url(self, url: str) -> bool:
        return any(
            u == "*" or u == url or (u[-1:] == "*" and url.rstrip("*").startswith(u[:-1])) for u in self.urls
        )

    def covers(self, part: Rule) -> bool:
        """Whether this rule allows all that `part`, a rule of `breakdown()`, allows."""
        if "*" not in self.verbs and not part.verbs <= self.verbs:
            return False
        if part.urls:
            return all(self.covers_url(u) for u in part.urls)
        if "*" not in self.groups and not part.groups <= self.groups:
            return False
        if not all(r in self.resources or self._matches_resource(*_split(r)) for r in part.resources):
            return False
        return not self.names or (bool(part.names) and part.names <= self.names)

    def breakdown(self) -> Iterator[Rule]:
        """This rule as rules of one verb on one thing each, together worth the same."""
        for verb in self.verbs:
            verbs = frozenset((verb,))
            for url in self.urls:
                yield Rule(verbs, urls=(url,))
            for group in self.groups:
                for resource in self.resources:
                    groups, one = frozenset((group,)), frozenset((resource,))
                    if not self.names:
                        yield Rule(verbs, groups, one)
                    for name in self.names:
                        yield Rule(verbs, groups, one, frozenset((name,)))


def _split(resource: str) -> tuple[str, str]:
    plural, _, subresource = resource.partition("/")
    return plural, subresource


def uncovered(held: Sequence[Rule], wanted: Iterable[Rule]) -> list[Rule]:
    """Those atoms of `wanted` that no rule of `held` covers."""
    return [part for rule in wanted for part in rule.breakdown() if not any(h.covers(part) for h in held)]


def compact(parts: Iterable[Rule]) -> list[Rule]:
    """Rules of `breakdown()` about the same thing as one with all their verbs; what a person reads."""
    verbs: dict[Rule, frozenset[str]] = {}
    for part in parts:
        thing = replace(part, verbs=frozenset())
        verbs[thing] = verbs.get(thing, frozenset()) | part.verbs
    return [replace(thing, verbs=found) for thing, found in verbs.items()]


@dataclass(slots=True)
class UserRules:
    """Every rule that applies to a user in a namespace, as PolicyRules. `errors` names roles that are missing."""

    rules: list[Object] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


class RBACAuthorizer:
    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache
        self._bindings = BindingIndex(cache, self.forget)
        self._rules: dict[tuple[str, str], tuple[Rule, ...] | None] = {}
        self._decisions: dict[tuple[object, ...], Decision] = {}
        cache.on_change(resources.CLUSTERROLES, self._role_changed)
        cache.on_change(resources.ROLES, self._role_changed)

    def forget(self) -> None:
        """Decide everything anew from here on."""
        self._decisions.clear()

    def _role_changed(self, old: Object | None, new: Object | None) -> None:
        meta = (new or old or {}).get("metadata") or {}
        self._rules.pop((meta.get("namespace", ""), meta.get("name", "")), None)
        self.forget()

    def authorize(self, user: User, info: RequestInfo) -> Decision:
        """Whether some rule of `user`'s allows it, and which binding gave the rule."""
        scope = _scope(info)
        if info.is_resource:
            key: tuple[object, ...] = (
                user.name, user.groups, info.verb, info.group, info.plural, info.subresource, scope, info.name,
            )  # fmt: skip
        else:
            key = (user.name, user.groups, info.verb, info.path)
        decision = self._decisions.get(key)
        if decision is None:
            decision = self._decide(user, info, scope)
            if len(self._decisions) >= _REMEMBERED:
                self._decisions.clear()
            self._decisions[key] = decision
        return decision

    def _decide(self, user: User, info: RequestInfo, scope: str) -> Decision:
        missing: list[str] = []
        for grant in self._bindings.grants(user, scope):
            rules = self._role(grant)
            if rules is None:
                missing.append(_missing(grant))
                continue
            if any(rule.allows(info) for rule in rules):
                return Decision(True, f"RBAC: allowed by {grant.source}")
        return Decision(False, f"RBAC: {_join(missing)}") if missing else _DENIED

    def rules(self, user: User, namespace: str) -> UserRules:
        """Every rule that `user` has in `namespace` ("": at the cluster scope alone)."""
        out = UserRules()
        for grant in self._bindings.grants(user, namespace):
            role = self._object(grant)
            if role is None:
                out.errors.append(_missing(grant))
            else:
                out.rules.extend(role.get("rules") or ())
        return out

    def held(self, user: User, namespace: str) -> tuple[list[Rule], list[str]]:
        """The same, compiled, and which roles are missing."""
        found: list[Rule] = []
        missing: list[str] = []
        for grant in self._bindings.grants(user, namespace):
            rules = self._role(grant)
            if rules is None:
                missing.append(_missing(grant))
            else:
                found += rules
        return found, missing

    def _role(self, grant: Grant) -> tuple[Rule, ...] | None:
        key = (grant.role_namespace, grant.role)
        if key not in self._rules:
            role = self._object(grant)
            self._rules[key] = (
                None if role is None else tuple(Rule.compile(r) for r in role.get("rules") or ())
            )
        return self._rules[key]

    def _object(self, grant: Grant) -> Object | None:
        resource: Resource = resources.ROLES if grant.role_namespace else resources.CLUSTERROLES
        return self._cache.get(resource, grant.role_namespace, grant.role)


def _scope(info: RequestInfo) -> str:
    """The namespace whose RoleBindings count for a request. What belongs to no namespace is not reached through one,
    whatever path was asked for; only a namespace itself is within itself."""
    if not info.is_resource:
        return ""
    resource = info.resource
    if resource is None or resource.namespaced:
        return info.namespace
    return info.namespace if resource is resources.NAMESPACES and info.name == info.namespace else ""


def _missing(grant: Grant) -> str:
    kind = "role" if grant.role_namespace else "clusterrole"
    return f'{kind}.{GROUP} "{grant.role}" not found'


def _join(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else "[" + ", ".join(texts) + "]"
