"""Bootstrap tokens, `ID.SECRET`: their Secrets, and the signatures by which one who has a token knows his cluster.

Specified by https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/; upstream: `k8s.io/cluster-bootstrap`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time

from sampan.api.errors import Object
from sampan.api.objects import parse_time

NAMESPACE = "kube-system"
SECRET_TYPE = "bootstrap.kubernetes.io/token"
SECRET_PREFIX = "bootstrap-token-"
TOKEN = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
DEFAULT_GROUP = "system:bootstrappers:kubeadm:default-node-token"
FRONT_DOORS_GROUP = "system:bootstrappers:sampan:front-doors"
"""A token with this extra group lets a machine ask to be a front door besides."""
FOREVER = float("inf")

CLUSTER_INFO = "cluster-info"
"""The ConfigMap of kube-public that says where the cluster is and whom to trust, signed with every token."""
CLUSTER_INFO_NAMESPACE = "kube-public"
KUBECONFIG = "kubeconfig"
"""Its key that is signed; the signature is under `jws-kubeconfig-ID`."""
SIGNATURE_PREFIX = "jws-kubeconfig-"


def is_token(secret: Object) -> bool:
    return secret.get("type") == SECRET_TYPE and secret["metadata"].get("namespace") == NAMESPACE


def text(secret: Object, name: str) -> str:
    """One value of a Secret, "" where there is none or none that is text."""
    try:
        return base64.b64decode((secret.get("data") or {}).get(name, "")).decode()
    except ValueError:
        return ""


def expiration(secret: Object) -> float:
    """When a token ends, in seconds since the epoch; `FOREVER` where nothing is said; a date that cannot be read is past."""
    said = text(secret, "expiration")
    if not said:
        return FOREVER
    try:
        return parse_time(said)
    except ValueError:
        return 0.0


def may_sign(secret: Object, moment: float | None = None) -> bool:
    """Whether a token signs the cluster's information now."""
    token_id = text(secret, "token-id")
    return (
        is_token(secret)
        and not secret["metadata"].get("deletionTimestamp")
        and secret["metadata"]["name"] == SECRET_PREFIX + token_id
        and TOKEN.fullmatch(f"{token_id}.{text(secret, 'token-secret')}") is not None
        and text(secret, "usage-bootstrap-signing") == "true"
        and expiration(secret) > (time.time() if moment is None else moment)
    )


def sign(content: str, token_id: str, token_secret: str) -> str:
    """A detached JSON Web Signature (RFC 7515, appendix F) of `content` by a token, HS256."""
    header = _base64url(json.dumps({"alg": "HS256", "kid": token_id}, separators=(",", ":")).encode())
    signed = f"{header}.{_base64url(content.encode())}"
    mac = hmac.new(token_secret.encode(), signed.encode(), hashlib.sha256).digest()
    return f"{header}..{_base64url(mac)}"


def signature_fits(signature: str, content: str, token_id: str, token_secret: str) -> bool:
    """Whether a signature of `content` is this token's."""
    header, _, rest = signature.partition(".")
    empty, _, _ = rest.partition(".")
    try:
        said = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except ValueError:
        return False
    if empty or not isinstance(said, dict) or said.get("alg") != "HS256" or said.get("kid") != token_id:
        return False
    mac = hmac.new(
        token_secret.encode(), f"{header}.{_base64url(content.encode())}".encode(), hashlib.sha256
    ).digest()
    return hmac.compare_digest(signature, f"{header}..{_base64url(mac)}")


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
