"""Tokens kept in Secrets of type kubernetes.io/service-account-token: they never expire, and live as long as the
Secret and its ServiceAccount do.

A controller has them signed (`sign`); their use is noted on the Secret, so that those that nobody needs can be found.

Upstream: `pkg/serviceaccount/legacy.go` and `pkg/controller/serviceaccount/tokens_controller.go`.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass

from sampan.api import resources
from sampan.api.errors import Object
from sampan.apiserver.tokens import InvalidToken, groups, user_name
from sampan.apiserver.tokens.claims import Looked, check_there
from sampan.apiserver.tokens.keys import SignedToken, signing_key
from sampan.apiserver.types import User

ISSUER = "kubernetes/serviceaccount"
SECRET_TYPE = "kubernetes.io/service-account-token"
LAST_USED = "kubernetes.io/legacy-token-last-used"
"""Label: the day, in UTC, on which the token was last used."""
INVALID_SINCE = "kubernetes.io/legacy-token-invalid-since"
"""Label: the token is refused, but can be made good again by taking the label off."""
_CLAIM = "kubernetes.io/serviceaccount/"


@dataclass(frozen=True, slots=True)
class LegacyClaims:
    """What such a token says."""

    namespace: str
    secret: str
    account: str
    uid: str


def sign(key_pem: bytes, account: Object, secret: Object) -> str:
    """The token of ServiceAccount `account` to be kept in `secret`."""
    meta = account["metadata"]
    claims = {
        "iss": ISSUER,
        _CLAIM + "namespace": meta["namespace"],
        _CLAIM + "secret.name": secret["metadata"]["name"],
        _CLAIM + "service-account.name": meta["name"],
        _CLAIM + "service-account.uid": meta["uid"],
        "sub": user_name(meta["namespace"], meta["name"]),
    }
    return signing_key(key_pem).sign(claims)


def read(token: SignedToken) -> LegacyClaims:
    """The claims of a token whose signature is good. Raises InvalidToken."""
    names = ("namespace", "secret.name", "service-account.name", "service-account.uid")
    values = [token.claims.get(_CLAIM + name) for name in names]
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, str) or not value:
            raise InvalidToken(f"{name} claim is missing")
    claims = LegacyClaims(*map(str, values))
    if token.claims.get("sub") != user_name(claims.namespace, claims.account):
        raise InvalidToken("the subject is not the ServiceAccount")
    return claims


def check(looked: Looked, claims: LegacyClaims, token: str, now: float) -> tuple[User, Object]:
    """The user that a token stands for at `now`, and its Secret. Raises InvalidToken."""
    secret = looked.get(resources.SECRETS, claims.namespace, claims.secret)
    if secret is None or secret["metadata"].get("deletionTimestamp"):
        raise InvalidToken("service account token has been invalidated")
    kept = (secret.get("data") or {}).get("token", "")
    if secret.get("type") != SECRET_TYPE or not hmac.compare_digest(_decoded(kept), token.encode()):
        raise InvalidToken("service account token has been invalidated")
    account = looked.get(resources.SERVICEACCOUNTS, claims.namespace, claims.account)
    check_there(account, "ServiceAccount", claims.account, claims.uid, now)
    if since := (secret["metadata"].get("labels") or {}).get(INVALID_SINCE):
        raise InvalidToken(
            f"the token in secret {claims.namespace}/{claims.secret} for service account "
            f"{claims.namespace}/{claims.account} has been marked invalid since {since}. Use tokens from the "
            "TokenRequest API or manually created secret-based tokens, or remove the "
            f"'{INVALID_SINCE}' label from the secret to temporarily allow use of this token"
        )
    return User(user_name(claims.namespace, claims.account), claims.uid, groups(claims.namespace)), secret


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except ValueError:
        return b""
