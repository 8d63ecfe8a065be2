"""What an Ingress refers to besides Services: the Secrets and ConfigMaps that whoever serves it must read."""

from __future__ import annotations

from collections.abc import Iterator

from sampan.api import ingress_tls
from sampan.api.errors import Object

SECRET_ANNOTATIONS = (
    "sampan.io/basic-auth-secret",
    "sampan.io/backend-ca-secret",
    "nginx.ingress.kubernetes.io/auth-secret",
)
"""Annotations that name a Secret of the Ingress's namespace (or `namespace/name`, which must be the same one)."""
CONFIGMAP_ANNOTATIONS = ("sampan.io/error-pages",)
"""Annotations that name a ConfigMap of the Ingress's namespace."""


def references(ingress: Object) -> Iterator[tuple[str, str]]:
    """(plural, name) of each object of its namespace that an Ingress refers to."""
    for _, name in ingress_tls.entries(ingress):
        yield "secrets", name
    yield from annotated(ingress)


def annotated(ingress: Object) -> Iterator[tuple[str, str]]:
    """(plural, name) of those that annotations name."""
    meta = ingress["metadata"]
    annotations = meta.get("annotations") or {}
    for plural, keys in (("secrets", SECRET_ANNOTATIONS), ("configmaps", CONFIGMAP_ANNOTATIONS)):
        for key in keys:
            if name := own_name(annotations.get(key) or "", meta.get("namespace", "")):
                yield plural, name


def own_name(text: str, namespace: str) -> str:
    """The name in `name` or `namespace/name`; "" where it is of another namespace, which is none of the Ingress's business."""
    where, slash, name = text.strip().partition("/")
    if not slash:
        return where
    return name if where == namespace else ""
