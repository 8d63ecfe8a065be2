"""Joining: how a machine that has a token becomes a node, step by step (`kubeadm join`).

1. Read `cluster-info`, without knowing yet who answers; the token's signature and the hash of the authority's key tell whether it
   is the right cluster. Ask again, believing that authority alone.
2. See that the name is free, and what the cluster is made of.
3. Have a key of our own certified as a node's. From then on the token is not needed.
"""

from __future__ import annotations

import asyncio
import base64
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sampan.api import bootstrap_tokens as tokens
from sampan.api.errors import Object, StatusError
from sampan.api.objects import condition_true
from sampan.api.resources import CONFIGMAPS, NODES
from sampan.cluster import join_objects, join_tokens
from sampan.cluster.errors import ClusterError
from sampan.cluster.joined import DIRECTORY, JoinedNode

if TYPE_CHECKING:
    from sampan.client.access import Access
    from sampan.client.https import HttpsClient

SIGNATURE_SECONDS = 2.0
"""For which a signature that is not there is waited for: the token may be new."""
_ASK_AGAIN = 0.25
_CERTIFICATE_SECONDS = 60.0
_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_MAKE = "make one where the cluster runs: sampan token create"
MAKE_FOR_FRONT_DOOR = "make one that does where the cluster runs: sampan token create --ingress"


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinWishes:
    """What the user asked for. `name` "" is the machine's own name."""

    server: str
    token: str
    ca_hash: str
    name: str
    addresses: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    taints: tuple[dict[str, str], ...] = ()
    ingress: bool = False
    """To be a front door."""


def problems(wishes: JoinWishes) -> list[str]:
    """What is wrong with the wishes, all of it."""
    found = []
    url = urlsplit(wishes.server)
    try:
        right = url.scheme == "https" and bool(url.hostname) and url.path in ("", "/") and url.port != 0
    except ValueError:
        right = False
    if not right:
        found.append(f"--join {wishes.server!r}: expected https://HOST:PORT")
    if not tokens.TOKEN.fullmatch(wishes.token):
        found.append(
            f"--token: {'missing' if not wishes.token else 'not of the form abcdef.0123456789abcdef'}; {_MAKE}"
        )
    if not _HASH.fullmatch(wishes.ca_hash):
        what = (
            "missing"
            if not wishes.ca_hash
            else f"{wishes.ca_hash!r} is not sha256: and 64 digits of hexadecimal"
        )
        found.append(f"--ca-hash: {what}; `sampan token create` prints it")
    return found


async def join(wishes: JoinWishes, *, known: bool = False) -> JoinedNode:
    """All steps; what the machine is now, written to its directory. `known` is whether it is the node of this name already, and wants
    other rights. Raises ClusterError, with nothing written, for whatever keeps it from joining."""
    from sampan.client.access import Access
    from sampan.client.https import HttpsClient
    from sampan.client.types import ConnectionLost
    from sampan.node.certificate import Refused, Wanted, may_ask_for_front_door, obtain

    server = wishes.server.rstrip("/")
    authority = await discover(server, wishes.token, wishes.ca_hash)
    client = HttpsClient(Access(server, ca=authority, token=wishes.token), user_agent="sampan-node")
    try:
        if not known:
            await _check_name(client, wishes.name)
        if wishes.ingress and not await may_ask_for_front_door(client):
            raise ClusterError(
                f"--ingress: this token does not allow a front door; {MAKE_FOR_FRONT_DOOR}, or go without: --no-ingress"
            )
        networking = await _networking(client)
        node = JoinedNode(
            name=wishes.name,
            server=server,
            addresses=wishes.addresses,
            labels=wishes.labels,
            taints=wishes.taints,
            ingress=wishes.ingress,
            cluster_pod_cidrs=_list(networking.get("podSubnet")),
            service_cidrs=_list(networking.get("serviceSubnet")),
        )
        DIRECTORY.mkdir(mode=0o700, parents=True, exist_ok=True)
        await obtain(
            client, Wanted(node.name, front_door=node.ingress), node.client_certificate, _CERTIFICATE_SECONDS
        )
        node.ca.write_bytes(authority)
        node.save()
    except StatusError as e:
        if e.code == 401:
            raise ClusterError(f"--token: the cluster does not take it any more; {_MAKE}") from None
        raise ClusterError(f"cannot join {server}: {e.message}") from e
    except (ConnectionLost, Refused) as e:
        raise ClusterError(f"cannot join {server}: {e}") from e
    finally:
        await client.close()
    return node


async def discover(server: str, token: str, ca_hash: str) -> bytes:
    """The certificate of the cluster's authority, PEM, once it is certain to be the one meant. Raises ClusterError."""
    from sampan.client.access import Access

    token_id, _, secret = token.partition(".")
    content, signature = await _signed_information(server, token_id)
    if not signature:
        raise ClusterError(
            f"--token: the cluster at {server} knows no token {token_id}: it has expired or was deleted; {_MAKE}"
        )
    if not tokens.signature_fits(signature, content, token_id, secret):
        raise ClusterError(
            f"--token: what {server} shows was not signed with this token: its part after the dot is wrong, or this is"
            " not the cluster that it was made on"
        )
    authority = pinned(_authorities(content, server), ca_hash, server)
    # What was read so far could have been put in our way by somebody between; now the connection itself is proved.
    again = await _information(Access(server, ca=authority))
    if again.get(tokens.KUBECONFIG) != content:
        raise ClusterError(f"{server} says two different things about its cluster: something is between")
    return authority


async def _signed_information(server: str, token_id: str) -> tuple[str, str]:
    """The kubeconfig of the cluster and its signature by a token ("" for none), as whoever is at `server` says."""
    from sampan.client.access import Access

    loop = asyncio.get_running_loop()
    until = loop.time() + SIGNATURE_SECONDS
    while True:
        data = await _information(Access(server, insecure_skip_tls_verify=True))
        signature = data.get(tokens.SIGNATURE_PREFIX + token_id, "")
        if signature or loop.time() >= until:
            return data.get(tokens.KUBECONFIG, ""), signature
        await asyncio.sleep(_ASK_AGAIN)


async def _information(access: Access) -> dict[str, str]:
    """The content of `cluster-info`, asked for by nobody in particular. Raises ClusterError."""
    from sampan.client.https import HttpsClient
    from sampan.client.types import ConnectionLost

    client = HttpsClient(access, user_agent="sampan-node")
    try:
        found = await client.get(CONFIGMAPS, tokens.CLUSTER_INFO_NAMESPACE, tokens.CLUSTER_INFO)
        return dict(found.get("data") or {})
    except ConnectionLost as e:
        if "CERTIFICATE_VERIFY_FAILED" in str(e):
            host = urlsplit(access.server).hostname
            raise ClusterError(
                f"--join {access.server}: the certificate shown there is not the cluster's, or does not name {host} (then:"
                f" sampan up --tls-san {host}): {e}"
            ) from None
        raise ClusterError(f"--join {access.server}: cannot be reached: {e}") from None
    except StatusError as e:
        if e.code in (401, 403, 404):
            raise ClusterError(
                f"--join {access.server}: nobody may join this cluster yet ({e.message}); run `sampan token create` on it"
            ) from None
        raise ClusterError(f"--join {access.server}: {e.message}") from e
    finally:
        await client.close()


def pinned(authorities: bytes, ca_hash: str, server: str) -> bytes:
    """Of the certificates of authorities, PEM, the one that the hash is of: others that come with it are believed in nothing,
    whoever signed them with a token. Raises ClusterError."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        shown = [c.public_bytes(Encoding.PEM) for c in x509.load_pem_x509_certificates(authorities)]
    except ValueError as e:
        raise ClusterError(f"{server}: cluster-info names no authority: {e}") from None
    by_hash = {join_tokens.ca_hash(one): one for one in shown}
    if ca_hash not in by_hash:
        raise ClusterError(
            f"--ca-hash: the authority of the cluster at {server} has {', '.join(by_hash)}, not {ca_hash}: this is not the"
            " cluster that the command was made for"
        )
    return by_hash[ca_hash]


def _authorities(content: str, server: str) -> bytes:
    import yaml

    try:
        cluster = yaml.safe_load(content)["clusters"][0]["cluster"]
        return base64.b64decode(cluster["certificate-authority-data"], validate=True)
    except (yaml.YAMLError, ValueError, TypeError, LookupError) as e:
        raise ClusterError(f"{server}: cluster-info names no authority: {e}") from None


async def _check_name(client: HttpsClient, name: str) -> None:
    """As kubeadm: a node that is there and does not live may be taken over."""
    try:
        present = await client.get(NODES, "", name)
    except StatusError as e:
        if e.code == 404:
            return
        raise
    if condition_true(present, "Ready"):
        raise ClusterError(
            f'a Node with name "{name}" and status "Ready" already exists in the cluster: give another --name, or remove'
            " that node first"
        )


async def _networking(client: HttpsClient) -> Object:
    import yaml

    found = await client.get(CONFIGMAPS, tokens.NAMESPACE, join_objects.CONFIG_MAP)
    try:
        return dict(yaml.safe_load(found["data"][join_objects.CONFIGURATION])["networking"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as e:
        raise ClusterError(
            f"ConfigMap {join_objects.CONFIG_MAP} of the cluster cannot be read: {e}"
        ) from None


def _list(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())
