"""What is behind a port of a Service, from its EndpointSlices.

As the node's proxy has it: ready endpoints; if there is none, those that still serve while they end. One that ends beside ready ones
drains: it finishes what it has begun.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from sampan.api.errors import Object
from sampan.ingress.types import Endpoint, EndpointState

SERVICE_NAME = "kubernetes.io/service-name"


def port_of(service: Object, number: int) -> Object | None:
    """The port of a Service that has this number; where UDP has it, too, as for HTTP/3, that of TCP."""
    found: list[Object] = [p for p in (service.get("spec") or {}).get("ports") or () if p["port"] == number]
    return next((p for p in found if (p.get("protocol") or "TCP") == "TCP"), found[0] if found else None)


def external_port(service: Object, number: int) -> int:
    """Where the host that a Service of type ExternalName stands for is asked: the port's target, if that is a number."""
    target = (port_of(service, number) or {}).get("targetPort")
    return target if isinstance(target, int) and target else number


def endpoints(service: Object, port: int, slices: Iterable[Object]) -> tuple[Endpoint, ...]:
    """The endpoints of a port of a Service (by its number), sorted by address."""
    there = port_of(service, port)
    if there is None:
        return ()
    named = there.get("name") or ""
    ready: dict[tuple[str, int], str] = {}
    ending: dict[tuple[str, int], str] = {}
    for one in slices:
        if one.get("addressType") not in ("IPv4", "IPv6"):
            continue
        number = next(
            (
                p.get("port")
                for p in one.get("ports") or ()
                if (p.get("name") or "") == named and (p.get("protocol") or "TCP") == "TCP"
            ),
            None,
        )
        if number is None:
            continue
        for endpoint in one.get("endpoints") or ():
            conditions = endpoint.get("conditions") or {}
            is_ready = conditions.get("ready") is not False
            serving = conditions.get("serving")
            if not is_ready and not (conditions.get("terminating") and (serving is None or serving)):
                continue
            # An address goes into the proxy's configuration: what is none never gets that far.
            address = str(ipaddress.ip_address(endpoint["addresses"][0]))
            pod = (endpoint.get("targetRef") or {}).get("name") or ""
            (ready if is_ready else ending)[address, int(number)] = pod
    state = EndpointState.DRAINING if ready else EndpointState.READY
    found = [Endpoint(a, n, EndpointState.READY, pod) for (a, n), pod in sorted(ready.items())]
    found += [Endpoint(a, n, state, pod) for (a, n), pod in sorted(ending.items()) if (a, n) not in ready]
    return tuple(found)


def service_of(slice_: Object) -> Iterable[str]:
    """`namespace/name` of the Service that an EndpointSlice belongs to; for an index."""
    meta = slice_["metadata"]
    name = (meta.get("labels") or {}).get(SERVICE_NAME)
    return (f"{meta['namespace']}/{name}",) if name else ()
