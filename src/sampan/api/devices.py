"""What a client of resource.k8s.io is told of what is stored without being looked into."""

from __future__ import annotations

from collections.abc import Iterator

from sampan.api.errors import Object

_NOT_COMPILED = "CEL expressions are not compiled here: it is stored as it is, right or wrong"


def unchecked(kind: str, obj: Object) -> Iterator[str]:
    """Warnings for an object of `kind`, with its defaults."""
    spec = obj.get("spec") or {}
    if kind == "ResourceSlice":
        driver = spec.get("driver") or ""
        if driver != driver.lower():
            yield f'spec.driver: driver names should be lowercase; "{driver}" contains uppercase characters'
        return
    for path in _expressions(kind, spec):
        yield f"{path}: {_NOT_COMPILED}"


def _expressions(kind: str, spec: Object) -> Iterator[str]:
    if kind == "DeviceClass":
        yield from _of_selectors(spec, "spec")
        return
    at = "spec"
    if kind == "ResourceClaimTemplate":
        spec, at = spec.get("spec") or {}, "spec.spec"
    for i, request in enumerate((spec.get("devices") or {}).get("requests") or ()):
        path = f"{at}.devices.requests[{i}]"
        yield from _of_selectors(request.get("exactly") or {}, f"{path}.exactly")
        for j, alternative in enumerate(request.get("firstAvailable") or ()):
            yield from _of_selectors(alternative, f"{path}.firstAvailable[{j}]")


def _of_selectors(given: Object, path: str) -> Iterator[str]:
    for i, selector in enumerate(given.get("selectors") or ()):
        if selector.get("cel") is not None:
            yield f"{path}.selectors[{i}].cel.expression"
