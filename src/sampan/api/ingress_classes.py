"""Which class an Ingress is of, and whose class that is."""

from __future__ import annotations

from sampan.api.errors import Object

CONTROLLER = "sampan.io/ingress"
"""What an IngressClass of ours has as its controller."""
CLASS_ANNOTATION = "kubernetes.io/ingress.class"
"""How a class was said before there was a field for it."""


def class_of(ingress: Object) -> str:
    """The name of an Ingress's class, from its field or from the old annotation; "" if it has none."""
    name = (ingress.get("spec") or {}).get("ingressClassName")
    return str(name or (ingress["metadata"].get("annotations") or {}).get(CLASS_ANNOTATION) or "")


def is_ours(ingress_class: Object | None) -> bool:
    """Whether a class is one that the front doors serve."""
    return ingress_class is not None and (ingress_class.get("spec") or {}).get("controller") == CONTROLLER
