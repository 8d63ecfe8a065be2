"""The little that names need of Services, EndpointSlices, Namespaces and Pods, so that a copy of all of them stays small."""

from __future__ import annotations

from collections.abc import Iterable

from sampan.api.errors import Object

SERVICE_NAME = "kubernetes.io/service-name"


def _meta(obj: Object, *, labels: Iterable[str] = ()) -> Object:
    meta = obj["metadata"]
    out = {"name": meta["name"], "resourceVersion": meta["resourceVersion"]}
    if "namespace" in meta:
        out["namespace"] = meta["namespace"]
    held = meta.get("labels") or {}
    kept = {name: held[name] for name in labels if name in held}
    return {**out, "labels": kept} if kept else out


def service(obj: Object) -> Object:
    """`spec`: type, clusterIPs, externalName, and of the ports name, protocol and port."""
    spec = obj.get("spec") or {}
    addresses = spec.get("clusterIPs") or [spec.get("clusterIP") or "None"]
    small: Object = {"clusterIPs": [a for a in addresses if a not in ("", "None")]}
    if spec.get("type") == "ExternalName":
        small["externalName"] = spec.get("externalName") or ""
    ports = [(p.get("name") or "", p.get("protocol") or "TCP", p["port"]) for p in spec.get("ports") or ()]
    return {"metadata": _meta(obj), "spec": {**small, "ports": ports}}


def endpoint_slice(obj: Object) -> Object:
    """`endpoints`: those that are ready, as (address, hostname, pod); `ports` as (name, protocol, number)."""
    endpoints = [
        (e["addresses"][0], e.get("hostname") or "", _pod(e))
        for e in obj.get("endpoints") or ()
        if e.get("addresses") and (e.get("conditions") or {}).get("ready") is not False
    ]
    ports = [
        (p.get("name") or "", p.get("protocol") or "TCP", p.get("port") or 0) for p in obj.get("ports") or ()
    ]
    known = obj.get("addressType") in ("IPv4", "IPv6")
    return {
        "metadata": _meta(obj, labels=(SERVICE_NAME,)),
        "endpoints": endpoints if known else [],
        "ports": ports,
    }


def _pod(endpoint: Object) -> str:
    target = endpoint.get("targetRef") or {}
    return str(target.get("name") or "") if target.get("kind") == "Pod" else ""


def namespace(obj: Object) -> Object:
    return {"metadata": _meta(obj)}


def pod(obj: Object) -> Object:
    """`ips`: its own addresses, none where its names are looked for in another way than every Pod's."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    usual = (
        not spec.get("hostNetwork")
        and not spec.get("dnsConfig")
        and spec.get("dnsPolicy", "ClusterFirst") == "ClusterFirst"
        and status.get("phase") in ("Pending", "Running")
    )
    ips = [i["ip"] for i in status.get("podIPs") or ()]
    return {"metadata": _meta(obj), "ips": ips if usual else []}


# ---- indexes


def by_address(obj: Object) -> Iterable[str]:
    """The addresses of a small Service, EndpointSlice or Pod."""
    if "spec" in obj:
        return tuple(obj["spec"]["clusterIPs"])
    if "ips" in obj:
        return tuple(obj["ips"])
    return tuple(dict.fromkeys(e[0] for e in obj["endpoints"]))


def by_service(obj: Object) -> Iterable[str]:
    """The Service of an EndpointSlice, as `namespace/name`."""
    meta = obj["metadata"]
    name = (meta.get("labels") or {}).get(SERVICE_NAME)
    return (f"{meta['namespace']}/{name}",) if name else ()
