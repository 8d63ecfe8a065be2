"""Bootstrap tokens as the user handles them: made, listed, deleted (`kubeadm token`)."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import string
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sampan.api import bootstrap_tokens as tokens
from sampan.api.errors import Object, StatusError
from sampan.api.objects import format_time
from sampan.api.resources import SECRETS
from sampan.cluster.errors import ClusterError

if TYPE_CHECKING:
    from sampan.client.types import Client

_ALPHABET = string.ascii_lowercase + string.digits
_USAGES = ("authentication", "signing")


@dataclass(frozen=True, slots=True)
class Token:
    """A token as `list` shows it. `seconds` until its end, None for one without an end."""

    token: str
    seconds: float | None
    expires: str
    usages: tuple[str, ...]
    description: str
    groups: tuple[str, ...]


def parse_ttl(text: str) -> float | None:
    """Seconds of `24h`, `1h30m`, `90s`; None for `0`, a token without an end. Raises ClusterError."""
    from sampan.apiserver.request_timeout import duration

    try:
        seconds = duration(text)
        if seconds < 0:
            raise ValueError
    except ValueError:
        raise ClusterError(
            f"--ttl {text!r} is no duration: allowed are hours, minutes and seconds, such as 24h or 1h30m, and 0 for a"
            " token without an end"
        ) from None
    return seconds or None


async def create(client: Client, ttl: float | None, description: str, *, front_door: bool = False) -> str:
    """A new token of `ttl` seconds; with `front_door` machines may be such by it. Raises StatusError, ConnectionLost."""
    token_id = "".join(secrets.choice(_ALPHABET) for _ in range(6))
    secret = "".join(secrets.choice(_ALPHABET) for _ in range(16))
    data = {
        "token-id": token_id,
        "token-secret": secret,
        **{f"usage-bootstrap-{usage}": "true" for usage in _USAGES},
        "auth-extra-groups": ",".join(
            (tokens.DEFAULT_GROUP, *((tokens.FRONT_DOORS_GROUP,) if front_door else ()))
        ),
    }
    if ttl is not None:
        data["expiration"] = format_time(time.time() + ttl)
    if description:
        data["description"] = description
    await client.create(
        SECRETS,
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": tokens.SECRET_PREFIX + token_id, "namespace": tokens.NAMESPACE},
            "type": tokens.SECRET_TYPE,
            "data": {k: base64.b64encode(v.encode()).decode() for k, v in data.items()},
        },
    )
    return f"{token_id}.{secret}"


async def listed(client: Client) -> list[Token]:
    """All tokens, those that end first in front. Raises StatusError, ConnectionLost."""
    found = await client.list(SECRETS, tokens.NAMESPACE, field_selector=f"type={tokens.SECRET_TYPE}")
    return sorted(map(_shown, found.items), key=lambda t: (t.seconds is None, t.seconds or 0.0, t.token))


def _shown(secret: Object) -> Token:
    ends = tokens.expiration(secret)
    prefix = "usage-bootstrap-"
    used = (k.removeprefix(prefix) for k in secret.get("data") or {} if k.startswith(prefix))
    return Token(
        f"{tokens.text(secret, 'token-id')}.{tokens.text(secret, 'token-secret')}",
        None if ends == tokens.FOREVER else ends - time.time(),
        tokens.text(secret, "expiration"),
        tuple(sorted(u for u in used if tokens.text(secret, prefix + u) == "true")),
        tokens.text(secret, "description"),
        tuple(filter(None, tokens.text(secret, "auth-extra-groups").split(","))),
    )


async def delete(client: Client, token: str) -> str:
    """Delete a token by its id or the whole of it; returns the id. Raises ClusterError if it is none or there is none."""
    token_id = token.partition(".")[0]
    if not re.fullmatch(r"[a-z0-9]{6}", token_id) or ("." in token and not tokens.TOKEN.fullmatch(token)):
        raise ClusterError(f"{token!r} is neither a token nor the id of one (six letters and digits)")
    try:
        await client.delete(SECRETS, tokens.NAMESPACE, tokens.SECRET_PREFIX + token_id)
    except StatusError as e:
        if e.code == 404:
            raise ClusterError(f"there is no token {token_id}") from None
        raise
    return token_id


def ca_hash(certificate: Path | bytes) -> str:
    """`sha256:` and the digest of an authority's public key (SubjectPublicKeyInfo, DER), by which a joining machine knows it:
    kubeadm's --discovery-token-ca-cert-hash."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = certificate.read_bytes() if isinstance(certificate, Path) else certificate
    key = x509.load_pem_x509_certificate(pem).public_key()
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return f"sha256:{digest.hexdigest()}"
