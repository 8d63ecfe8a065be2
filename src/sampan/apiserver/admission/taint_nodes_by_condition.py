"""A new node takes no pods until the node lifecycle controller has seen it ready."""

from __future__ import annotations

from sampan.apiserver.admission.plugin import CREATE, Plugin
from sampan.apiserver.types import Attributes

NOT_READY = "node.kubernetes.io/not-ready"


class TaintNodesByCondition(Plugin):
    resources = frozenset(("nodes",))
    operations = CREATE

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.operation != "CREATE" or attributes.subresource or attributes.obj is None:
            return
        spec = attributes.obj.setdefault("spec", {})
        taints = list(spec.get("taints") or ())
        if not any(t.get("key") == NOT_READY and t.get("effect") == "NoSchedule" for t in taints):
            spec["taints"] = [*taints, {"key": NOT_READY, "effect": "NoSchedule"}]
