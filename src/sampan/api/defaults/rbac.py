"""Defaults of rbac.authorization.k8s.io."""

from __future__ import annotations

from sampan.api.errors import Object

GROUP = "rbac.authorization.k8s.io"


def binding(obj: Object) -> None:
    reference = obj.get("roleRef")
    if reference is not None and not reference.get("apiGroup"):
        reference["apiGroup"] = GROUP
    for subject in obj.get("subjects") or ():
        if not subject.get("apiGroup"):
            # The group of a ServiceAccount is the core group, which is written as absent.
            if subject.get("kind") in ("User", "Group"):
                subject["apiGroup"] = GROUP
            else:
                subject.pop("apiGroup", None)
