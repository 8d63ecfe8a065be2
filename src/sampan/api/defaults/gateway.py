"""Defaults of gateway.networking.k8s.io: they stand in the definitions."""

from __future__ import annotations

from collections.abc import Callable

from sampan.api import structural
from sampan.api.errors import Object

GROUP = "gateway.networking.k8s.io"
KINDS = ("GatewayClass", "Gateway", "HTTPRoute", "GRPCRoute", "ReferenceGrant")


def apply(kind: str) -> Callable[[Object], None]:
    """What fills in the defaults of a kind."""
    return lambda obj: structural.apply_defaults("gateway", f"io.k8s.networking.gateway.v1.{kind}", obj)
