"""Gateway API objects for tests, and what they come to."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

from sampan.api import defaults
from sampan.api.errors import Object
from sampan.api.objects import deep_copy
from sampan.api.resources import by_kind
from sampan.ingress import gateway_references, gateway_routes, gateway_status, gateways
from sampan.ingress.gateway_routes import RouteState, World
from sampan.ingress.gateways import GatewayState

from .test_certificates import make, secret

NOW, BEFORE = "2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"
_numbers = itertools.count()


@dataclass
class Cluster:
    """Objects of a cluster, and what they come to."""

    gateways: list[Object] = field(default_factory=list)
    services: list[Object] = field(default_factory=list)
    secrets: list[Object] = field(default_factory=list)
    grants: list[Object] = field(default_factory=list)
    labels: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def granted(self, kind: str, namespace: str, to_kind: str, to_namespace: str, to_name: str) -> bool:
        grants = [g for g in self.grants if g["metadata"]["namespace"] == to_namespace]
        return gateway_references.granted(grants, kind, namespace, to_kind, to_name)

    def gateway(self, namespace: str = "infra", name: str = "g") -> GatewayState | None:
        found = _find(self.gateways, namespace, name)
        if found is None:
            return None
        return gateways.read(found, lambda ns, n: _find(self.secrets, ns, n), self.granted)

    def route(self, route: Object) -> RouteState:
        world = World(
            self.gateway,
            lambda ns, n: _find(self.services, ns, n),
            self.granted,
            lambda ns: self.labels.get(ns),
        )
        return gateway_routes.read(route, world)

    def state(self) -> GatewayState:
        found = self.gateway()
        assert found is not None
        return found

    def status(
        self, attached: Mapping[str, int] | None = None, addresses: tuple[str, ...] = ("192.0.2.1",)
    ) -> Object:
        return gateway_status.gateway_status(
            self.gateways[0], self.state(), attached or {}, addresses, True, NOW
        )


def _find(objects: list[Object], namespace: str, name: str) -> Object | None:
    return next(
        (o for o in objects if (o["metadata"]["namespace"], o["metadata"]["name"]) == (namespace, name)), None
    )


def made(kind: str, namespace: str, name: str, spec: Object, version: str = "v1") -> Object:
    obj: Object = {
        "apiVersion": f"gateway.networking.k8s.io/{version}",
        "kind": kind,
        "metadata": {
            "namespace": namespace, "name": name, "uid": f"u{next(_numbers)}", "generation": 3, "creationTimestamp": BEFORE,
        },
        "spec": deep_copy(spec),
    }  # fmt: skip
    resource = by_kind(obj["apiVersion"], kind)
    assert resource is not None
    defaults.apply(resource, obj)
    return obj


def gateway(*listeners: Object, **spec: object) -> Object:
    return made(
        "Gateway", "infra", "g", {"gatewayClassName": "sampan", "listeners": listeners or [web()], **spec}
    )


def web(name: str = "web", port: int = 80, **more: object) -> Object:
    return {"name": name, "port": port, "protocol": "HTTP", **more}


def tls(name: str = "tls", **more: object) -> Object:
    return {
        "name": name,
        "port": 443,
        "protocol": "HTTPS",
        "tls": {"certificateRefs": [{"name": "pair"}]},
        **more,
    }


def http(*rules: Object, namespace: str = "infra", **spec: object) -> Object:
    ref = {"name": "g", "namespace": "infra"}
    return made("HTTPRoute", namespace, "r", {"parentRefs": [ref], "rules": rules or [rule()], **spec})


def rule(*backends: Object, **more: object) -> Object:
    return {"backendRefs": backends or [{"name": "s", "port": 80}], **more}


def service(name: str = "s", namespace: str = "infra", **port: object) -> Object:
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": [{"port": 80, "protocol": "TCP", **port}]},
    }


def grant(kind: str, namespace: str, to_kind: str, to_name: str = "", in_: str = "other") -> Object:
    to: Object = {"group": "", "kind": to_kind, **({"name": to_name} if to_name else {})}
    of = {"group": "gateway.networking.k8s.io", "kind": kind, "namespace": namespace}
    return made("ReferenceGrant", in_, "grant", {"from": [of], "to": [to]})


def cluster(*listeners: Object, **more: object) -> Cluster:
    return Cluster([gateway(*listeners, **more)], [service(), service("t")])


def tls_secret(namespace: str, name: str, *hosts: str) -> Object:
    return {**secret(*make(*hosts)), "metadata": {"namespace": namespace, "name": name}}


def accepted(state: RouteState) -> list[str]:
    return [f"{p.accepted.status} {p.accepted.reason}" for p in state.parents]


def said(conditions: list[Object]) -> dict[str, str]:
    assert all(c["observedGeneration"] == 3 for c in conditions)
    return {c["type"]: f"{c['status']} {c['reason']}" for c in conditions}
