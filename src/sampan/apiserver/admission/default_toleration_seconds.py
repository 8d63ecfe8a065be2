"""A pod bears a node that is not ready or out of reach for some minutes, unless it says otherwise."""

from __future__ import annotations

from sampan.apiserver.admission.plugin import WRITES, Plugin
from sampan.apiserver.config import Config
from sampan.apiserver.types import Attributes


class DefaultTolerationSeconds(Plugin):
    resources = frozenset(("pods",))
    operations = WRITES

    def __init__(self, config: Config) -> None:
        self._seconds = {
            "node.kubernetes.io/not-ready": config.default_not_ready_toleration_seconds,
            "node.kubernetes.io/unreachable": config.default_unreachable_toleration_seconds,
        }

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.subresource or attributes.obj is None or attributes.operation == "DELETE":
            return
        spec = attributes.obj.setdefault("spec", {})
        tolerations = list(spec.get("tolerations") or ())
        named = {t.get("key", "") for t in tolerations if t.get("effect", "") in ("", "NoExecute")}
        if "" in named:
            return
        missing = [key for key in self._seconds if key not in named]
        if missing:
            tolerations += [
                {
                    "key": key,
                    "operator": "Exists",
                    "effect": "NoExecute",
                    "tolerationSeconds": self._seconds[key],
                }
                for key in missing
            ]
            spec["tolerations"] = tolerations
