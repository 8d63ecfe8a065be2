"""Roles and their bindings."""

from __future__ import annotations

from sampan.api.errors import FieldError, Object, invalid_value, not_supported, required
from sampan.api.validation import formats, metadata
from sampan.api.validation.values import Problems, formatted, named, present

GROUP = "rbac.authorization.k8s.io"


def role(obj: Object) -> Problems:
    return _rules(obj, namespaced=True)


def cluster_role(obj: Object) -> Problems:
    out = _rules(obj, namespaced=False)
    aggregation = obj.get("aggregationRule")
    if aggregation is not None:
        selectors = aggregation.get("clusterRoleSelectors") or []
        path = "aggregationRule.clusterRoleSelectors"
        out += present(
            path, selectors, "at least one clusterRoleSelector required if aggregationRule is non-nil"
        )
        for i, selector in enumerate(selectors):
            out += metadata.label_selector(selector, f"{path}[{i}]")
    return out


def _rules(obj: Object, namespaced: bool) -> Problems:
    out: list[FieldError] = []
    for i, rule in enumerate(obj.get("rules") or ()):
        at = f"rules[{i}]"
        out += present(f"{at}.verbs", rule.get("verbs"), "verbs must contain at least one value")
        urls = rule.get("nonResourceURLs")
        if urls:
            where = f"{at}.nonResourceURLs"
            if namespaced:
                detail = "namespaced rules cannot apply to non-resource URLs"
                out.append(invalid_value(where, urls, detail))
            if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                detail = "rules cannot apply to both regular resources and non-resource URLs"
                out.append(invalid_value(where, urls, detail))
            continue
        out += present(
            f"{at}.apiGroups", rule.get("apiGroups"), "resource rules must supply at least one api group"
        )
        out += present(
            f"{at}.resources", rule.get("resources"), "resource rules must supply at least one resource"
        )
    return out


def role_binding(obj: Object) -> Problems:
    return _binding(obj, ("Role", "ClusterRole"), namespaced=True)


def cluster_role_binding(obj: Object) -> Problems:
    return _binding(obj, ("ClusterRole",), namespaced=False)


def _binding(obj: Object, kinds: tuple[str, ...], namespaced: bool) -> Problems:
    out: list[FieldError] = []
    reference = obj.get("roleRef") or {}
    if reference.get("apiGroup") != GROUP:
        out.append(not_supported("roleRef.apiGroup", reference.get("apiGroup", ""), (GROUP,)))
    if reference.get("kind") not in kinds:
        out.append(not_supported("roleRef.kind", reference.get("kind", ""), kinds))
    out += named("roleRef.name", reference.get("name"), formats.path_segment)
    for i, subject in enumerate(obj.get("subjects") or ()):
        out += _subject(subject, f"subjects[{i}]", namespaced)
    return out


def _subject(subject: Object, path: str, namespaced: bool) -> Problems:
    out: list[FieldError] = []
    kind, name, group = subject.get("kind", ""), subject.get("name") or "", subject.get("apiGroup") or ""
    if not name:
        out.append(required(f"{path}.name"))
    if kind == "ServiceAccount":
        if name:
            out += formatted(f"{path}.name", name, formats.dns1123_subdomain)
        if group:
            out.append(not_supported(f"{path}.apiGroup", group, ("",)))
        if not subject.get("namespace"):
            out.append(required(f"{path}.namespace"))
    elif kind in ("User", "Group"):
        if group != GROUP:
            out.append(not_supported(f"{path}.apiGroup", group, (GROUP,)))
    else:
        out.append(not_supported(f"{path}.kind", kind, ("ServiceAccount", "User", "Group")))
    return out


def role_binding_update(new: Object, old: Object, subresource: str) -> Problems:
    return role_binding(new) + _same_role(new, old)


def cluster_role_binding_update(new: Object, old: Object, subresource: str) -> Problems:
    return cluster_role_binding(new) + _same_role(new, old)


def _same_role(new: Object, old: Object) -> Problems:
    if new.get("roleRef") == old.get("roleRef"):
        return []
    return [invalid_value("roleRef", new.get("roleRef"), "cannot change roleRef")]
