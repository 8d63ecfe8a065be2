"""Defaults of FlowSchemas and PriorityLevelConfigurations."""

from __future__ import annotations

from sampan.api.errors import Object


def flow_schema(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if not spec.get("matchingPrecedence"):
        spec["matchingPrecedence"] = 1000
    for rule in spec.get("rules") or ():
        for item in rule.get("resourceRules") or ():
            if item.get("clusterScope") is False:
                del item["clusterScope"]


def priority_level_configuration(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if spec.get("type") == "Exempt" and spec.get("exempt") is None:
        spec["exempt"] = {}
    exempt, limited = spec.get("exempt"), spec.get("limited")
    if exempt is not None:
        _fill(exempt, (("nominalConcurrencyShares", 0), ("lendablePercent", 0)))
    if limited is None:
        return
    _fill(limited, (("nominalConcurrencyShares", 30), ("lendablePercent", 0)))
    queuing = (limited.get("limitResponse") or {}).get("queuing")
    if queuing is not None:
        for name, value in (("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)):
            if not queuing.get(name):
                queuing[name] = value


def _fill(obj: Object, values: tuple[tuple[str, int], ...]) -> None:
    for name, value in values:
        if obj.get(name) is None:
            obj[name] = value
