"""What a Service asks of the load balancer: its class, families, ports, and the annotations that MetalLB knows."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from sampan.api.address_ranges import Address
from sampan.api.errors import Object

CLASS = "sampan.io/loadbalancer"
"""`spec.loadBalancerClass` of Services that want this load balancer; those that name none get it, too."""
FROM_POOL = "loadbalancer.sampan.io/ip-allocated-from-pool"
"""Annotation of every Service that has an address from here: the name of the pool."""
FINALIZER = "service.kubernetes.io/load-balancer-cleanup"
ADDRESSES, POOL, SHARING = (
    f"metallb.io/{name}" for name in ("loadBalancerIPs", "address-pool", "allow-shared-ip")
)
_OLD_PREFIX = "metallb.universe.tf/"
"""Deprecated there, and still honoured."""

FAMILIES = {4: "IPv4", 6: "IPv6"}


class Refused(Exception):
    """A Service cannot have an address; the message is for its event. `waits_for` are the pools and addresses of which one
    that becomes free may change that."""

    def __init__(self, message: str, waits_for: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.waits_for = waits_for


@dataclass(frozen=True, slots=True)
class Request:
    """`sharing` is the key that Services of one address have in common, "" for none; `backend` tells apart those that
    cannot share one all the same, because they lead to other pods and keep to the node that has them. `ports` are
    pairs of protocol and number. `both` is whether one address a family is a must."""

    namespace: str
    families: tuple[str, ...]
    both: bool
    ports: frozenset[tuple[str, int]]
    sharing: str = ""
    backend: str = ""
    addresses: tuple[Address, ...] = ()
    pool: str = ""


def is_ours(service: Object) -> bool:
    """Whether a Service is to get an address from here."""
    spec = service.get("spec") or {}
    return spec.get("type") == "LoadBalancer" and spec.get("loadBalancerClass") in (None, "", CLASS)


def given(service: Object) -> tuple[Address, ...]:
    """The addresses that a Service's status shows."""
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    found = []
    for point in ingress:
        try:
            found.append(ipaddress.ip_address(point.get("ip") or ""))
        except ValueError:
            continue
    return tuple(found)


def request_of(service: Object) -> Request:
    """Raises Refused for what cannot be understood."""
    spec, meta = service["spec"], service["metadata"]
    annotations = meta.get("annotations") or {}
    local = spec.get("externalTrafficPolicy") == "Local"
    selector = spec.get("selector") or {}
    addresses = _wanted_addresses(spec, annotations)
    families = tuple(spec.get("ipFamilies") or ()) or _families_of(spec)
    if addresses:
        _check_families(addresses, families, spec.get("ipFamilyPolicy"))
    return Request(
        namespace=meta["namespace"],
        families=families,
        both=spec.get("ipFamilyPolicy") == "RequireDualStack",
        ports=frozenset((p.get("protocol") or "TCP", p["port"]) for p in spec.get("ports") or ()),
        sharing=_annotation(annotations, SHARING),
        backend=",".join(f"{k}={v}" for k, v in sorted(selector.items())) if local else "",
        addresses=addresses,
        pool=_annotation(annotations, POOL),
    )


def quoted(addresses: tuple[Address, ...]) -> str:
    """As MetalLB's events show them: `["192.0.2.1" "2001:db8::1"]`."""
    return "[" + " ".join(f'"{a}"' for a in addresses) + "]"


def _families_of(spec: Object) -> tuple[str, ...]:
    addresses = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return tuple("IPv6" if ":" in (a or "") else "IPv4" for a in addresses)


def _annotation(annotations: Object, name: str) -> str:
    return str(annotations.get(name) or annotations.get(_OLD_PREFIX + name.partition("/")[2]) or "")


def _wanted_addresses(spec: Object, annotations: Object) -> tuple[Address, ...]:
    noted, field = _annotation(annotations, ADDRESSES), spec.get("loadBalancerIP") or ""
    if noted and field:
        raise Refused(f"service can not have both {ADDRESSES} and svc.Spec.LoadBalancerIP")
    try:
        found = tuple(ipaddress.ip_address(text.strip()) for text in (noted or field).split(",") if text)
    except ValueError:
        wrong = f'{ADDRESSES}: "{noted}"' if noted else f'spec.loadBalancerIP "{field}"'
        raise Refused(f"invalid {wrong}") from None
    if len(found) > 2:
        raise Refused(f"more than two addresses {quoted(found)}")
    if len(found) == 2 and found[0].version == found[1].version:
        raise Refused(f'"{found[0]}" "{found[1]}" has the same family')
    return found


def _check_families(addresses: tuple[Address, ...], families: tuple[str, ...], policy: str | None) -> None:
    asked = {FAMILIES[a.version] for a in addresses}
    allowed = asked <= set(families) if policy == "PreferDualStack" else asked == set(families)
    if not allowed:
        raise Refused(
            f"requested loadBalancer IP(s) {quoted(addresses)} does not match the ipFamily of the service"
        )
