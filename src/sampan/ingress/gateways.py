"""Gateways: what their listeners come to, and what they contribute to the routing (upstream: gateway.networking.k8s.io/v1).

Each Gateway has a Service of type LoadBalancer of its own, hence an address of its own. The node port of such a Service's port is where
the nodes' proxies listen for it, so that Gateways never meet on a port, neither with one another nor with Ingresses. Each listener is a
scope of its own: a request is for the listener of its port whose host is most like its own, and only for routes that are attached to that one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from sampan.api.errors import Object
from sampan.ingress import certificates
from sampan.ingress.certificates import SecretLookup
from sampan.ingress.gateway_references import GROUP, Granted
from sampan.ingress.types import Certificate, Contribution, Host, HostKind, Listener, Source

CONTROLLER = "sampan.io/gateway-controller"
"""What a GatewayClass of ours has as its controller."""
ROUTE_KINDS = ("HTTPRoute", "GRPCRoute")
_PROTOCOLS = {"HTTP": False, "HTTPS": True}
"""Protocols that can be had, and whether they are TLS."""
_NAME = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
"""A name of a certificate that can be asked for."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One condition: True with a reason that says so, or False with why. In the negative ones (Conflicted) it is the other way round."""

    status: bool
    reason: str
    message: str = ""


ACCEPTED = Verdict(True, "Accepted")
RESOLVED = Verdict(True, "ResolvedRefs")
NO_CONFLICTS = Verdict(False, "NoConflicts")


@dataclass(frozen=True, slots=True)
class ListenerState:
    """A listener of a Gateway, read. `hostname` is "" for all; `kinds` are the kinds of routes that may attach."""

    name: str
    port: int
    protocol: str
    hostname: str
    scope: str
    """Of its routes."""
    kinds: tuple[str, ...]
    allowed: Object
    """`allowedRoutes.namespaces`."""
    accepted: Verdict = ACCEPTED
    conflicted: Verdict = NO_CONFLICTS
    resolved: Verdict = RESOLVED
    certificates: tuple[Certificate, ...] = ()

    @property
    def tls(self) -> bool:
        return _PROTOCOLS.get(self.protocol, False)

    @property
    def works(self) -> bool:
        """Whether requests can come in here."""
        return self.accepted.status and bool(self.kinds) and (not self.tls or bool(self.certificates))


@dataclass(frozen=True, slots=True)
class GatewayState:
    """A Gateway, read."""

    namespace: str
    name: str
    accepted: Verdict
    listeners: tuple[ListenerState, ...]
    generation: int = field(default=0, compare=False)
    """Of the Gateway that was read: there may be a newer one."""

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports that requests come in at, sorted."""
        return tuple(sorted({one.port for one in self.listeners if self.accepted.status and one.works}))


def service_name(gateway: str) -> str:
    """The Service of a Gateway. A name that would be too long for a Service is cut, and keeps a digest of the whole; so does one that
    the slice for IPv6 of another one's Service has (`door_slices`)."""
    import hashlib

    name = f"sampan-gateway-{gateway}".replace(".", "-")
    if len(name) <= 63 and "." not in gateway and not gateway.endswith("-ipv6"):
        return name
    return f"{name[:52].rstrip('-')}-{hashlib.sha256(gateway.encode()).hexdigest()[:10]}"


def gateway_of(service: Object) -> str:
    """`namespace/name` of the Gateway that a Service was made for; "" for any other Service. Its label may be too short for the name."""
    meta = service["metadata"]
    owners = [r for r in meta.get("ownerReferences") or () if r.get("kind") == "Gateway"]
    return f"{meta['namespace']}/{owners[0]['name']}" if owners else ""


def class_verdict(gateway_class: Object) -> Verdict:
    """Whether Gateways of a class of ours can be had."""
    given = gateway_class["spec"].get("parametersRef")
    if not given:
        return ACCEPTED
    what = f"parametersRef: {given['kind']} {given['name']}: there are no parameters"
    return Verdict(False, "InvalidParameters", what)


def read(
    gateway: Object, secret: SecretLookup, granted: Granted, of_class: Verdict = ACCEPTED
) -> GatewayState:
    """What a Gateway of ours comes to; `of_class` is the verdict on its class."""
    namespace, name = gateway["metadata"]["namespace"], gateway["metadata"]["name"]
    spec = gateway["spec"]
    protocols: dict[int, set[str]] = {}
    for one in spec["listeners"]:
        if one["protocol"] in _PROTOCOLS:
            protocols.setdefault(one["port"], set()).add(one["protocol"])
    listeners = tuple(
        _listener(gateway, i, one, len(protocols.get(one["port"], ())) > 1, secret, granted)
        for i, one in enumerate(spec["listeners"])
    )
    if of_class.status:
        accepted = _accepted(spec, listeners)
    else:
        accepted = replace(of_class, message=f"GatewayClass {spec['gatewayClassName']}: {of_class.message}")
    return GatewayState(namespace, name, accepted, listeners, generation(gateway))


def generation(obj: Object) -> int:
    """Which state of what is asked for an object is."""
    return int(obj["metadata"].get("generation") or 0)


def _accepted(spec: Object, listeners: Sequence[ListenerState]) -> Verdict:
    infrastructure = spec.get("infrastructure") or {}
    if infrastructure.get("parametersRef"):
        given = infrastructure["parametersRef"]
        what = f"infrastructure.parametersRef: {given['kind']} {given['name']}: there are no parameters"
        return Verdict(False, "InvalidParameters", what)
    if spec.get("tls"):
        # Whoever wants certificates of clients looked at must not get a Gateway that lets everybody in.
        return Verdict(False, "Invalid", f"tls.{', tls.'.join(spec['tls'])}: not supported")
    addresses = spec.get("addresses") or ()
    unusable = [a for a in addresses if a.get("type") != "IPAddress"]
    if unusable:
        what = ", ".join(f"{a.get('type')} {a.get('value') or ''}".strip() for a in unusable)
        return Verdict(False, "UnsupportedAddress", f"addresses: only IPAddress is supported, not {what}")
    bad = [one.name for one in listeners if not one.accepted.status]
    if not bad:
        return ACCEPTED
    good = [one.name for one in listeners if one.accepted.status]
    message = f"listeners that are not accepted: {', '.join(bad)}; accepted: {', '.join(good) or 'none'}"
    return Verdict(bool(good), "ListenersNotValid", message)


def _listener(
    gateway: Object, index: int, given: Object, conflict: bool, secret: SecretLookup, granted: Granted
) -> ListenerState:
    namespace, name = gateway["metadata"]["namespace"], gateway["metadata"]["name"]
    protocol, port = given["protocol"], given["port"]
    allowed = given.get("allowedRoutes") or {}
    kinds, resolved = _kinds(allowed.get("kinds") or ())
    accepted, conflicted = ACCEPTED, NO_CONFLICTS
    if protocol not in _PROTOCOLS:
        message = f"protocol {protocol}: supported protocols: {', '.join(_PROTOCOLS)}"
        accepted, kinds = Verdict(False, "UnsupportedProtocol", message), ()
    elif conflict:
        message = f"port {port} is wanted for HTTP and for HTTPS"
        conflicted = Verdict(True, "ProtocolConflict", message)
        accepted = Verdict(False, "Invalid", message)
    elif unknown := (given.get("tls") or {}).get("options"):
        accepted = Verdict(False, "Invalid", f"tls.options: not supported: {', '.join(unknown)}")
    scope = _port_scope(namespace, name, port)
    found: tuple[Certificate, ...] = ()
    if _PROTOCOLS.get(protocol):
        found, problem = _certificates(gateway, index, given, scope, secret, granted)
        resolved = problem or resolved
    return ListenerState(
        given["name"],
        port,
        protocol,
        given.get("hostname") or "",
        f"{scope}/{given['name']}",
        kinds,
        allowed.get("namespaces") or {"from": "Same"},
        accepted,
        conflicted,
        resolved,
        found,
    )


def _kinds(given: Sequence[Object]) -> tuple[tuple[str, ...], Verdict]:
    """The kinds of routes that may attach, and whether all that are asked for can be had."""
    if not given:
        return ROUTE_KINDS, RESOLVED
    asked = dict.fromkeys((k.get("group", GROUP), k["kind"]) for k in given)
    known = tuple(kind for group, kind in asked if group == GROUP and kind in ROUTE_KINDS)
    unknown = [f"{group}/{kind}" for group, kind in asked if group != GROUP or kind not in known]
    if not unknown:
        return known, RESOLVED
    message = (
        f"kinds of routes that are not supported: {', '.join(unknown)}; supported: {', '.join(ROUTE_KINDS)}"
    )
    return known, Verdict(False, "InvalidRouteKinds", message)


def _certificates(
    gateway: Object, index: int, given: Object, scope: str, secret: SecretLookup, granted: Granted
) -> tuple[tuple[Certificate, ...], Verdict | None]:
    """The certificates of a listener, one for each reference that is good, and what is wrong with the others."""
    namespace, name = gateway["metadata"]["namespace"], gateway["metadata"]["name"]
    refs = (given.get("tls") or {}).get("certificateRefs") or ()
    found: list[Certificate] = []
    problem: Verdict | None = None
    if not refs:
        problem = Verdict(False, "InvalidCertificateRef", "tls.certificateRefs: there is none")
    for i, ref in enumerate(refs):
        at = f"tls.certificateRefs[{i}]"
        where = ref.get("namespace") or namespace
        if ref.get("group") or ref.get("kind", "Secret") != "Secret":
            message = (
                f"{at}: {ref.get('group') or 'core'}/{ref.get('kind')} is not supported: only Secrets are"
            )
            problem = problem or Verdict(False, "InvalidCertificateRef", message)
            continue
        if where != namespace and not granted("Gateway", namespace, "Secret", where, ref["name"]):
            message = f"{at}: no ReferenceGrant in {where} allows Gateways of {namespace} to refer to Secret {ref['name']}"
            problem = problem or Verdict(False, "RefNotPermitted", message)
            continue
        obj = secret(where, ref["name"])
        try:
            if obj is None:
                raise ValueError("there is none")
            chain, key = certificates.pair(obj)
        except ValueError as e:
            message = f"{at}: Secret {where}/{ref['name']}: {e}"
            problem = problem or Verdict(False, "InvalidCertificateRef", message)
            continue
        source = Source("Gateway", namespace, name, f"spec.listeners[{index}].tls")
        created = gateway["metadata"].get("creationTimestamp") or ""
        host = _host((given.get("hostname") or "").lower())
        found.append(Certificate(scope, host, chain, key, source=source, created=created))
    return tuple(found), problem


def contribution(state: GatewayState, service: Object | None) -> Contribution:
    """The listeners and certificates of a Gateway, once its Service has node ports."""
    if not state.accepted.status or service is None:
        return Contribution()
    node_ports = {p["port"]: p.get("nodePort") for p in (service.get("spec") or {}).get("ports") or ()}
    listeners: dict[str, Listener] = {}
    ports: dict[int, list[ListenerState]] = {}
    for one in state.listeners:
        number = node_ports.get(one.port)
        if one.works and number:
            scope = _port_scope(state.namespace, state.name, one.port)
            alone = Listener(scope, number, scope, tls=one.tls, public_port=one.port)
            beside = listeners.get(scope, alone)
            hosts = (*beside.hosts, (_host(one.hostname.lower()), one.scope))
            listeners[scope] = replace(beside, hosts=hosts)
            ports.setdefault(one.port, []).append(one)
    shown = [c for beside_one_another in ports.values() for c in _by_name(beside_one_another)]
    return Contribution(listeners=tuple(listeners.values()), certificates=tuple(shown))


def _by_name(listeners: Sequence[ListenerState]) -> Iterator[Certificate]:
    """Which certificate a port shows for which name that is asked for (SNI): of the certificates of the listener whose host is most
    like the name, the first that is for it, or else the first. Who asks for no host of these is shown that of the first listener,
    the one for all hosts before others. A listener's wildcard stands for several labels, a certificate's for one.
    """
    found: dict[str, Certificate] = {}
    listeners = [one for one in listeners if one.tls]
    for one in listeners:
        if one.hostname and not one.hostname.startswith("*.") and len(one.certificates) == 1:
            continue  # there is nothing to choose
        for certificate in one.certificates:
            for name in certificates.names_of(certificate.chain):
                if _NAME.fullmatch(name) and _most_like(listeners, name) is one:
                    found.setdefault(name, certificate)
    for one in sorted(listeners, key=lambda one: bool(one.hostname)):
        host = one.hostname.lower()
        for name in (host, ""):
            found.setdefault(name, _first_for(host, one.certificates))
    return (replace(certificate, host=Host.of_ingress(name)) for name, certificate in found.items())


def _most_like(listeners: Sequence[ListenerState], name: str) -> ListenerState | None:
    """The listener that is for a host, or for all that a wildcard stands for."""
    fitting = (one for one in listeners if _common(one.hostname.lower(), name) == name)
    return max(fitting, key=lambda one: (one.hostname == name, len(one.hostname)), default=None)


def _first_for(host: str, given: Sequence[Certificate]) -> Certificate:
    if len(given) == 1:
        return given[0]
    return next((c for c in given if certificates.is_for(c.chain, host)), given[0])


def _port_scope(namespace: str, name: str, port: int) -> str:
    """What all listeners of a Gateway's port are, seen from outside."""
    return f"{namespace}/{name}:{port}"


def shown(state: GatewayState) -> Iterator[tuple[Certificate, str]]:
    """The certificates that a Gateway's listeners show, each with the host that it has to be for: that of the listener, if it is alone there
    ("" for any)."""
    for one in state.listeners:
        if one.works and state.accepted.status:
            host = one.hostname if len(one.certificates) == 1 else ""
            yield from ((certificate, host) for certificate in one.certificates)


# ---- hosts


def hosts(listener: str, route: Iterable[str]) -> tuple[Host, ...]:
    """The hosts that both a listener ("" for all) and a route (none for all) are for."""
    names = list(dict.fromkeys(h.lower() for h in route)) or [""]
    common = (_common(listener.lower(), name) for name in names)
    return tuple(dict.fromkeys(_host(name) for name in common if name is not None))


def _host(name: str) -> Host:
    kind = HostKind.ANY if not name else HostKind.SUFFIX if name.startswith("*.") else HostKind.EXACT
    return Host(kind, name)


def _common(one: str, other: str) -> str | None:
    """The more special of two host names of which one is part of what the other means; None where neither is."""
    if not one or one == other:
        return other
    if not other:
        return one
    for wide, narrow in ((one, other), (other, one)):
        if wide.startswith("*.") and narrow.removeprefix("*").endswith(wide[1:]) and narrow != wide:
            return narrow
    return None
