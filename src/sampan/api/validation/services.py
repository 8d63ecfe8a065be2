"""Services, Endpoints and EndpointSlices."""

from __future__ import annotations

import ipaddress

from sampan.api import service_fields
from sampan.api.errors import (
    FieldError,
    Object,
    duplicate,
    forbidden_field,
    invalid_value,
    required,
    too_many,
)
from sampan.api.validation import formats, metadata
from sampan.api.validation.values import (
    Format,
    Problems,
    cidr,
    formatted,
    ip,
    named,
    one_of,
    ordinary_ip,
    port_number,
    port_or_name,
    protocol,
)

_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_AFFINITIES = ("ClientIP", "None")
_POLICIES = ("Cluster", "Local")
_FAMILIES = ("IPv4", "IPv6")
_FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
_DISTRIBUTIONS = ("PreferClose", "PreferSameNode", "PreferSameZone")
_MAX_AFFINITY_SECONDS = 86400
_SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"


def _headless(service: Object) -> bool:
    spec = service.get("spec") or {}
    return "None" in (spec.get("clusterIP"), *(spec.get("clusterIPs") or ())[:1])


def create(service: Object) -> Problems:
    spec = service.get("spec") or {}
    kind = spec.get("type") or ""
    headless = _headless(service)
    ports: list[Object] = spec.get("ports") or []
    out: list[FieldError] = []
    if not ports and not headless and kind != "ExternalName":
        out.append(required("spec.ports"))
    if headless and kind in ("LoadBalancer", "NodePort"):
        out.append(
            invalid_value("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services")
        )
    if kind == "ExternalName":
        out += _external_name(spec)
    names: set[str] = set()
    for i, port in enumerate(ports):
        out += _port(port, f"spec.ports[{i}]", len(ports) > 1, names)
    out += metadata.labels(spec.get("selector") or {}, "spec.selector")
    out += one_of("spec.sessionAffinity", spec.get("sessionAffinity"), _AFFINITIES)
    out += _affinity_config(spec)
    out += _cluster_ips(spec)
    for i, address in enumerate(spec.get("externalIPs") or ()):
        out += ordinary_ip(f"spec.externalIPs[{i}]", address)
    out += one_of("spec.type", kind, _TYPES)
    if kind == "ClusterIP":
        for i, port in enumerate(ports):
            if port.get("nodePort"):
                detail = "may not be used when `type` is 'ClusterIP'"
                out.append(forbidden_field(f"spec.ports[{i}].nodePort", detail))
    out += _clashes(ports)
    return out + _load_balancer(spec, kind, service.get("metadata") or {}) + _traffic(service, spec, kind)


def _external_name(spec: Object) -> Problems:
    out: list[FieldError] = []
    for name in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if spec.get(name):
            out.append(forbidden_field(f"spec.{name}", "may not be set for ExternalName services"))
    name = (spec.get("externalName") or "").removesuffix(".")
    return out + named("spec.externalName", name, formats.dns1123_subdomain)


def _port(port: Object, path: str, name_needed: bool, names: set[str]) -> Problems:
    out: list[FieldError] = []
    name = port.get("name")
    if name:
        out += formatted(f"{path}.name", name, formats.dns1123_label)
        if name in names:
            out.append(duplicate(f"{path}.name", name))
        names.add(name)
    elif name_needed:
        out.append(required(f"{path}.name"))
    out += port_number(f"{path}.port", port.get("port"))
    out += protocol(f"{path}.protocol", port.get("protocol"))
    out += port_or_name(f"{path}.targetPort", port.get("targetPort"))
    if port.get("appProtocol"):
        out += formatted(f"{path}.appProtocol", port["appProtocol"], formats.qualified_name)
    return out


def _clashes(ports: list[Object]) -> Problems:
    out: list[FieldError] = []
    node_ports: set[tuple[object, object]] = set()
    for i, port in enumerate(ports):
        key = (port.get("protocol"), port.get("nodePort"))
        if port.get("nodePort"):
            if key in node_ports:
                out.append(duplicate(f"spec.ports[{i}].nodePort", port["nodePort"]))
            node_ports.add(key)
    seen: set[tuple[object, object]] = set()
    for i, port in enumerate(ports):
        key = (port.get("protocol"), port.get("port"))
        if key in seen:
            shown = {"port": port.get("port"), "protocol": port.get("protocol")}
            out.append(duplicate(f"spec.ports[{i}]", shown))
        seen.add(key)
    return out


def _affinity_config(spec: Object) -> Problems:
    config, path = spec.get("sessionAffinityConfig"), "spec.sessionAffinityConfig"
    if spec.get("sessionAffinity") == "None" and config is not None:
        return [forbidden_field(path, "must not be set when session affinity is None")]
    if spec.get("sessionAffinity") != "ClientIP":
        return []
    seconds = ((config or {}).get("clientIP") or {}).get("timeoutSeconds")
    path += ".clientIP.timeoutSeconds"
    if seconds is None:
        return [required(path, "when session affinity type is ClientIP")]
    if not 0 < seconds <= _MAX_AFFINITY_SECONDS:
        detail = f"must be greater than 0 and less than {_MAX_AFFINITY_SECONDS}"
        return [invalid_value(path, seconds, detail)]
    return []


def _cluster_ips(spec: Object) -> Problems:
    out: list[FieldError] = []
    first, addresses = spec.get("clusterIP"), spec.get("clusterIPs") or []
    families = spec.get("ipFamilies") or []
    if first and not addresses:
        out.append(required("spec.clusterIPs"))
    elif addresses and first != addresses[0]:
        out.append(invalid_value("spec.clusterIPs", addresses, "first value must match `clusterIP`"))
    if "None" in addresses and len(addresses) > 1:
        detail = "'None' must be the first and only value"
        out.append(invalid_value("spec.clusterIPs", addresses, detail))
    for i, address in enumerate(addresses):
        if address not in ("None", ""):
            problems = ip(f"spec.clusterIPs[{i}]", address)
            out += problems
            if not problems and i < len(families):
                family = f"IPv{ipaddress.ip_address(address).version}"
                if family != families[i]:
                    detail = f"expected an {families[i]} value as indicated by `ipFamilies[{i}]`"
                    out.append(invalid_value(f"spec.clusterIPs[{i}]", address, detail))
    if len(addresses) > 2:
        detail = "may only hold up to 2 values"
        out.append(invalid_value("spec.clusterIPs", addresses, detail))
    if len(addresses) > 1 and not out and len({":" in a for a in addresses}) == 1:
        detail = "may specify no more than one IP for each IP family"
        out.append(invalid_value("spec.clusterIPs", addresses, detail))
    out += one_of("spec.ipFamilyPolicy", spec.get("ipFamilyPolicy"), _FAMILY_POLICIES, absent=True)
    for i, family in enumerate(families):
        out += one_of(f"spec.ipFamilies[{i}]", family, _FAMILIES)
        if family in families[:i]:
            out.append(duplicate(f"spec.ipFamilies[{i}]", family))
    return out


def _load_balancer(spec: Object, kind: str, meta: Object) -> Problems:
    out: list[FieldError] = []
    only = "may only be used when `type` is 'LoadBalancer'"
    ranges = spec.get("loadBalancerSourceRanges") or ()
    if ranges and kind != "LoadBalancer":
        out.append(forbidden_field("spec.LoadBalancerSourceRanges", only))
    for i, value in enumerate(ranges):
        out += cidr(f"spec.LoadBalancerSourceRanges[{i}]", value.strip())
    if not ranges and (given := (meta.get("annotations") or {}).get(_SOURCE_RANGES)) is not None:
        at = f"metadata.annotations[{_SOURCE_RANGES}]"
        if kind != "LoadBalancer":
            out.append(forbidden_field(at, only))
        for value in given.split(",") if given.strip() else ():
            out += cidr(at, value.strip())
    if spec.get("allocateLoadBalancerNodePorts") is not None and kind != "LoadBalancer":
        out.append(forbidden_field("spec.allocateLoadBalancerNodePorts", only))
    if spec.get("loadBalancerClass") is not None:
        if kind != "LoadBalancer":
            out.append(forbidden_field("spec.loadBalancerClass", only))
        out += formatted("spec.loadBalancerClass", spec["loadBalancerClass"], formats.qualified_name)
    return out


def _traffic(service: Object, spec: Object, kind: str) -> Problems:
    out: list[FieldError] = []
    external, path = spec.get("externalTrafficPolicy"), "spec.externalTrafficPolicy"
    reachable = kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and spec.get("externalIPs"))
    if reachable:
        out += one_of(path, external, _POLICIES)
    elif external:
        out.append(invalid_value(path, external, "may only be set for externally-accessible services"))
    health, path = spec.get("healthCheckNodePort"), "spec.healthCheckNodePort"
    if not service_fields.needs_health_check_node_port(service):
        if health:
            detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
            out.append(invalid_value(path, health, detail))
    elif health:  # allocated later where it is not given
        out += port_number(path, health)
    internal, path = spec.get("internalTrafficPolicy"), "spec.internalTrafficPolicy"
    out += one_of(path, internal, _POLICIES, absent=kind == "ExternalName")
    distribution = spec.get("trafficDistribution")
    return out + one_of("spec.trafficDistribution", distribution, _DISTRIBUTIONS, absent=True)


def update(new: Object, old: Object, subresource: str) -> Problems:
    if subresource == "status":
        return _status(new)
    out: list[FieldError] = []
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    if "ExternalName" not in (service_fields.type_of(new), service_fields.type_of(old)):
        out += _same_first(spec, before, "clusterIPs") + _same_first(spec, before, "ipFamilies")
    balanced = service_fields.type_of(new) == service_fields.type_of(old) == "LoadBalancer"
    if balanced and spec.get("loadBalancerClass") != before.get("loadBalancerClass"):
        detail = "may not change once set"
        out.append(invalid_value("spec.loadBalancerClass", spec.get("loadBalancerClass"), detail))
    checked = all(map(service_fields.needs_health_check_node_port, (new, old)))
    if checked and spec.get("healthCheckNodePort") != before.get("healthCheckNodePort"):
        out.append(forbidden_field("spec.healthCheckNodePort", "field is immutable"))
    return out + create(new)


def _same_first(spec: Object, before: Object, name: str) -> Problems:
    """The primary address and family of a Service stay; a second one may come and go, but not change."""
    new, old = spec.get(name) or [], before.get(name) or []
    if not old or new[:1] == old[:1]:
        if len(new) == len(old) == 2 and new[1] != old[1]:
            return [invalid_value(f"spec.{name}[1]", new, "may not change once set")]
        return []
    if not new:
        what = "primary clusterIP" if name == "clusterIPs" else "primary ipFamily"
        return [invalid_value(f"spec.{name}[0]", new, f"{what} can not be unset")]
    return [invalid_value(f"spec.{name}[0]", new, "may not change once set")]


def _status(new: Object) -> Problems:
    out: list[FieldError] = []
    status = (new.get("status") or {}).get("loadBalancer") or {}
    given = status.get("ingress") or []
    if given and service_fields.type_of(new) != "LoadBalancer":
        path = "status.loadBalancer.ingress"
        return [forbidden_field(path, "may only be used when `spec.type` is 'LoadBalancer'")]
    for i, ingress in enumerate(given):
        at = f"status.loadBalancer.ingress[{i}]"
        if ingress.get("ip"):
            out += ip(f"{at}.ip", ingress["ip"])
        mode = ingress.get("ipMode")
        if mode is not None and not ingress.get("ip"):
            out.append(forbidden_field(f"{at}.ipMode", "may not be specified when `ip` is not set"))
        else:
            out += one_of(f"{at}.ipMode", mode, ("Proxy", "VIP"), absent=True)
        if ingress.get("hostname"):
            out += formatted(f"{at}.hostname", ingress["hostname"], formats.dns1123_subdomain)
    return out


# Endpoints


def endpoints(obj: Object) -> Problems:
    out: list[FieldError] = []
    for i, subset in enumerate(obj.get("subsets") or ()):
        at = f"subsets[{i}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            out.append(required(at, "must specify `addresses` or `notReadyAddresses`"))
        for name in ("addresses", "notReadyAddresses"):
            for j, address in enumerate(subset.get(name) or ()):
                out += _address(address, f"{at}.{name}[{j}]")
        ports = subset.get("ports") or []
        for j, port in enumerate(ports):
            where = f"{at}.ports[{j}]"
            if port.get("name"):
                out += formatted(f"{where}.name", port["name"], formats.dns1123_label)
            elif len(ports) > 1:
                out.append(required(f"{where}.name"))
            out += port_number(f"{where}.port", port.get("port"))
            out += protocol(f"{where}.protocol", port.get("protocol"))
            if port.get("appProtocol"):
                out += formatted(f"{where}.appProtocol", port["appProtocol"], formats.qualified_name)
    return out


def _address(address: Object, path: str) -> Problems:
    out = ordinary_ip(f"{path}.ip", address.get("ip") or "")
    if address.get("hostname"):
        out += formatted(f"{path}.hostname", address["hostname"], formats.dns1123_label)
    if address.get("nodeName") is not None:
        out += formatted(f"{path}.nodeName", address["nodeName"], formats.dns1123_subdomain)
    return out


_ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
_MAX_ENDPOINTS = 1000
_MAX_HINTS = 8
_MAX_TOPOLOGY = 16
_MAX_PORTS = 20000
_MAX_ADDRESSES = 100


def endpoint_slice(obj: Object) -> Problems:
    kind = obj.get("addressType") or ""
    out = one_of("addressType", kind, _ADDRESS_TYPES)
    given = obj.get("endpoints") or []
    if len(given) > _MAX_ENDPOINTS:
        return [*out, too_many("endpoints", len(given), _MAX_ENDPOINTS)]
    for i, endpoint in enumerate(given):
        out += _endpoint(endpoint, f"endpoints[{i}]", kind)
    ports = obj.get("ports") or []
    if len(ports) > _MAX_PORTS:
        return [*out, too_many("ports", len(ports), _MAX_PORTS)]
    names: set[str] = set()
    for i, port in enumerate(ports):
        at = f"ports[{i}]"
        name = port.get("name") or ""
        if name:
            out += formatted(f"{at}.name", name, formats.dns1123_label)
        if name in names:
            out.append(duplicate(f"{at}.name", name))
        names.add(name)
        out += protocol(f"{at}.protocol", port.get("protocol"))
        if port.get("appProtocol"):
            out += formatted(f"{at}.appProtocol", port["appProtocol"], formats.qualified_name)
    return out


def _endpoint(endpoint: Object, path: str, kind: str) -> Problems:
    out: list[FieldError] = []
    addresses = endpoint.get("addresses") or []
    if not addresses:
        out.append(required(f"{path}.addresses", "must contain at least 1 address"))
    elif len(addresses) > _MAX_ADDRESSES:
        out.append(too_many(f"{path}.addresses", len(addresses), _MAX_ADDRESSES))
    for i, address in enumerate(addresses):
        at = f"{path}.addresses[{i}]"
        if kind == "FQDN":
            out += formatted(at, address.removesuffix("."), formats.dns1123_subdomain)
            continue
        valid = not formats.ip_address(address)
        if kind in _FAMILIES and not (valid and f"IPv{ipaddress.ip_address(address).version}" == kind):
            out.append(invalid_value(at, address, f"must be a valid {kind} address"))
        out += ordinary_ip(at, address)
    topology = endpoint.get("deprecatedTopology") or {}
    if len(topology) > _MAX_TOPOLOGY:
        out.append(too_many(f"{path}.deprecatedTopology", len(topology), _MAX_TOPOLOGY))
    out += metadata.labels(topology, f"{path}.deprecatedTopology")
    if endpoint.get("hostname") is not None:
        out += formatted(f"{path}.hostname", endpoint["hostname"], formats.dns1123_label)
    if endpoint.get("nodeName") is not None:
        out += formatted(f"{path}.nodeName", endpoint["nodeName"], formats.dns1123_subdomain)
    hints = endpoint.get("hints") or {}
    for name, check in (("forZones", formats.label_value), ("forNodes", formats.dns1123_subdomain)):
        out += _hints(hints.get(name) or [], f"{path}.hints.{name}", check)
    return out


def _hints(given: list[Object], path: str, check: Format) -> Problems:
    if len(given) > _MAX_HINTS:
        return [too_many(path, len(given), _MAX_HINTS)]
    out: list[FieldError] = []
    seen: set[str] = set()
    for i, hint in enumerate(given):
        at, name = f"{path}[{i}].name", hint.get("name") or ""
        if name in seen:
            out.append(duplicate(at, name))
        seen.add(name)
        out += formatted(at, name, check)
    return out


def endpoint_slice_update(new: Object, old: Object, subresource: str) -> Problems:
    out = endpoint_slice(new)
    return out + metadata.immutable("addressType", new.get("addressType"), old.get("addressType"))
