"""Services and EndpointSlices as manifests, and a cluster that consists of such."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sampan.api.errors import Object
from sampan.dns import objects


def service(name: str, **spec: Any) -> Object:
    spec.setdefault("ports", [{"name": "http", "port": 80}])
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {k: v for k, v in spec.items() if v is not None},
    }


def slice_(
    service: str, endpoints: Sequence[tuple[str, str]], *, ports: Sequence[tuple[str, str, int]],
    family: str = "IPv4", name: str = "", ready: bool = True,
) -> Object:  # fmt: skip
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name or f"{service}-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": family,
        "endpoints": [
            {
                "addresses": [address],
                "conditions": {"ready": ready},
                **({"hostname": hostname} if hostname else {}),
            }
            for address, hostname in endpoints
        ],
        "ports": [{"name": n, "protocol": p, "port": number} for n, p, number in ports],
    }


class Objects:
    """What `Zone` asks for, out of a list."""

    def __init__(self, manifests: Sequence[Object]) -> None:
        manifests = [{**m, "metadata": {**m["metadata"], "resourceVersion": "1"}} for m in manifests]
        self._services = {
            m["metadata"]["name"]: objects.service(m) for m in manifests if m["kind"] == "Service"
        }
        self._slices = [objects.endpoint_slice(m) for m in manifests if m["kind"] == "EndpointSlice"]

    def service(self, namespace: str, name: str) -> Object | None:
        return self._services.get(name) if namespace == "default" else None

    def slices(self, namespace: str, name: str) -> Sequence[Object]:
        return [s for s in self._slices if f"{namespace}/{name}" in objects.by_service(s)]

    def services_at(self, address: str) -> Sequence[Object]:
        return [s for s in self._services.values() if address in objects.by_address(s)]

    def slices_with(self, address: str) -> Sequence[Object]:
        return [s for s in self._slices if address in objects.by_address(s)]

    def has_namespace(self, name: str) -> bool:
        return name == "default"
