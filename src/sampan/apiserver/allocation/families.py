"""Which address families a Service has, on a cluster with one."""

from __future__ import annotations

import ipaddress

from sampan.api import errors
from sampan.api.errors import FieldError, Object
from sampan.api.service_fields import type_of
from sampan.apiserver.allocation.types import NONE, headless


def choose(obj: Object, old: Object | None, configured: str) -> list[FieldError]:
    """Fill in `ipFamilyPolicy` and `ipFamilies`; returns what the cluster, whose family is `configured`, cannot do."""
    spec = obj["spec"]
    problems: list[FieldError] = []
    if type_of(obj) == "ExternalName":
        return []
    bare = headless(obj) and not spec.get("selector")
    if not spec.get("ipFamilyPolicy"):
        kept = (old or {}).get("spec", {}).get("ipFamilyPolicy")
        spec["ipFamilyPolicy"] = kept or ("RequireDualStack" if bare else "SingleStack")
    policy = spec["ipFamilyPolicy"]
    families = list(spec.get("ipFamilies") or ())
    given = list(spec.get("clusterIPs") or ())
    if policy == "SingleStack":
        both = "must be 'RequireDualStack' or 'PreferDualStack' when multiple {} are specified"
        for values, what in ((given, "cluster IPs"), (families, "IP families")):
            if len(values) > 1:
                problems.append(errors.invalid_value("spec.ipFamilyPolicy", policy, both.format(what)))
    for i, ip in enumerate(given):
        if ip == NONE or i < len(families):
            continue
        family = family_of(ip)
        if family == configured:
            families.append(family)
        else:
            why = f"{family} is not configured on this cluster"
            problems.append(errors.invalid_value(f"spec.clusterIPs[{i}]", given, why))
    if problems:
        return problems
    if bare:
        # Whoever keeps its endpoints by hand may have any; the cluster's own range does not matter.
        families = families or [configured]
        if len(families) < 2 and policy != "SingleStack":
            families.append("IPv6" if families[0] == "IPv4" else "IPv4")
        spec["ipFamilies"] = families
        return []
    if policy == "RequireDualStack":
        why = "this cluster is not configured for dual-stack services"
        problems.append(errors.invalid_value("spec.ipFamilyPolicy", policy, why))
    problems.extend(
        errors.invalid_value(f"spec.ipFamilies[{i}]", family, "not configured on this cluster")
        for i, family in enumerate(families)
        if family != configured
    )
    if not problems:
        spec["ipFamilies"] = families or [configured]
    return problems


def family_of(ip: str) -> str:
    return f"IPv{ipaddress.ip_address(ip).version}"
