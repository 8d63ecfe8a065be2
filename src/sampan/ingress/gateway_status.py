"""What is told of classes, Gateways and routes: their statuses, made from what they came to (upstream: GEP-1364, `apis/v1` of
kubernetes-sigs/gateway-api). What other controllers wrote beside stays as it is.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence

from sampan.api.errors import Object
from sampan.ingress.gateway_references import GROUP
from sampan.ingress.gateway_routes import RouteState
from sampan.ingress.gateways import (
    CONTROLLER,
    GatewayState,
    ListenerState,
    Verdict,
    class_verdict,
    generation,
    service_name,
)

FEATURES = (
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayInfrastructurePropagation",
    "GatewayPort8080",
    "GatewayStaticAddresses",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteSchemeRedirect",
    "ReferenceGrant",
)
"""Sorted, as the API wants them."""

_LONGEST = 32_768
"""Characters of a condition's message; with one that is longer the API takes nothing of a status."""


def class_status(obj: Object, now: str) -> Object:
    """The status of a class of ours."""
    before = obj.get("status") or {}
    # The kinds are built in: their version is always the one that is understood.
    wanted = {"Accepted": class_verdict(obj), "SupportedVersion": Verdict(True, "SupportedVersion")}
    found = conditions(before.get("conditions") or (), wanted, generation(obj), now)
    return {**before, "conditions": found, "supportedFeatures": [{"name": f} for f in FEATURES]}


def gateway_status(
    obj: Object,
    state: GatewayState,
    attached: Mapping[str, int],
    addresses: Sequence[str],
    serving: bool,
    now: str,
    obstacle: str = "",
) -> Object:
    """The status of a Gateway of ours; `serving` says whether some node's proxy does what it asks for, `obstacle` why it has no Service."""
    before = obj.get("status") or {}
    asked = list(_addresses(obj["spec"]))
    wanted = {
        "Accepted": state.accepted,
        "Programmed": _programmed(state, asked, addresses, serving, obstacle),
    }
    listeners = {one["name"]: one for one in before.get("listeners") or ()}
    overlapping = {
        name: {_OVERLAPPING: Verdict(True, "OverlappingHostnames", f"its hosts are also those of {with_}")}
        for name, with_ in _overlapping(state.listeners)
    }
    return {
        **before,
        "addresses": [{"type": "IPAddress", "value": a} for a in addresses],
        "conditions": conditions(before.get("conditions") or (), wanted, state.generation, now),
        "listeners": [
            {
                "name": one.name,
                "attachedRoutes": attached.get(one.name, 0),
                "supportedKinds": [{"group": GROUP, "kind": kind} for kind in one.kinds],
                "conditions": conditions(
                    [
                        c
                        for c in (listeners.get(one.name) or {}).get("conditions") or ()
                        if c["type"] != _OVERLAPPING or one.name in overlapping
                    ],
                    _listener(one, wanted["Programmed"]) | overlapping.get(one.name, {}),
                    state.generation,
                    now,
                ),
            }
            for one in state.listeners
        ],
    }


def _overlapping(listeners: Sequence[ListenerState]) -> Iterator[tuple[str, str]]:
    """Each TLS listener whose hosts are in part those of others at its port, with the names of these: a browser may use a connection
    that it has with one for the other, which is then answered with 421."""
    tls = [one for one in listeners if one.tls and not one.conflicted.status]
    for one in tls:
        others = [
            o for o in tls if o is not one and o.port == one.port and _overlap(o.hostname, one.hostname)
        ]
        if others:
            yield one.name, ", ".join(sorted(o.name for o in others))


def _overlap(one: str, other: str) -> bool:
    if not one or not other:
        return True
    for wild, host in ((one, other), (other, one)):
        if wild.startswith("*.") and host.removeprefix("*").endswith(wild[1:]):
            return True
    return one == other


def _addresses(spec: Object) -> Iterator[str]:
    """The addresses that a Gateway asks for, as they are written usually."""
    for one in spec.get("addresses") or ():
        with contextlib.suppress(ValueError):  # of another type: the Gateway is not accepted
            yield str(ipaddress.ip_address(one.get("value") or ""))


def _programmed(
    state: GatewayState, asked: Sequence[str], addresses: Sequence[str], serving: bool, obstacle: str
) -> Verdict:
    if not state.accepted.status or not state.ports:
        return Verdict(False, "Invalid", state.accepted.message or "no listener can be had")
    if obstacle:
        return Verdict(False, "NoResources", obstacle)
    if len(asked) > 1:
        what = f"addresses: a Gateway can have one; of {', '.join(asked)} the first is asked for"
        return Verdict(False, "AddressNotUsable", what)
    if missing := [a for a in asked if a not in addresses]:
        what = f"the load balancer has not given {missing[0]}; see the events of Service {service_name(state.name)}"
        return Verdict(False, "AddressNotUsable", what)
    if not addresses:
        return Verdict(False, "AddressNotAssigned", "the load balancer has given no address yet")
    if not serving:
        return Verdict(False, "NoResources", "no node's proxy serves")
    return Verdict(True, "Programmed")


_OVERLAPPING = "OverlappingTLSConfig"
"""Of a listener; not there where it is not true."""


def _listener(one: ListenerState, gateway: Verdict) -> dict[str, Verdict]:
    programmed = gateway
    if not one.works:
        programmed = Verdict(False, "Invalid", one.accepted.message or one.resolved.message)
    elif not gateway.status:
        programmed = Verdict(False, "Pending", gateway.message)
    return {
        "Accepted": one.accepted,
        "Conflicted": one.conflicted,
        "Programmed": programmed,
        "ResolvedRefs": one.resolved,
    }


def route_status(obj: Object, state: RouteState | None, now: str) -> Object:
    """The status of a route: our word about each parent that is a Gateway of ours, beside others' words about theirs."""
    before = (obj.get("status") or {}).get("parents") or []
    ours: list[Object] = []
    for parent in state.parents if state is not None else ():
        assert state is not None
        old: Object = next((p for p in before if _says(p, parent.reference)), {})
        wanted = {"Accepted": parent.accepted, "ResolvedRefs": state.resolved}
        if state.invalid is not None and parent.accepted.status:
            wanted["PartiallyInvalid"] = state.invalid
        kept = [
            c for c in old.get("conditions") or () if c["type"] != "PartiallyInvalid" or c["type"] in wanted
        ]
        ours.append(
            {
                "parentRef": parent.reference,
                "controllerName": CONTROLLER,
                "conditions": conditions(kept, wanted, state.generation, now),
            }
        )
    # Everything stays at its place: of two controllers that each put their own words last neither would ever be done.
    parents = []
    for one in before:
        if one["controllerName"] != CONTROLLER:
            parents.append(one)
        elif new := next((p for p in ours if _says(p, one["parentRef"])), None):
            parents.append(new)
            ours.remove(new)
    return {"parents": parents + ours}


def _says(parent: Object, reference: Object) -> bool:
    """Whether a parent's status is our word about a reference."""
    return bool(parent["controllerName"] == CONTROLLER and parent["parentRef"] == reference)


def conditions(
    before: Iterable[Object], wanted: Mapping[str, Verdict], generation: int, now: str
) -> list[Object]:
    """Conditions brought up to date: a status that stays keeps its time, and types that are not ours stay."""
    there = {c["type"]: c for c in before}
    for kind, verdict in wanted.items():
        status = "True" if verdict.status else "False"
        old = there.get(kind) or {}
        changed = now if old.get("status") != status else old["lastTransitionTime"]
        there[kind] = {
            "type": kind,
            "status": status,
            "reason": verdict.reason,
            "message": verdict.message[:_LONGEST],
            "observedGeneration": generation,
            "lastTransitionTime": changed,
        }
    return list(there.values())
