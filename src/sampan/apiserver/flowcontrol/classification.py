"""Which FlowSchema a request belongs to, and which flow of it.

Upstream: `k8s.io/apiserver/pkg/util/flowcontrol/rule.go`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sampan.api.errors import Object
from sampan.apiserver.tokens import split_user_name
from sampan.apiserver.types import RequestInfo, User

_MOST_REMEMBERED = 8192


@dataclass(frozen=True, slots=True)
class Flow:
    """What is treated alike: the requests of one FlowSchema that its distinguisher does not tell apart."""

    schema: str
    schema_uid: str
    level: str
    distinguisher: str


class Classifier:
    """The FlowSchemas in their order. Verdicts are remembered by what rules can look at."""

    def __init__(self, schemas: Iterable[Object], levels: Mapping[str, object]) -> None:
        """Of the schemas only those count whose level is among `levels`."""
        usable = [s for s in schemas if level_of(s) in levels]
        self._schemas = sorted(
            usable, key=lambda s: (s["spec"].get("matchingPrecedence", 0), s["metadata"]["name"])
        )
        self._known: dict[tuple[Any, ...], Flow] = {}

    def classify(self, user: User, info: RequestInfo) -> Flow:
        """The flow of a request. (catch-all is there for whatever no other schema wants.)"""
        if info.is_resource:
            key: tuple[Any, ...] = (
                user.name, user.groups, info.verb, info.group, info.plural, info.subresource, info.namespace,
            )  # fmt: skip
        else:
            key = (user.name, user.groups, info.verb, info.path)
        found = self._known.get(key)
        if found is None:
            found = self._first(user, info)
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            self._known[key] = found
        return found

    def _first(self, user: User, info: RequestInfo) -> Flow:
        for schema in self._schemas:
            if any(_fits(rule, user, info) for rule in schema["spec"].get("rules") or ()):
                how = (schema["spec"].get("distinguisherMethod") or {}).get("type")
                flow = user.name if how == "ByUser" else info.namespace if how == "ByNamespace" else ""
                metadata = schema["metadata"]
                return Flow(metadata["name"], metadata["uid"], level_of(schema), flow)
        return Flow("catch-all", "", "catch-all", user.name)


def level_of(schema: Object) -> str:
    """The name of the priority level that a FlowSchema refers to."""
    return str(schema["spec"]["priorityLevelConfiguration"]["name"])


def _fits(rule: Object, user: User, info: RequestInfo) -> bool:
    if not any(_is_subject(s, user) for s in rule.get("subjects") or ()):
        return False
    if info.is_resource:
        return any(_fits_resource(r, info) for r in rule.get("resourceRules") or ())
    return any(_fits_path(r, info) for r in rule.get("nonResourceRules") or ())


def _is_subject(subject: Object, user: User) -> bool:
    kind = subject.get("kind")
    if kind == "User":
        return subject["user"]["name"] in ("*", user.name)
    if kind == "Group":
        wanted = subject["group"]["name"]
        return wanted == "*" or wanted in user.groups
    account = split_user_name(user.name)
    wanted = subject["serviceAccount"]
    return account is not None and account[0] == wanted["namespace"] and wanted["name"] in ("*", account[1])


def _has(wanted: Sequence[str], value: str) -> bool:
    return "*" in wanted or value in wanted


def _fits_resource(rule: Object, info: RequestInfo) -> bool:
    asked = f"{info.plural}/{info.subresource}" if info.subresource else info.plural
    if not (
        _has(rule.get("verbs") or (), info.verb)
        and _has(rule.get("apiGroups") or (), info.group)
        and _has(rule.get("resources") or (), asked)
    ):
        return False
    return (
        _has(rule.get("namespaces") or (), info.namespace)
        if info.namespace
        else bool(rule.get("clusterScope"))
    )


def _fits_path(rule: Object, info: RequestInfo) -> bool:
    if not _has(rule.get("verbs") or (), info.verb):
        return False
    for url in rule.get("nonResourceURLs") or ():
        if url in ("*", info.path) or (url.endswith("/*") and info.path.startswith(url[:-1])):
            return True
    return False
