"""Which address families a Service has.

Upstream: `initIPFamilyFields` of `pkg/registry/core/service/storage/alloc.go`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from sampan.api import errors
from sampan.api.errors import FieldError, Object
from sampan.api.service_fields import type_of
from sampan.apiserver.allocation.types import NONE, headless

_POLICY = "spec.ipFamilyPolicy"


def choose(obj: Object, old: Object | None, configured: Sequence[str]) -> list[FieldError]:
    """Fill in `ipFamilyPolicy` and `ipFamilies`, and give up the second address of a Service that goes back to one
    family; returns what the cluster, whose families are `configured` (its primary one first), cannot do."""
    spec = obj["spec"]
    if type_of(obj) == "ExternalName" or (old is not None and _stays_as_it_is(obj, old)):
        return []
    before: Object = (old or {}).get("spec") or {}
    bare = headless(obj) and not spec.get("selector")
    if not spec.get("ipFamilyPolicy"):
        kept = before.get("ipFamilyPolicy")
        spec["ipFamilyPolicy"] = kept or ("RequireDualStack" if bare else "SingleStack")
    problems = [*_downgrade(spec, before), *_too_many(spec), *_of_addresses(spec, configured)]
    if problems:
        return problems
    families = list(spec.get("ipFamilies") or (configured[0],))
    several = spec["ipFamilyPolicy"] != "SingleStack"
    if not bare:
        # Whoever keeps the endpoints of a bare one by hand may have any; the cluster's ranges do not matter.
        problems = _not_configured(spec, configured)
        several = several and len(configured) > 1
    if not problems:
        if several and len(families) == 1:
            families.append("IPv6" if families[0] == "IPv4" else "IPv4")
        spec["ipFamilies"] = families
    return problems


def _stays_as_it_is(obj: Object, old: Object) -> bool:
    """Whether a PreferDualStack Service has the same addresses as before: it gets no second family because the cluster
    has one now, and loses none."""
    spec, before = obj["spec"], old.get("spec") or {}
    return (
        type_of(obj) == type_of(old)
        and spec.get("ipFamilyPolicy") == "PreferDualStack"
        and before.get("ipFamilyPolicy") in ("PreferDualStack", None)
        and all(
            (spec.get(name) or []) == (before.get(name) or []) != [] for name in ("clusterIPs", "ipFamilies")
        )
    )


def _downgrade(spec: Object, before: Object) -> list[FieldError]:
    """A second address or family is given up by the policy SingleStack, and by that alone."""
    problems: list[FieldError] = []
    for name, what in (("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")):
        new, old = spec.get(name) or [], before.get(name) or []
        if spec["ipFamilyPolicy"] == "SingleStack":
            if new == old and len(new) > 1:
                spec[name] = new[:1]
        elif new and len(new) < len(old):
            why = f"must be 'SingleStack' to release the secondary {what}"
            problems.append(errors.invalid_value(_POLICY, spec["ipFamilyPolicy"], why))
    return problems


def _too_many(spec: Object) -> list[FieldError]:
    both = "must be 'RequireDualStack' or 'PreferDualStack' when multiple {} are specified"
    return [
        errors.invalid_value(_POLICY, "SingleStack", both.format(what))
        for name, what in (("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families"))
        if spec["ipFamilyPolicy"] == "SingleStack" and len(spec.get(name) or ()) > 1
    ]


def _of_addresses(spec: Object, configured: Sequence[str]) -> list[FieldError]:
    """Families that were not given are those of the addresses."""
    given, families = list(spec.get("clusterIPs") or ()), list(spec.get("ipFamilies") or ())
    problems: list[FieldError] = []
    for i, ip in enumerate(given):
        if ip == NONE:
            break
        if not ip or i < len(families):
            continue
        family = family_of(ip)
        if family in configured:
            families.append(family)
        else:
            why = f"{family} is not configured on this cluster"
            problems.append(errors.invalid_value(f"spec.clusterIPs[{i}]", given, why))
    if families and not problems:
        spec["ipFamilies"] = families
    return problems


def _not_configured(spec: Object, configured: Sequence[str]) -> list[FieldError]:
    problems: list[FieldError] = []
    if spec["ipFamilyPolicy"] == "RequireDualStack" and len(configured) < 2:
        why = "this cluster is not configured for dual-stack services"
        problems.append(errors.invalid_value(_POLICY, "RequireDualStack", why))
    for i, family in enumerate(spec.get("ipFamilies") or ()):
        if family not in configured:
            why = "not configured on this cluster"
            problems.append(errors.invalid_value(f"spec.ipFamilies[{i}]", family, why))
    return problems


def family_of(ip: str) -> str:
    return f"IPv{ipaddress.ip_address(ip).version}"
