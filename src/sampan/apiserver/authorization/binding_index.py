"""Who is bound to which roles: RoleBindings and ClusterRoleBindings by their subjects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sampan.api import resources
from sampan.api.errors import Object
from sampan.apiserver.tokens import user_name
from sampan.apiserver.types import ReadCache, User

_Subject = tuple[str, str, str]
"""The binding's namespace ("" for the cluster), then `User` or `Group`, and the name."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One binding's gift to one subject."""

    source: str
    """Which binding, for the decision's reason."""
    role_namespace: str
    """"" where the role is a ClusterRole."""
    role: str


class BindingIndex:
    """Follows the cache's bindings; `changed` is called after each change of them."""

    def __init__(self, cache: ReadCache, changed: Callable[[], None]) -> None:
        self._cache = cache
        self._changed = changed
        self._filled = False
        self._grants: dict[_Subject, dict[str, Grant]] = {}
        """Grants by subject; those of one subject by the binding's name and the grant's place in it."""
        self._entries: dict[tuple[str, str], list[tuple[_Subject, str]]] = {}
        """Where the grants of each binding, by its namespace and name, stand."""
        for resource in (resources.CLUSTERROLEBINDINGS, resources.ROLEBINDINGS):
            cache.on_change(resource, self._binding_changed)

    def grants(self, user: User, namespace: str) -> Iterator[Grant]:
        """What a user has been given for the whole cluster, then for a namespace."""
        if not self._filled:
            self._fill()
        for scope in ("", namespace) if namespace else ("",):
            yield from self._of((scope, "User", user.name))
            for group in user.groups:
                yield from self._of((scope, "Group", group))

    def _of(self, subject: _Subject) -> Iterator[Grant]:
        return iter(self._grants.get(subject, {}).values())

    def _fill(self) -> None:
        # At the first question, so that it does not matter whether the cache was full when we were made.
        self._filled = True
        for resource in (resources.CLUSTERROLEBINDINGS, resources.ROLEBINDINGS):
            for binding in self._cache.list(resource):
                self._add(binding)

    def _binding_changed(self, old: Object | None, new: Object | None) -> None:
        if self._filled:
            for binding in (old, new):
                if binding is not None:
                    self._remove(binding)
            if new is not None:
                self._add(new)
        self._changed()

    def _remove(self, binding: Object) -> None:
        for subject, place in self._entries.pop(_key(binding), ()):
            grants = self._grants[subject]
            del grants[place]
            if not grants:
                del self._grants[subject]

    def _add(self, binding: Object) -> None:
        key = namespace, name = _key(binding)
        ref = binding["roleRef"]
        kind, shown = ("RoleBinding", f"{name}/{namespace}") if namespace else ("ClusterRoleBinding", name)
        entries: list[tuple[_Subject, str]] = []
        for i, subject in enumerate(binding.get("subjects") or ()):
            subject_kind, subject_name = subject.get("kind"), subject.get("name", "")
            described = f'{subject_kind} "{subject_name}"'
            if subject_kind == "ServiceAccount":
                home = subject.get("namespace") or namespace
                described = f'ServiceAccount "{subject_name}/{home}"'
                subject_kind, subject_name = "User", user_name(home, subject_name)
            grant = Grant(
                f'{kind} "{shown}" of {ref["kind"]} "{ref["name"]}" to {described}',
                namespace if ref["kind"] == "Role" else "",
                ref["name"],
            )
            entry = ((namespace, str(subject_kind), subject_name), f"{name} {i}")
            self._grants.setdefault(entry[0], {})[entry[1]] = grant
            entries.append(entry)
        if entries:
            self._entries[key] = entries


def _key(binding: Object) -> tuple[str, str]:
    meta = binding["metadata"]
    return meta.get("namespace", ""), meta["name"]
