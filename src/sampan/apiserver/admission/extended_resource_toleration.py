"""ExtendedResourceToleration: a pod that asks for a device tolerates the taint of the nodes that have such.

Upstream: `plugin/pkg/admission/extendedresourcetoleration`.
"""

from __future__ import annotations

from sampan.api import pod_resources
from sampan.apiserver.admission.plugin import WRITES, Plugin
from sampan.apiserver.types import Attributes


class ExtendedResourceToleration(Plugin):
    resources = frozenset(("pods",))
    operations = WRITES

    async def mutate(self, attributes: Attributes) -> None:
        pod = attributes.obj
        if attributes.subresource or pod is None:
            return
        spec = pod["spec"]
        asked = {
            name
            for container in (*spec["containers"], *(spec.get("initContainers") or ()))
            for name in pod_resources.of(container, "requests")
            if "/" in name and "kubernetes.io/" not in name
        }
        present = list(spec.get("tolerations") or ())
        more = [{"key": name, "operator": "Exists"} for name in sorted(asked)]
        more = [t for t in more if not any(p.get("key") == t["key"] and p.get("operator") == "Exists" and not p.get("effect") for p in present)]  # fmt: skip
        if more:
            spec["tolerations"] = [*present, *more]
