"""What is said of an object whose class is not there: no controller is going to serve it, and nothing else would tell.

Examples are written for many controllers; who applies one as it is finds here which classes the cluster has.
"""

from __future__ import annotations

from collections.abc import Sequence

from sampan.api.errors import Object
from sampan.ingress.types import Problem, Source

_FIELDS = {"Ingress": ("IngressClass", "ingressClassName"), "Gateway": ("GatewayClass", "gatewayClassName")}


def class_named(kind: str, obj: Object) -> str:
    """The class that an Ingress or a Gateway names in its spec, "" for none. The annotation of old Ingresses is no name of an object:
    controllers know their own word in it."""
    return str((obj.get("spec") or {}).get(_FIELDS[kind][1]) or "")


def missing(kind: str, obj: Object, there: Sequence[str]) -> Problem | None:
    """That the class which an Ingress or a Gateway names is none of those that are there; None if it is, or if none is named."""
    import difflib

    (of_class, field), name, meta = _FIELDS[kind], class_named(kind, obj), obj["metadata"]
    if not name or name in there:
        return None
    near = difflib.get_close_matches(name, there, 1)
    hint = f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(sorted(there)) or 'none'}"
    source = Source(kind, meta["namespace"], meta["name"], f"spec.{field}")
    return Problem(source, f"{of_class}NotFound", f'{source.field}: there is no {of_class} "{name}"; {hint}')
