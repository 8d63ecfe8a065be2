"""The words in which the policy is written down: one call a rule."""

from __future__ import annotations

from sampan.api.errors import Object

GROUP = "rbac.authorization.k8s.io"
AUTOUPDATE = "rbac.authorization.kubernetes.io/autoupdate"
READ = "get list watch"
WRITE = "create delete deletecollection patch update"
READ_WRITE = f"{WRITE} {READ}"
READ_UPDATE = f"{READ} patch update"


def rule(verbs: str, groups: str, resources: str, names: str = "") -> Object:
    """A rule about resources. `groups` are parted by commas, the core group being ""; the rest by blanks."""
    made: Object = {
        "apiGroups": groups.split(","),
        "resources": sorted(resources.split()),
        "verbs": sorted(verbs.split()),
    }
    if names:
        made["resourceNames"] = names.split()
    return made


def urls(paths: str) -> Object:
    """A rule about reading paths that are no resources."""
    return {"nonResourceURLs": paths.split(), "verbs": ["get"]}


EVENTS = rule("create patch update", ",events.k8s.io", "events")


def metadata(name: str, namespace: str = "", labels: tuple[str, ...] = ()) -> Object:
    """The metadata of a default object: it is brought up to date at each start unless the annotation says no."""
    made: Object = {
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults", **dict.fromkeys(labels, "true")},
        "annotations": {AUTOUPDATE: "true"},
    }
    if namespace:
        made["namespace"] = namespace
    return made


def role(name: str, *rules: Object, namespace: str = "", labels: tuple[str, ...] = ()) -> Object:
    """A ClusterRole, or in a namespace a Role."""
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Role" if namespace else "ClusterRole",
        "metadata": metadata(name, namespace, labels),
        "rules": list(rules),
    }


def binding(role_name: str, *subjects: tuple[str, str], namespace: str = "", name: str = "") -> Object:
    """The binding of a role to subjects, each a kind and a name (of a ServiceAccount `NAMESPACE:NAME`)."""
    made: Object = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "RoleBinding" if namespace else "ClusterRoleBinding",
        "metadata": metadata(name or role_name, namespace),
        "roleRef": {"apiGroup": GROUP, "kind": "Role" if namespace else "ClusterRole", "name": role_name},
    }
    if subjects:
        made["subjects"] = [_subject(*subject) for subject in subjects]
    return made


def _subject(kind: str, name: str) -> Object:
    if kind == "ServiceAccount":
        namespace, _, name = name.partition(":")
        return {"kind": kind, "name": name, "namespace": namespace}
    return {"apiGroup": GROUP, "kind": kind, "name": name}
