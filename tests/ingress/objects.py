"""Ingresses, Services and the routing that follows from them, written briefly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sampan.api.errors import Object
from sampan.ingress.ingresses import contribution
from sampan.ingress.table import RoutingTable
from sampan.ingress.types import Endpoint, ServicePort

Rule = tuple[str, str, str, str]
"""Host, path, pathType, Service (at port 80)."""


def backend(service: str) -> Object:
    return {"service": {"name": service, "port": {"number": 80}}}


def ingress(
    name: str,
    rules: Iterable[Rule] = (),
    default: str = "",
    created: str = "2026-01-01T00:00:00Z",
    namespace: str = "a",
) -> Object:
    spec: Object = {
        "rules": [
            {"host": host, "http": {"paths": [{"path": path, "pathType": kind, "backend": backend(service)}]}}
            for host, path, kind, service in rules
        ]
    }
    if default:
        spec["defaultBackend"] = backend(default)
    meta = {"namespace": namespace, "name": name, "creationTimestamp": created}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta, "spec": spec}


def service(namespace: str, name: str) -> Object | None:
    """Every Service is there, with port 80 named http, but those whose name begins with `no`."""
    if name.startswith("no"):
        return None
    return {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    }


def add(table: RoutingTable, obj: Object) -> None:
    meta = obj["metadata"]
    table.update(("Ingress", meta["namespace"], meta["name"]), contribution(obj, service))


def remove(table: RoutingTable, name: str, namespace: str = "a") -> None:
    from sampan.ingress.types import NOTHING

    table.update(("Ingress", namespace, name), NOTHING)


def set_backends(
    table: RoutingTable, backends: Mapping[str, Iterable[Endpoint]], namespace: str = "a"
) -> None:
    for name, endpoints in backends.items():
        table.set_endpoints(ServicePort(namespace, name, 80), tuple(endpoints))
