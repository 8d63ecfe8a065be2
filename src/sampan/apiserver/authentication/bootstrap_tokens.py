"""Bootstrap tokens: `ID.SECRET`, kept in a Secret of kube-system, with which a new node comes to its certificate.

Upstream: `plugin/pkg/auth/authenticator/token/bootstrap` and `k8s.io/cluster-bootstrap`.
"""

from __future__ import annotations

import hmac
import re

from sampan.api import resources
from sampan.api.bootstrap_tokens import NAMESPACE, SECRET_PREFIX, SECRET_TYPE, TOKEN, expiration, text
from sampan.apiserver.authentication.verdicts import Verdict
from sampan.apiserver.tokens import InvalidToken
from sampan.apiserver.tokens.claims import Looked
from sampan.apiserver.types import ReadCache, User

_USER_PREFIX = "system:bootstrap:"
_GROUP = "system:bootstrappers"
_EXTRA_GROUP = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")


class BootstrapTokens:
    def __init__(self, cache: ReadCache) -> None:
        self._cache = cache

    def authenticate(self, token: str, key: bytes, now: float) -> Verdict | None:
        parts = TOKEN.fullmatch(token)
        if parts is None:
            return None
        token_id, token_secret = parts.groups()
        looked = Looked(self._cache)
        secret = looked.get(resources.SECRETS, NAMESPACE, SECRET_PREFIX + token_id)
        if secret is None or secret["metadata"].get("deletionTimestamp") or secret.get("type") != SECRET_TYPE:
            raise InvalidToken("no such bootstrap token")
        if not hmac.compare_digest(text(secret, "token-secret").encode(), token_secret.encode()):
            raise InvalidToken("no such bootstrap token")
        if text(secret, "token-id") != token_id or text(secret, "usage-bootstrap-authentication") != "true":
            raise InvalidToken("the bootstrap token is not for authentication")
        until = expiration(secret)
        if until <= now:
            raise InvalidToken("the bootstrap token has expired")
        groups = sorted({g.strip() for g in text(secret, "auth-extra-groups").split(",") if g.strip()})
        for group in groups:
            if not _EXTRA_GROUP.fullmatch(group):
                raise InvalidToken(f"the bootstrap token's group {group!r} is not of the form {_EXTRA_GROUP.pattern}")  # fmt: skip
        return Verdict(User(_USER_PREFIX + token_id, "", (_GROUP, *groups)), until, None, looked)
