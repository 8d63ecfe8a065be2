"""Tables of Services, their endpoints and addresses, Ingresses and NetworkPolicies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sampan.api import selectors
from sampan.api.errors import Object
from sampan.api.tables.cells import (
    AGE,
    NAME,
    NONE,
    Column,
    age,
    joined,
    labels_text,
    name,
    section,
    shortened,
    wide,
)

SERVICE_COLUMNS = (
    NAME,
    Column("Type", description="How the service is exposed."),
    Column("Cluster-IP", description="Its address inside the cluster."),
    Column("External-IP", description="Its addresses outside the cluster."),
    Column("Port(s)", description="Its ports, with the node port where there is one."),
    AGE,
    wide("Selector", "The labels of the pods behind it."),
)


def _ingress_addresses(status: Mapping[str, Any]) -> list[str]:
    points = (status.get("loadBalancer") or {}).get("ingress") or ()
    return [p.get("ip") or p.get("hostname") or "" for p in points]


def _external(spec: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    kind = spec.get("type") or "ClusterIP"
    if kind == "ExternalName":
        return spec.get("externalName") or ""
    addresses = spec.get("externalIPs") or []
    if kind != "LoadBalancer":
        return joined(addresses) or NONE
    given = list(dict.fromkeys(_ingress_addresses(status)))
    return joined([*given, *addresses]) or "<pending>"


def _service_port(port: Mapping[str, Any]) -> str:
    number = port.get("port")
    protocol = port.get("protocol") or "TCP"
    return f"{number}:{port['nodePort']}/{protocol}" if port.get("nodePort") else f"{number}/{protocol}"


def service_row(service: Object, now: float) -> list[Any]:
    spec = section(service, "spec")
    addresses = spec.get("clusterIPs") or ()
    return [
        name(service),
        spec.get("type") or "ClusterIP",
        (addresses[0] if addresses else spec.get("clusterIP")) or NONE,
        _external(spec, section(service, "status")),
        joined(_service_port(p) for p in spec.get("ports") or ()) or NONE,
        age(service, now),
        labels_text(spec.get("selector")),
    ]


ENDPOINTS_COLUMNS = (NAME, Column("Endpoints", description="The ready addresses and ports."), AGE)


def _host_port(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def endpoints_row(endpoints: Object, now: float) -> list[Any]:
    found: list[str] = []
    for subset in endpoints.get("subsets") or ():
        addresses: Iterable[Mapping[str, Any]] = subset.get("addresses") or ()
        ports = subset.get("ports")
        if not ports:
            found += [a.get("ip") or "" for a in addresses]
        for port in ports or ():
            found += [_host_port(a.get("ip") or "", port.get("port") or 0) for a in addresses]
    return [name(endpoints), shortened(found), age(endpoints, now)]


ENDPOINTSLICE_COLUMNS = (
    NAME,
    Column("AddressType", description="What kind of addresses it holds."),
    Column("Ports", description="The ports of every endpoint."),
    Column("Endpoints", description="The addresses."),
    AGE,
)


def endpointslice_row(endpointslice: Object, now: float) -> list[Any]:
    ports = [
        str(p["port"]) if p.get("port") is not None else "*" if not p.get("name") else p["name"]
        for p in endpointslice.get("ports") or ()
    ]
    addresses = [a for e in endpointslice.get("endpoints") or () for a in e.get("addresses") or ()]
    return [
        name(endpointslice),
        endpointslice.get("addressType") or "",
        shortened(ports, empty="<unset>"),
        shortened(addresses, empty="<unset>"),
        age(endpointslice, now),
    ]


INGRESS_COLUMNS = (
    NAME,
    Column("Class", description="The class of the controller that serves it."),
    Column("Hosts", description="The host names that it answers for."),
    Column("Address", description="Where it is reached."),
    Column("Ports", description="The ports that it is reached at."),
    AGE,
)


def ingress_row(ingress: Object, now: float) -> list[Any]:
    spec = section(ingress, "spec")
    hosts = [r["host"] for r in spec.get("rules") or () if r.get("host")]
    return [
        name(ingress),
        spec.get("ingressClassName") or NONE,
        shortened(hosts, empty="*"),
        joined(_ingress_addresses(section(ingress, "status"))),
        "80, 443" if spec.get("tls") else "80",
        age(ingress, now),
    ]


INGRESSCLASS_COLUMNS = (
    NAME,
    Column("Controller", description="The controller that serves this class."),
    Column("Parameters", description="Where its further settings are."),
    AGE,
)


def ingressclass_row(ingressclass: Object, now: float) -> list[Any]:
    spec = section(ingressclass, "spec")
    parameters = spec.get("parameters")
    text = NONE
    if parameters:
        group = parameters.get("apiGroup")
        text = parameters.get("kind") or ""
        text += f".{group}/" if group else "/"
        text += parameters.get("name") or ""
    return [name(ingressclass), spec.get("controller") or "", text, age(ingressclass, now)]


NETWORKPOLICY_COLUMNS = (
    NAME,
    Column("Pod-Selector", description="The labels of the pods that it is about."),
    AGE,
)


def networkpolicy_row(policy: Object, now: float) -> list[Any]:
    try:
        chosen = selectors.from_object(section(policy, "spec").get("podSelector") or {})
    except ValueError:
        text = "<error>"
    else:
        text = ",".join(map(str, sorted(chosen.requirements, key=lambda r: r.key))) or NONE
    return [name(policy), text, age(policy, now)]


SERVICECIDR_COLUMNS = (
    NAME,
    Column("CIDRs", description="The ranges that addresses of Services are taken from."),
    AGE,
)


def servicecidr_row(cidr: Object, now: float) -> list[Any]:
    return [name(cidr), joined(section(cidr, "spec").get("cidrs") or ()), age(cidr, now)]


IPADDRESS_COLUMNS = (NAME, Column("ParentRef", description="The object that has the address."))


def ipaddress_row(address: Object, now: float) -> list[Any]:
    parent = section(address, "spec").get("parentRef")
    if not parent:
        return [name(address), NONE]
    resource = parent.get("resource") or ""
    if parent.get("group"):
        resource += f".{parent['group']}"
    parts = (resource.lower(), parent.get("namespace"), parent.get("name") or "")
    return [name(address), "/".join(p for p in parts if p is not None and p != "")]
