"""A pod bears a node that is not ready or out of reach for five minutes, unless it says otherwise."""

from __future__ import annotations

from sampan.apiserver.admission.plugin import WRITES, Plugin
from sampan.apiserver.types import Attributes

SECONDS = 300
_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


class DefaultTolerationSeconds(Plugin):
    resources = frozenset(("pods",))
    operations = WRITES

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.subresource or attributes.obj is None or attributes.operation == "DELETE":
            return
        spec = attributes.obj.setdefault("spec", {})
        tolerations = list(spec.get("tolerations") or ())
        named = {t.get("key", "") for t in tolerations if t.get("effect", "") in ("", "NoExecute")}
        if "" in named:
            return
        missing = [key for key in _TAINTS if key not in named]
        if missing:
            tolerations += [
                {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS}
                for key in missing
            ]
            spec["tolerations"] = tolerations
