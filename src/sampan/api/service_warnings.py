"""What is a bad idea in a Service: upstream's warnings (`pkg/api/service/warnings.go`), and what of it does nothing here."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from sampan.api.errors import Object

_HINTS, _MODE = "service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"


def of(service: Object) -> Iterator[str]:
    """The warnings for who writes a Service."""
    spec = service.get("spec") or {}
    annotations = (service.get("metadata") or {}).get("annotations") or {}
    if _HINTS in annotations:
        yield f"annotation {_HINTS} is deprecated, please use {_MODE} instead"
    if annotations.get(_HINTS, annotations.get(_MODE)) in ("Auto", "auto"):
        yield f"metadata.annotations[{_MODE}]: shares by CPUs are not implemented; use spec.trafficDistribution"
    headless, external = spec.get("clusterIP") == "None", spec.get("type") == "ExternalName"
    for i, address in enumerate(spec.get("clusterIPs") or ()):
        if not headless:
            yield from _of_address(f"spec.clusterIPs[{i}]", address)
    if headless:
        if spec.get("loadBalancerIP"):
            yield "spec.loadBalancerIP is ignored for headless services"
        if spec.get("externalIPs"):
            yield "spec.externalIPs is ignored for headless services"
        if spec.get("sessionAffinity") not in (None, "", "None"):
            yield "spec.SessionAffinity is ignored for headless services"
    for i, address in enumerate(spec.get("externalIPs") or ()):
        yield from _of_address(f"spec.externalIPs[{i}]", address)
    if spec.get("externalIPs") and not headless and not external:
        yield "spec.externalIPs is deprecated and may no longer be implemented in some clusters"
    if spec.get("loadBalancerIP"):
        yield from _of_address("spec.loadBalancerIP", spec["loadBalancerIP"])
    for i, cidr in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        yield from _of_range(f"spec.loadBalancerSourceRanges[{i}]", cidr)
    if external and spec.get("externalIPs"):
        yield 'spec.externalIPs is ignored when spec.type is "ExternalName"'
    if spec.get("externalName") and not external:
        yield 'spec.externalName is ignored when spec.type is not "ExternalName"'
    if spec.get("trafficDistribution") == "PreferClose":
        yield 'spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"'


def _of_address(path: str, value: str) -> Iterator[str]:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return
    if address.version == 6 and address.ipv4_mapped is not None:
        yield (
            f'{path}: non-standard IP address "{value}" will be considered invalid in a future Kubernetes release: use '
            f'"{address.ipv4_mapped}"'
        )
    elif str(address) != value:
        yield f'{path}: IPv6 address "{value}" should be in RFC 5952 canonical format ("{address}")'


def _of_range(path: str, value: str) -> Iterator[str]:
    try:
        interface = ipaddress.ip_interface(value)
    except ValueError:
        return
    network = interface.network
    if interface.ip != network.network_address:
        alone = f"{interface.ip}/{interface.max_prefixlen}"
        yield f'{path}: CIDR value "{value}" is ambiguous in this context (should be "{network}" or "{alone}"?)'
    elif network.version == 6 and str(network) != value:
        yield f'{path}: IPv6 CIDR value "{value}" should be in RFC 5952 canonical format ("{network}")'
