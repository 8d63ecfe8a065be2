"""Defaults of networking.k8s.io. An Ingress has none."""

from __future__ import annotations

from sampan.api.errors import Object


def ingress_class(obj: Object) -> None:
    parameters = (obj.get("spec") or {}).get("parameters")
    if parameters is not None and not parameters.get("scope"):
        parameters["scope"] = "Cluster"
