"""What the front door has in the API: its classes, and the Service that gives it its address.

The IngressClass is the default one, and tells nodes on other machines what the cluster's owner chose. What people write into
these objects besides stays theirs; one that is taken away is made again: without its class, whatever is of it would be nobody's.
"""

from __future__ import annotations

from sampan.api.errors import Object, StatusError
from sampan.api.front_doors import CLASS, EVERY_NODE, Terms, terms_of
from sampan.api.ingress_classes import CONTROLLER
from sampan.api.resources import GATEWAYCLASSES, INGRESSCLASSES, SERVICES
from sampan.client.types import MERGE_PATCH, Client
from sampan.ingress import gateways

NAMESPACE, SERVICE = "kube-system", "sampan-ingress"
"""Where the front door's Service is, and its name, by which objects are told to be ours."""
PORTS = (("http", 80), ("https", 443))
"""Names and numbers of the front door's ports."""


async def ensure(client: Client, terms: Terms) -> None:
    """Have them there, and the class tell these terms. Raises StatusError, ConnectionLost."""
    failed: StatusError | None = None
    for resource, obj in (
        (INGRESSCLASSES, ingress_class(terms)),
        (GATEWAYCLASSES, gateway_class()),
        (SERVICES, front_door_service()),
    ):
        try:
            await client.create(resource, obj)
        except StatusError as e:
            if e.reason != "AlreadyExists":
                failed = failed or e  # a policy against one is none against the others
    if terms_of(await client.get(INGRESSCLASSES, "", CLASS)) != terms:
        told = {"metadata": {"annotations": terms.annotations()}}
        await client.patch(INGRESSCLASSES, "", CLASS, told, content_type=MERGE_PATCH, field_manager=SERVICE)
    if failed is not None:
        raise failed


def ingress_class(terms: Terms = EVERY_NODE) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {
            "name": CLASS,
            "annotations": {"ingressclass.kubernetes.io/is-default-class": "true", **terms.annotations()},
        },
        "spec": {"controller": CONTROLLER},
    }


def gateway_class() -> Object:
    return {
        "apiVersion": GATEWAYCLASSES.api_version,
        "kind": "GatewayClass",
        "metadata": {"name": CLASS},
        "spec": {"controllerName": gateways.CONTROLLER, "description": "HAProxy on the nodes"},
    }


def front_door_service() -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": SERVICE, "namespace": NAMESPACE, "labels": {"app.kubernetes.io/name": SERVICE}},
        "spec": {
            "type": "LoadBalancer",
            "ipFamilyPolicy": "PreferDualStack",
            "externalTrafficPolicy": "Local",
            "ports": [
                {"name": name, "port": port, "protocol": "TCP", "targetPort": port} for name, port in PORTS
            ],
        },
    }
