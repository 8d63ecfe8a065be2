"""What a pod asks for and may use at most, as exact quantities: for those who show amounts to people and add them up.

(The scheduler compares whole numbers, many times a second: `sampan.scheduler.requests`.)
Upstream: `k8s.io/component-helpers/resource`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from sampan.api import quantity
from sampan.api.errors import Object

Amounts = dict[str, str]
"""Quantities by the name of the resource."""
Part = Literal["requests", "limits"]


def add(total: Amounts, more: Mapping[str, str]) -> None:
    """Add `more` to `total`, in place."""
    for name, amount in more.items():
        present = total.get(name)
        total[name] = quantity.format(amount) if present is None else quantity.add(present, amount)


def _at_least(total: Amounts, floor: Mapping[str, str]) -> None:
    for name, amount in floor.items():
        present = total.get(name)
        if present is None or quantity.compare(amount, present) > 0:
            total[name] = quantity.format(amount)


def of(holder: Object, part: Part) -> Mapping[str, str]:
    """The requests or limits of a container, a pod's spec or a claim's."""
    return (holder.get("resources") or {}).get(part) or {}


def pod_requests(spec: Object, status: Object | None = None, *, overhead: bool = True) -> Amounts:
    """What a pod needs at its greediest moment; amounts that are set for the pod as a whole count instead. With its
    `status`, a container that is being resized needs the larger of what it is to have and what it has."""
    total = _greediest(spec, "requests", _actual(status, "requests"))
    total |= {name: quantity.format(amount) for name, amount in _of_whole(spec, "requests")}
    if overhead:
        add(total, spec.get("overhead") or {})
    return total


def pod_limits(spec: Object, status: Object | None = None, *, overhead: bool = True) -> Amounts:
    """What a pod may use at most. Its overhead comes on top of limits that there are."""
    total = _greediest(spec, "limits", _actual(status, "limits"))
    total |= {name: quantity.format(amount) for name, amount in _of_whole(spec, "limits")}
    if overhead:
        add(total, {name: a for name, a in (spec.get("overhead") or {}).items() if name in total})
    return total


def _of_whole(spec: Object, part: Part) -> Iterator[tuple[str, str]]:
    for name, amount in of(spec, part).items():
        if name in ("cpu", "memory") or name.startswith("hugepages-"):
            yield name, amount


def _asked(container: Object, part: Part, actual: Mapping[str, Amounts]) -> Amounts:
    asked = dict(of(container, part))
    if container["name"] in actual:
        _at_least(asked, actual[container["name"]])
    return asked


def _actual(status: Object | None, part: Part) -> Mapping[str, Amounts]:
    """What running containers have, by name."""
    if status is None:
        return {}
    found: dict[str, Amounts] = {}
    for kind in ("containerStatuses", "initContainerStatuses"):
        for container in status.get(kind) or ():
            has = dict(of(container, part))
            if part == "requests":
                _at_least(has, container.get("allocatedResources") or {})
            if has:
                found[container["name"]] = has
    return found


def _greediest(spec: Object, part: Part, actual: Mapping[str, Amounts]) -> Amounts:
    """All containers with the sidecars, or one init container with the sidecars that were started before it."""
    total: Amounts = {}
    for container in spec.get("containers") or ():
        add(total, _asked(container, part, actual))
    sidecars: Amounts = {}
    greediest: Amounts = {}
    for container in spec.get("initContainers") or ():
        asked = _asked(container, part, actual)
        if container.get("restartPolicy") == "Always":
            add(total, asked)
            add(sidecars, asked)
            _at_least(greediest, sidecars)
        else:
            add(asked, sidecars)
            _at_least(greediest, asked)
    _at_least(total, greediest)
    return total
