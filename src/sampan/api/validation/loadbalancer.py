"""Pools of addresses for load balancers."""

from __future__ import annotations

from sampan.api import address_ranges
from sampan.api.address_ranges import AddressRange
from sampan.api.errors import FieldError, Object, invalid_value, required
from sampan.api.validation import formats
from sampan.api.validation.values import Problems, formatted, non_negative

_AT = "spec.addresses"


def ip_address_pool(obj: Object) -> Problems:
    spec = obj.get("spec") or {}
    texts = spec.get("addresses") or []
    if not texts:
        return [required(_AT, "at least one range of addresses")]
    out: list[FieldError] = []
    found: list[AddressRange] = []
    for i, text in enumerate(texts):
        try:
            one = address_ranges.parse(text)
        except ValueError as e:
            out.append(invalid_value(f"{_AT}[{i}]", text, str(e)))
            continue
        out += _unusable(f"{_AT}[{i}]", text, one)
        out += [
            invalid_value(f"{_AT}[{i}]", text, f"overlaps {o} of the same pool")
            for o in found
            if one.overlaps(o)
        ]
        found.append(one)
    allocation = spec.get("serviceAllocation") or {}
    for i, namespace in enumerate(allocation.get("namespaces") or ()):
        out += formatted(f"spec.serviceAllocation.namespaces[{i}]", namespace, formats.dns1123_label)
    return out + non_negative("spec.serviceAllocation.priority", allocation.get("priority"))


def _unusable(path: str, text: str, one: AddressRange) -> Problems:
    """Addresses that no host can be asked for by its neighbours."""
    for end in (one.first, one.last):
        if end.is_unspecified or end.is_loopback or end.is_multicast or end.is_link_local:
            detail = f"must be unicast addresses that others can reach: {end} is not"
            return [invalid_value(path, text, detail)]
    return []
