"""What is behind a port of a Service that UDP has, too, as for HTTP/3: it is TCP's that requests go to."""

from __future__ import annotations

from sampan.api.errors import Object
from sampan.ingress import ingresses
from sampan.ingress.endpoints import endpoints
from sampan.ingress.types import Endpoint
from tests.ingress.gateway_objects import cluster, http

PORTS: list[Object] = [
    {"name": "quic", "port": 80, "protocol": "UDP"},
    {"name": "tcp", "port": 80, "protocol": "TCP", "appProtocol": ingresses.H2C},
]
SLICE: Object = {
    "addressType": "IPv4",
    "ports": [
        {"name": "quic", "port": 9443, "protocol": "UDP"},
        {"name": "tcp", "port": 8443, "protocol": "TCP"},
    ],
    "endpoints": [{"addresses": ["10.0.0.1"]}],
}


def test_endpoints() -> None:
    for ports in (PORTS, PORTS[::-1]):
        assert endpoints({"spec": {"ports": ports}}, 80, [SLICE]) == (Endpoint("10.0.0.1", 8443),)
    assert endpoints({"spec": {"ports": PORTS[:1]}}, 80, [SLICE]) == ()
    assert endpoints({"spec": {"ports": PORTS}}, 81, [SLICE]) == ()


def test_a_route_and_an_ingress() -> None:
    there = cluster()
    there.services[0]["spec"]["ports"] = PORTS
    state = there.route(http())
    assert state.resolved.status
    (target,) = state.contribution.routes[0].targets
    assert (target.backend.port.port, target.backend.policy.protocol) == (80, "h2c")
    there.services[0]["spec"]["ports"] = PORTS[:1]
    assert there.route(http()).resolved.reason == "UnsupportedProtocol"

    backend = {"service": {"name": "s", "port": {"number": 80}}}
    ingress: Object = {
        "metadata": {"name": "i", "namespace": "infra"},
        "spec": {"ingressClassName": "sampan", "defaultBackend": backend},
    }
    read = ingresses.contribution(ingress, lambda namespace, name: {"spec": {"ports": PORTS}})
    assert {b.policy.protocol for r in read.routes for b in r.backends} == {"h2c"}
