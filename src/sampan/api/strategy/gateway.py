"""The kinds of the Gateway API. The first status of a class and of a Gateway stands in their definitions."""

from __future__ import annotations

from sampan.api.defaults import gateway
from sampan.api.strategy.types import Strategy, spec_changed

_PLURALS = {"gatewayclasses": "GatewayClass", "gateways": "Gateway", "httproutes": "HTTPRoute", "grpcroutes": "GRPCRoute"}  # fmt: skip

STRATEGIES: dict[str, Strategy] = {
    **{
        f"{plural}.{gateway.GROUP}": Strategy(generation=spec_changed, create=gateway.apply(kind))
        for plural, kind in _PLURALS.items()
    },
    f"referencegrants.{gateway.GROUP}": Strategy(generation=spec_changed),
}
