"""The audit policy file (audit.k8s.io/v1 Policy): its first rule that fits a request decides how much is told of it.

Upstream: `k8s.io/apiserver/pkg/apis/audit/v1`, `pkg/audit/policy/checker.go`.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan.apiserver.configuration_file import Reader, document
from sampan.apiserver.types import RequestInfo, User


class Level(enum.IntEnum):
    """How much is told; each level tells what the one before it does."""

    NONE = 0
    METADATA = 1
    REQUEST = 2
    REQUEST_RESPONSE = 3

    @property
    def text(self) -> str:
        return _LEVEL_NAMES[self]


class Stage(enum.Enum):
    """The moments of a request that are told of."""

    REQUEST_RECEIVED = "RequestReceived"
    RESPONSE_STARTED = "ResponseStarted"
    RESPONSE_COMPLETE = "ResponseComplete"
    PANIC = "Panic"


_LEVEL_NAMES = {
    Level.NONE: "None",
    Level.METADATA: "Metadata",
    Level.REQUEST: "Request",
    Level.REQUEST_RESPONSE: "RequestResponse",
}
_LEVELS = {name: level for level, name in _LEVEL_NAMES.items()}
_RULE_FIELDS = (
    "level",
    "users",
    "userGroups",
    "verbs",
    "resources",
    "namespaces",
    "nonResourceURLs",
    "omitStages",
    "omitManagedFields",
)


@dataclass(frozen=True, slots=True)
class Decision:
    """What is told of one request."""

    level: Level
    omitted: frozenset[Stage] = frozenset()
    omit_managed_fields: bool = False


@dataclass(frozen=True, slots=True)
class GroupResources:
    """Resources of one group (`pods`, `pods/log`, `pods/*`, `*/status`; all if empty), perhaps only some by name."""

    group: str
    resources: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def fit(self, info: RequestInfo) -> bool:
        if self.group != info.group:
            return False
        if self.names and info.name not in self.names:
            return False
        if not self.resources:
            return True
        asked = f"{info.plural}/{info.subresource}" if info.subresource else info.plural
        wildcards = {asked, "*"}
        if info.subresource:
            wildcards |= {f"{info.plural}/*", f"*/{info.subresource}"}
        return not wildcards.isdisjoint(self.resources)


@dataclass(frozen=True, slots=True)
class Rule:
    """Which requests it is about (an empty list: any) and what is told of them."""

    decision: Decision
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    resources: tuple[GroupResources, ...] = ()
    namespaces: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()

    def fits(self, user: User, info: RequestInfo) -> bool:
        if self.users and user.name not in self.users:
            return False
        if self.groups and not set(self.groups) & set(user.groups):
            return False
        if self.verbs and info.verb not in self.verbs:
            return False
        if self.namespaces or self.resources:
            return info.is_resource and self._fits_object(info)
        if self.urls:
            return not info.is_resource and any(_fits_url(url, info.path) for url in self.urls)
        return True

    def _fits_object(self, info: RequestInfo) -> bool:
        if self.namespaces and info.namespace not in self.namespaces:
            return False
        return not self.resources or any(r.fit(info) for r in self.resources)


def _fits_url(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern.rstrip("*")))


@dataclass(frozen=True, slots=True)
class Policy:
    rules: tuple[Rule, ...]

    def decide(self, user: User, info: RequestInfo) -> Decision:
        """The decision of the first rule that fits; nothing is told where none does."""
        return next((rule.decision for rule in self.rules if rule.fits(user, info)), _NOTHING)


_NOTHING = Decision(Level.NONE)


def load(path: Path) -> Policy:
    """Read a policy file. Raises OSError, ConfigurationError."""
    reader = _Reader()
    found = reader.policy(document(path, reader))
    reader.finish(path)
    return found


class _Reader(Reader):
    def policy(self, found: Any) -> Policy:
        top = self.object(
            "", found, ("apiVersion", "kind", "metadata", "rules", "omitStages", "omitManagedFields")
        )
        self.identity(top, "Policy", ("audit.k8s.io/v1",))
        stages = self._stages("omitStages", top.get("omitStages"))
        omit = self.flag("omitManagedFields", top.get("omitManagedFields"))
        rules = [
            self._rule(f"rules[{i}]", rule, stages, omit)
            for i, rule in enumerate(self.list("rules", top.get("rules")))
        ]
        if not rules:
            self.wrong("rules", "Required value: loaded illegal policy with 0 rules")
        return Policy(tuple(rules))

    def _rule(self, path: str, value: Any, stages: frozenset[Stage], omit: bool) -> Rule:
        given = self.object(path, value, _RULE_FIELDS)
        level = self.text(f"{path}.level", given.get("level"))
        if level not in _LEVELS:
            problem = "Required value" if not level else f'Unsupported value: "{level}"'
            self.wrong(f"{path}.level", f"{problem}: supported values: {_quoted(_LEVELS)}")
        if given.get("omitManagedFields") is not None:
            omit = self.flag(f"{path}.omitManagedFields", given["omitManagedFields"])
        stages |= self._stages(f"{path}.omitStages", given.get("omitStages"))
        resources = [
            self._resources(f"{path}.resources[{i}]", r)
            for i, r in enumerate(self.list(f"{path}.resources", given.get("resources")))
        ]
        namespaces = self.texts(f"{path}.namespaces", given.get("namespaces"))
        urls = self.texts(f"{path}.nonResourceURLs", given.get("nonResourceURLs"))
        for i, url in enumerate(urls):
            if url != "*" and not url.startswith("/"):
                why = "non-resource URL rules must begin with a '/' character"
                self.wrong(f"{path}.nonResourceURLs[{i}]", f'Invalid value: "{url}": {why}')
            elif url != "*" and "*" in url[:-1]:
                why = "non-resource URL wildcards '*' must be the final character of the rule"
                self.wrong(f"{path}.nonResourceURLs[{i}]", f'Invalid value: "{url}": {why}')
        if urls and (resources or namespaces):
            why = "rules cannot apply to both regular resources and non-resource URLs"
            self.wrong(f"{path}.nonResourceURLs", f"Invalid value: {why}")
        return Rule(
            Decision(_LEVELS.get(level, Level.NONE), stages, omit),
            self.texts(f"{path}.users", given.get("users")),
            self.texts(f"{path}.userGroups", given.get("userGroups")),
            self.texts(f"{path}.verbs", given.get("verbs")),
            tuple(resources),
            namespaces,
            urls,
        )

    def _resources(self, path: str, value: Any) -> GroupResources:
        given = self.object(path, value, ("group", "resources", "resourceNames"))
        group = self.text(f"{path}.group", given.get("group"))
        if "/" in group:
            self.wrong(f"{path}.group", f'Invalid value: "{group}": the group alone, without a version')
        resources = self.texts(f"{path}.resources", given.get("resources"))
        names = self.texts(f"{path}.resourceNames", given.get("resourceNames"))
        if names and not resources:
            why = "using resourceNames requires at least one resource"
            self.wrong(f"{path}.resourceNames", f"Invalid value: {why}")
        return GroupResources(group, resources, names)

    def _stages(self, path: str, value: Any) -> frozenset[Stage]:
        found = set()
        known = {s.value: s for s in Stage}
        for i, name in enumerate(self.texts(path, value)):
            if name in known:
                found.add(known[name])
            else:
                self.wrong(f"{path}[{i}]", f'Unsupported value: "{name}": supported values: {_quoted(known)}')
        return frozenset(found)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
