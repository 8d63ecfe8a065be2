"""PodTopologyLabels: a pod that gets a node gets the node's region and zone as labels, for those inside who ask.

Upstream: `plugin/pkg/admission/podtopologylabels`.
"""

from __future__ import annotations

from sampan.api.resources import NODES
from sampan.apiserver.admission.plugin import CREATE, Plugin
from sampan.apiserver.types import Attributes, ReadCache

LABELS = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone")


class PodTopologyLabels(Plugin):
    resources = frozenset(("pods",))
    operations = CREATE

    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache

    async def mutate(self, attributes: Attributes) -> None:
        obj = attributes.obj
        if obj is None or attributes.subresource not in ("", "binding"):
            return
        if attributes.subresource:
            # A binding passes its labels on to its pod.
            target = obj.get("target") or {}
            name = target.get("name") if target.get("kind", "Node") == "Node" else None
        else:
            name = obj["spec"].get("nodeName")
        node = self._cache.get(NODES, "", name) if name else None
        labels = (node or {"metadata": {}})["metadata"].get("labels") or {}
        found = {k: labels[k] for k in LABELS if k in labels}
        if found:
            obj["metadata"]["labels"] = {**found, **(obj["metadata"].get("labels") or {})}
