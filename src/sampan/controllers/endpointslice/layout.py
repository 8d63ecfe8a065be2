"""How endpoints are shared out over slices, so that a change touches as few of them as it can. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sampan.api.errors import Object
from sampan.controllers.endpointslice.endpoints import shape_of

MOST = 100
"""Endpoints in one slice."""

Groups = Mapping[tuple[str, str], tuple[list[Object], list[Object]]]


@dataclass(slots=True)
class Plan:
    """The writes to make: contents (`addressType`, `ports`, `endpoints`) of new slices, slices with new endpoints, and
    slices to delete."""

    create: list[Object] = field(default_factory=list)
    update: list[tuple[Object, list[Object]]] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)
    keep: list[Object] = field(default_factory=list)


def plan(groups: Groups, families: Sequence[str], slices: Iterable[Object], most: int = MOST) -> Plan:
    """What makes `slices` hold `groups`. A family with nothing to hold keeps one empty slice without ports."""
    made = Plan()
    by_group: dict[tuple[str, str], list[Object]] = {}
    for one in slices:
        by_group.setdefault((one["addressType"], shape_of(one.get("ports") or ())), []).append(one)
    groups = dict(groups)
    for family in families:
        if not any(f == family for f, _ in groups):
            groups[family, shape_of(())] = ([], [])
    for key, (ports, endpoints) in groups.items():
        _plan_group(made, key[0], ports, endpoints, by_group.pop(key, []), most)
    for unwanted in by_group.values():
        made.delete += unwanted
    return made


def _plan_group(
    made: Plan, family: str, ports: list[Object], endpoints: list[Object], slices: list[Object], most: int
) -> None:
    missing = {_identity(e): e for e in endpoints}
    contents: list[tuple[Object, list[Object], bool]] = []
    for one in slices:
        kept: list[Object] = []
        changed = False
        for endpoint in one.get("endpoints") or ():
            wanted = missing.pop(_identity(endpoint), None)
            if wanted is None:
                changed = True
                continue
            changed = changed or wanted != endpoint
            kept.append(wanted)
        contents.append((one, kept, changed))
    waiting = list(missing.values())
    # Slices that are written anyway take in what is new; then whichever has room for all the rest.
    contents.sort(key=lambda c: not c[2])
    for i, (one, kept, changed) in enumerate(contents):
        if not waiting:
            break
        room = most - len(kept)
        if room > 0 and (changed or room >= len(waiting)):
            contents[i] = (one, kept + waiting[:room], True)
            waiting = waiting[room:]
    fresh: list[list[Object]] = []
    while waiting:
        fresh.append(waiting[:most])
        waiting = waiting[most:]
    if not endpoints and not contents:
        fresh.append([])
    made.create += [{"addressType": family, "ports": ports, "endpoints": part} for part in fresh]
    holding = sum(1 for _, kept, _ in contents if kept) + len(fresh)
    for one, kept, changed in contents:
        if not kept and holding:
            made.delete.append(one)
        elif changed:
            made.update.append((one, kept))
            holding += not kept
        else:
            made.keep.append(one)
            holding += not kept


def _identity(endpoint: Object) -> tuple[str, str]:
    target = endpoint.get("targetRef") or {}
    return endpoint["addresses"][0], target.get("uid") or ""
