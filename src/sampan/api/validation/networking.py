"""Ingresses, IngressClasses, NetworkPolicies, ServiceCIDRs and IPAddresses."""

from __future__ import annotations

import ipaddress

from sampan.api.errors import (
    FieldError,
    Object,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    too_long,
)
from sampan.api.ingress_classes import CLASS_ANNOTATION
from sampan.api.validation import formats, metadata
from sampan.api.validation.values import (
    Problems,
    cidr,
    domain_prefixed_path,
    formatted,
    ip,
    named,
    one_of,
    port_number,
    port_or_name,
)

_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_BAD_SEQUENCES = ("//", "/./", "/../", "%2f", "%2F")
_BAD_ENDINGS = ("/..", "/.")
_NOT_AN_IP = "must be a DNS name, not an IP address"


def ingress_create(obj: Object) -> Problems:
    out = ingress(obj)
    spec = obj.get("spec") or {}
    noted = ((obj.get("metadata") or {}).get("annotations") or {}).get(CLASS_ANNOTATION)
    if noted is not None and spec.get("ingressClassName") not in (None, noted):
        detail = "must match `ingressClassName` when both are specified"
        out.append(invalid_value(f"annotations.{CLASS_ANNOTATION}", noted, detail))
    return out


def ingress(obj: Object) -> Problems:
    spec = obj.get("spec") or {}
    out: list[FieldError] = []
    rules, default = spec.get("rules") or [], spec.get("defaultBackend")
    if not rules and default is None:
        out.append(invalid_value("spec", rules, "either `defaultBackend` or `rules` must be specified"))
    if default is not None:
        out += _backend(default, "spec.defaultBackend")
    for i, rule in enumerate(rules):
        at = f"spec.rules[{i}]"
        out += _host(rule.get("host") or "", f"{at}.host", rule=True)
        http = rule.get("http")
        if http is not None:
            if not http.get("paths"):
                out.append(required(f"{at}.http.paths"))
            for j, path in enumerate(http.get("paths") or ()):
                out += _path(path, f"{at}.http.paths[{j}]")
    for i, tls in enumerate(spec.get("tls") or ()):
        for j, host in enumerate(tls.get("hosts") or ()):
            out += _host(host, f"spec.tls[{i}].hosts[{j}]")
        if tls.get("secretName"):
            out += formatted(f"spec.tls[{i}].secretName", tls["secretName"], formats.dns1123_subdomain)
    if spec.get("ingressClassName") is not None:
        out += formatted("spec.ingressClassName", spec["ingressClassName"], formats.dns1123_subdomain)
    return out


def _host(host: str, path: str, rule: bool = False) -> Problems:
    if not host and rule:
        return []
    out: list[FieldError] = []
    if rule and not formats.ip_address(host):
        out.append(invalid_value(path, host, _NOT_AN_IP))
    return out + formatted(
        path, host, formats.wildcard_subdomain if "*" in host else formats.dns1123_subdomain
    )


def _path(given: Object, path: str) -> Problems:
    kind, text = given.get("pathType"), given.get("path") or ""
    if kind is None:
        return [required(f"{path}.pathType", "pathType must be specified")]
    out: list[FieldError] = []
    at = f"{path}.path"
    if any(c < " " or c == "\x7f" for c in text):
        # No request can have such a path. Upstream lets them pass, and its controllers had holes by them.
        out.append(invalid_value(at, text, "must not contain control characters"))
    if kind not in _PATH_TYPES:
        out.append(not_supported(f"{path}.pathType", kind, _PATH_TYPES))
    elif kind == "ImplementationSpecific":
        if text and not text.startswith("/"):
            out.append(invalid_value(at, text, "must be an absolute path"))
    else:
        if not text.startswith("/"):
            out.append(invalid_value(at, text, "must be an absolute path"))
        out += [invalid_value(at, text, f"must not contain '{s}'") for s in _BAD_SEQUENCES if s in text]
        out += [invalid_value(at, text, f"cannot end with '{s}'") for s in _BAD_ENDINGS if text.endswith(s)]
    return out + _backend(given.get("backend") or {}, f"{path}.backend")


def _backend(backend: Object, path: str) -> Problems:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        return [invalid_value(path, "", "cannot set both resource and service backends")]
    if resource is not None:
        return _reference(resource, f"{path}.resource")
    if service is None:
        return [invalid_value(path, "", "resource or service backend is required")]
    out = named(f"{path}.service.name", service.get("name"), formats.dns1035_label)
    port = service.get("port") or {}
    if port.get("name") and port.get("number"):
        out.append(invalid_value(path, "", "cannot set both port name & port number"))
    elif port.get("name"):
        out += formatted(f"{path}.service.port.name", port["name"], formats.port_name)
    elif port.get("number"):
        out += port_number(f"{path}.service.port.number", port["number"])
    else:
        out.append(required(path, "port name or number is required"))
    return out


def _reference(reference: Object, path: str) -> Problems:
    out: list[FieldError] = []
    if reference.get("apiGroup") is not None:
        out += formatted(f"{path}.apiGroup", reference["apiGroup"], formats.dns1123_subdomain)
    for name in ("kind", "name"):
        out += named(f"{path}.{name}", reference.get(name), formats.path_segment)
    return out


def ingress_update(new: Object, old: Object, subresource: str) -> Problems:
    if subresource != "status":
        return ingress(new)
    out: list[FieldError] = []
    for i, entry in enumerate(((new.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()):
        at = f"status.loadBalancer.ingress[{i}]"
        if entry.get("ip"):
            out += ip(f"{at}.ip", entry["ip"])
        if entry.get("hostname"):
            out += formatted(f"{at}.hostname", entry["hostname"], formats.dns1123_subdomain)
            if not formats.ip_address(entry["hostname"]):
                out.append(invalid_value(f"{at}.hostname", entry["hostname"], _NOT_AN_IP))
    return out


def ingress_class(obj: Object) -> Problems:
    spec = obj.get("spec") or {}
    controller, at = spec.get("controller") or "", "spec.controller"
    out = [too_long(at, 250)] if len(controller) > 250 else []
    out += domain_prefixed_path(at, controller)
    parameters = spec.get("parameters")
    if parameters is not None:
        at = "spec.parameters"
        out += _reference(parameters, at)
        scope = parameters.get("scope")
        out += one_of(f"{at}.scope", scope, ("Cluster", "Namespace"))
        if scope == "Namespace":
            namespace = parameters.get("namespace")
            if namespace is None:
                out.append(required(f"{at}.namespace", "`parameters.scope` is set to 'Namespace'"))
            else:
                out += formatted(f"{at}.namespace", namespace, formats.dns1123_label)
        elif parameters.get("namespace") is not None:
            detail = "`parameters.scope` is set to 'Cluster'"
            out.append(forbidden_field(f"{at}.namespace", detail))
    return out


def ingress_class_update(new: Object, old: Object, subresource: str) -> Problems:
    after, before = new.get("spec") or {}, old.get("spec") or {}
    out = metadata.immutable("spec.controller", after.get("controller"), before.get("controller"))
    return out + ingress_class(new)


# ---- NetworkPolicy

_POLICY_TYPES = ("Ingress", "Egress")
_POLICY_PROTOCOLS = ("TCP", "UDP", "SCTP")


def network_policy(obj: Object) -> Problems:
    spec = obj.get("spec") or {}
    out = metadata.label_selector(spec.get("podSelector"), "spec.podSelector")
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for i, rule in enumerate(spec.get(direction) or ()):
            at = f"spec.{direction}[{i}]"
            for j, port in enumerate(rule.get("ports") or ()):
                out += _policy_port(port, f"{at}.ports[{j}]")
            for j, peer in enumerate(rule.get(peers) or ()):
                out += _policy_peer(peer, f"{at}.{peers}[{j}]")
    types = spec.get("policyTypes") or []
    if len(types) > len(_POLICY_TYPES):
        return [*out, invalid_value("spec.policyTypes", types, "may not specify more than two policyTypes")]
    for i, name in enumerate(types):
        if name not in _POLICY_TYPES:
            out.append(not_supported(f"spec.policyTypes[{i}]", name, _POLICY_TYPES))
    return out


def _policy_port(given: Object, path: str) -> Problems:
    out: list[FieldError] = []
    protocol, port, end = given.get("protocol"), given.get("port"), given.get("endPort")
    if protocol is not None and protocol not in _POLICY_PROTOCOLS:
        out.append(not_supported(f"{path}.protocol", protocol, _POLICY_PROTOCOLS))
    at = f"{path}.endPort"
    if port is None:
        if end is not None:
            out.append(invalid_value(at, end, "may not be specified when `port` is not specified"))
        return out
    if isinstance(port, str):
        if end is not None:
            out.append(invalid_value(at, end, "may not be specified when `port` is non-numeric"))
        return out + port_or_name(f"{path}.port", port)
    out += port_number(f"{path}.port", port)
    if end is not None:
        if end < port:
            out.append(invalid_value(at, end, "must be greater than or equal to `port`"))
        out += port_number(at, end)
    return out


def _policy_peer(peer: Object, path: str) -> Problems:
    out: list[FieldError] = []
    for name in ("podSelector", "namespaceSelector"):
        out += metadata.label_selector(peer.get(name), f"{path}.{name}")
    block = peer.get("ipBlock")
    if block is not None:
        out += _ip_block(block, f"{path}.ipBlock")
    given = [n for n in ("podSelector", "namespaceSelector", "ipBlock") if peer.get(n) is not None]
    if not given:
        out.append(required(path, "must specify a peer"))
    elif block is not None and len(given) > 1:
        out.append(forbidden_field(path, "may not specify both ipBlock and another peer"))
    return out


def _ip_block(block: Object, path: str) -> Problems:
    whole = block.get("cidr")
    if not whole:
        return [required(f"{path}.cidr")]
    out = cidr(f"{path}.cidr", whole)
    if out:
        return out
    network = ipaddress.ip_network(whole, strict=False)
    for i, text in enumerate(block.get("except") or ()):
        at = f"{path}.except[{i}]"
        problems = cidr(at, text)
        out += problems
        if problems:
            continue
        part = ipaddress.ip_network(text, strict=False)
        inside = part.version == network.version and part.network_address in network
        if not inside or network.prefixlen >= part.prefixlen:
            out.append(invalid_value(at, text, "must be a strict subset of `cidr`"))
    return out


# ---- IPAddress and ServiceCIDR


def ip_address(obj: Object) -> Problems:
    parent, at = (obj.get("spec") or {}).get("parentRef"), "spec.parentRef"
    if parent is None:
        return [required(at)]
    out: list[FieldError] = []
    if parent.get("group"):
        out += formatted(f"{at}.group", parent["group"], formats.dns1123_subdomain)
    for name in ("resource", "name"):
        out += named(f"{at}.{name}", parent.get(name), formats.path_segment)
    if parent.get("namespace"):
        out += formatted(f"{at}.namespace", parent["namespace"], formats.path_segment)
    return out


def ip_address_update(new: Object, old: Object, subresource: str) -> Problems:
    after, before = ((o.get("spec") or {}).get("parentRef") for o in (new, old))
    return metadata.immutable("spec.parentRef", after, before)


def service_cidr(obj: Object) -> Problems:
    cidrs, at = (obj.get("spec") or {}).get("cidrs") or [], "spec.cidrs"
    if not cidrs:
        return [required(at, "at least one CIDR required")]
    if len(cidrs) > 2:
        return [invalid_value(at, {"cidrs": cidrs}, "may only hold up to 2 values")]
    out = [p for i, text in enumerate(cidrs) for p in formatted(f"{at}[{i}]", text, formats.canonical_cidr)]
    versions = [ipaddress.ip_network(t, strict=False).version for t in cidrs if not formats.cidr(t)]
    if len(versions) == 2 and versions[0] == versions[1]:
        detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
        out.append(invalid_value(at, cidrs, detail))
    return out


def service_cidr_update(new: Object, old: Object, subresource: str) -> Problems:
    """Ranges stay as they are; a second one, of the other family, may be added."""
    if subresource:
        return []
    after, before = ((o.get("spec") or {}).get("cidrs") or [] for o in (new, old))
    at = "spec.cidrs"
    out = [
        invalid_value(f"{at}[{i}]", a, formats.IMMUTABLE)
        for i, (a, b) in enumerate(zip(after, before, strict=False))
        if a != b
    ]
    if len(after) == len(before):
        return out
    if (len(before), len(after)) == (1, 2):
        return out + service_cidr(new)
    return [invalid_value(at, after, formats.IMMUTABLE)]
