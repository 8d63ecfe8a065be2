"""What the API must hold before machines can join: where the cluster is, what it is made of, and the rights of newcomers.

These are the objects of kubeadm, by its names (`cmd/kubeadm/app/phases/bootstraptoken`, `.../uploadconfig`), so that its
documentation and tools fit. They are made with the first token: a cluster that nobody may join shows nothing to strangers.
"""

from __future__ import annotations

import base64
import ipaddress
import json
from typing import TYPE_CHECKING

from sampan.api import bootstrap_tokens as tokens
from sampan.api.certificate_requests import FRONT_DOOR_CLIENT, SELF_FRONT_DOOR_CLIENT
from sampan.api.errors import Object, StatusError
from sampan.api.front_doors import FRONT_DOORS
from sampan.api.objects import deep_copy
from sampan.api.resources import (
    CLUSTERROLEBINDINGS,
    CLUSTERROLES,
    CONFIGMAPS,
    ROLEBINDINGS,
    ROLES,
    Resource,
)
from sampan.cluster.errors import ClusterError

if TYPE_CHECKING:
    from sampan.client.types import Client
    from sampan.cluster.config import ClusterConfig

CONFIG_MAP = "kubeadm-config"
CONFIGURATION = "ClusterConfiguration"
_RBAC = "rbac.authorization.k8s.io"
_BOOTSTRAPPERS = ("Group", tokens.DEFAULT_GROUP)
_NODES = ("Group", "system:nodes")
_INFO_READER = "kubeadm:bootstrap-signer-clusterinfo"
_CONFIG_READER = "kubeadm:nodes-kubeadm-config"


async def ensure(client: Client, config: ClusterConfig, server: str, *, front_doors: bool = False) -> None:
    """Make what is missing and bring both ConfigMaps up to date. `server` is the URL for other machines; with `front_doors` some of
    these may be such. Raises StatusError, ConnectionLost."""
    rights = [*_rights(), *(_rights_of_front_doors() if front_doors else ())]
    for resource, wanted in [*rights, *_information(config, server)]:
        try:
            await client.create(resource, wanted)
        except StatusError as e:
            if e.reason != "AlreadyExists":
                raise
            if resource is CONFIGMAPS:
                await _update(client, wanted)


async def _update(client: Client, wanted: Object) -> None:
    """Signatures and whatever else is in the ConfigMap stay; those that no longer fit are made anew by the signer."""
    meta = wanted["metadata"]
    present = await client.get(CONFIGMAPS, meta["namespace"], meta["name"])
    if not wanted["data"].items() <= (present.get("data") or {}).items():
        changed = deep_copy(present)
        changed["data"] = {**(present.get("data") or {}), **wanted["data"]}
        await client.update(CONFIGMAPS, changed)


def _information(config: ClusterConfig, server: str) -> list[tuple[Resource, Object]]:
    authority = base64.b64encode((config.directory / "pki" / "ca.crt").read_bytes()).decode()
    # JSON is YAML too, and needs no library here.
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "", "cluster": {"certificate-authority-data": authority, "server": server}}],
        "contexts": None,
        "current-context": "",
        "users": None,
    }
    configuration = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": CONFIGURATION,
        "clusterName": config.context,
        "controlPlaneEndpoint": server.removeprefix("https://"),
        "networking": {
            "dnsDomain": "cluster.local",
            "podSubnet": ",".join(config.pod_cidrs),
            "serviceSubnet": ",".join(config.service_cidrs),
        },
    }
    return [
        (
            CONFIGMAPS,
            _map(tokens.CLUSTER_INFO, tokens.CLUSTER_INFO_NAMESPACE, {tokens.KUBECONFIG: _json(kubeconfig)}),
        ),
        (CONFIGMAPS, _map(CONFIG_MAP, tokens.NAMESPACE, {CONFIGURATION: _json(configuration)})),
    ]


def _rights() -> list[tuple[Resource, Object]]:
    """Who has a token may ask for a node's certificate and is given it; a node may renew its own; anybody may read where the
    cluster is."""
    csrs = "system:certificates.k8s.io:certificatesigningrequests:"
    public, system = tokens.CLUSTER_INFO_NAMESPACE, tokens.NAMESPACE
    return [
        (
            CLUSTERROLEBINDINGS,
            _binding("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", _BOOTSTRAPPERS),
        ),
        (
            CLUSTERROLEBINDINGS,
            _binding("kubeadm:node-autoapprove-bootstrap", f"{csrs}nodeclient", _BOOTSTRAPPERS),
        ),
        (
            CLUSTERROLEBINDINGS,
            _binding("kubeadm:node-autoapprove-certificate-rotation", f"{csrs}selfnodeclient", _NODES),
        ),
        (CLUSTERROLES, _role("kubeadm:get-nodes", "nodes")),
        (CLUSTERROLEBINDINGS, _binding("kubeadm:get-nodes", "kubeadm:get-nodes", _BOOTSTRAPPERS)),
        (ROLES, _role(_INFO_READER, "configmaps", tokens.CLUSTER_INFO, public)),
        (ROLEBINDINGS, _binding(_INFO_READER, _INFO_READER, ("User", "system:anonymous"), namespace=public)),
        (ROLES, _role(_CONFIG_READER, "configmaps", CONFIG_MAP, system)),
        (
            ROLEBINDINGS,
            _binding(_CONFIG_READER, _CONFIG_READER, _BOOTSTRAPPERS, _NODES, namespace=system),
        ),
    ]


def _rights_of_front_doors() -> list[tuple[Resource, Object]]:
    """Who has a token that allows it may be a front door from the start; a node that is one may stay it when its certificate is
    renewed. What a front door may read beyond other nodes is said by the node authorizer."""
    newcomer, own = f"{FRONT_DOORS}:client", f"{FRONT_DOORS}:selfclient"
    return [
        (CLUSTERROLES, _approved(newcomer, FRONT_DOOR_CLIENT)),
        (CLUSTERROLES, _approved(own, SELF_FRONT_DOOR_CLIENT)),
        (
            CLUSTERROLEBINDINGS,
            _binding(f"{FRONT_DOORS}:autoapprove-bootstrap", newcomer, ("Group", tokens.FRONT_DOORS_GROUP)),
        ),
        (
            CLUSTERROLEBINDINGS,
            _binding(f"{FRONT_DOORS}:autoapprove-certificate-rotation", own, ("Group", FRONT_DOORS)),
        ),
    ]


def _approved(name: str, subresource: str) -> Object:
    """The right to have requests approved for which this subresource stands."""
    rule: Object = {
        "apiGroups": ["certificates.k8s.io"],
        "resources": [f"certificatesigningrequests/{subresource}"],
        "verbs": ["create"],
    }
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": [rule],
    }


def _json(value: Object) -> str:
    return json.dumps(value, indent=1) + "\n"


def _map(name: str, namespace: str, data: dict[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": data,
    }


def _role(name: str, plural: str, object_name: str = "", namespace: str = "") -> Object:
    """The right to get one kind of object, or one object."""
    rule: Object = {"apiGroups": [""], "resources": [plural], "verbs": ["get"]}
    if object_name:
        rule["resourceNames"] = [object_name]
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "Role" if namespace else "ClusterRole",
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "rules": [rule],
    }


def _binding(name: str, role: str, *subjects: tuple[str, str], namespace: str = "") -> Object:
    kind = "Role" if namespace else "ClusterRole"
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": f"{kind}Binding",
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "roleRef": {"apiGroup": _RBAC, "kind": kind, "name": role},
        "subjects": [{"apiGroup": _RBAC, "kind": k, "name": n} for k, n in subjects],
    }


def server_for_machines(config: ClusterConfig) -> tuple[str, str]:
    """The URL by which other machines reach the API, and a warning ("" for none). Raises ClusterError where it listens
    everywhere and nobody said under which address that is known."""
    host, warning = config.listen, ""
    if config.listen in ("0.0.0.0", "::"):
        if not config.tls_sans:
            raise ClusterError(
                f"cluster {config.name} listens on every address ({config.listen}), and its certificate names none that"
                " other machines could use: start it once more with --tls-san ADDRESS"
            )
        host = config.tls_sans[0]
    elif ipaddress.ip_address(config.listen).is_loopback:
        host = config.bridge_address
        flag = "" if config.name == "default" else f" --name {config.name}"
        warning = (
            f"the API of cluster {config.name} listens on loopback and the bridge ({host}) only: a machine that does not"
            f" reach {host} cannot join. For others: sampan stop{flag} && sampan up{flag} --listen ADDRESS"
        )
    return f"https://{f'[{host}]' if ':' in host else host}:{config.api_port}", warning


def way_to_local_pods(config: ClusterConfig, forwards: bool) -> str:
    """What pods of this machine's nodes, which are behind its bridge, and pods of machines that join need to reach each other;
    `forwards` is whether this machine passes packets on. "" where only what reaches the bridge can join."""
    if ipaddress.ip_address(config.listen).is_loopback:
        return ""
    needs = [] if forwards else ["net.ipv4.ip_forward = 1 here (it is 0)"]
    needs.append(f"a route to {config.node_subnet} by way of this machine there")
    return (
        f"pods of this machine's nodes and pods of others reach each other only with {' and '.join(needs)}:"
        " see docs/nodes.md, Nodes beyond a router"
    )
