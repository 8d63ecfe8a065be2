"""LimitPodHardAntiAffinityTopology: a pod keeps others off its node at most, not off a zone.

Upstream: `plugin/pkg/admission/antiaffinity`.
"""

from __future__ import annotations

from sampan.apiserver.admission.plugin import WRITES, Plugin, refuse
from sampan.apiserver.types import Attributes

_NODE = "kubernetes.io/hostname"


class LimitPodHardAntiAffinityTopology(Plugin):
    resources = frozenset(("pods",))
    operations = WRITES

    async def validate(self, attributes: Attributes) -> None:
        pod = attributes.obj
        if attributes.subresource or pod is None:
            return
        rules = (pod["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
        for term in rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ():
            if term.get("topologyKey") != _NODE:
                why = (
                    "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey "
                    f"{term.get('topologyKey') or ''} but only key {_NODE} is allowed"
                )
                raise refuse(attributes, why)
