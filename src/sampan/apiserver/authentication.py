"""Who is asking: client certificate, else bearer token, else nobody.

Upstream: `pkg/kubeapiserver/authenticator` and the request authenticators below `k8s.io/apiserver`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from sampan.api import errors
from sampan.apiserver import tokens
from sampan.apiserver.config import Config
from sampan.apiserver.tokens import Claims, InvalidToken
from sampan.apiserver.types import ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, ReadCache, User
from sampan.transport.types import PeerCertificate, Request

NOBODY = User(ANONYMOUS, "", (UNAUTHENTICATED,))
_SOCKET_PREFIX = "base64url.bearer.authorization.k8s.io."
"""A WebSocket client in a browser cannot set Authorization; it offers its token as a subprotocol."""
_REMEMBERED = 4096


def build(config: Config, cache: ReadCache) -> RequestAuthenticator:
    return RequestAuthenticator(config, cache)


class RequestAuthenticator:
    """The one `Authenticator` of a server.

    Verified signatures are remembered by the token's hash, since they can never become untrue; what can (time, the
    objects a token is bound to) is looked at anew each time.
    """

    def __init__(self, config: Config, cache: ReadCache, clock: Callable[[], float] = time.time) -> None:
        self._config = config
        self._cache = cache
        self._clock = clock
        self._verified: OrderedDict[bytes, Claims] = OrderedDict()
        self._static = {_digest(t): _authenticated(u) for t, u in config.static_tokens.items()}
        self._certified: dict[tuple[str, tuple[str, ...]], User] = {}

    def authenticate(self, request: Request) -> User:
        """Who sent a request. Raises StatusError 401 for a bad credential."""
        if request.certificate is not None:
            return self._by_certificate(request.certificate)
        token = bearer_token(request)
        if not token:
            return NOBODY
        try:
            return self.authenticate_token(token)[0]
        except InvalidToken as e:
            raise errors.unauthorized() from e

    def authenticate_token(self, token: str, audiences: Sequence[str] = ()) -> tuple[User, tuple[str, ...]]:
        """Whom a bearer token stands for, and which of `audiences` (default: this API server) it is meant for.
        Raises InvalidToken."""
        wanted = tuple(audiences) or (self._config.issuer,)
        digest = _digest(token)
        for known, user in self._static.items():
            if hmac.compare_digest(known, digest):
                # A static token is meant for this server and no other.
                if self._config.issuer not in wanted:
                    raise InvalidToken("token audiences are not for this server")
                return user, (self._config.issuer,)
        claims = self._verified.get(digest)
        if claims is None:
            claims = tokens.parse(self._config, token)
            self._verified[digest] = claims
            if len(self._verified) > _REMEMBERED:
                self._verified.popitem(last=False)
        user = tokens.check(self._cache, claims, wanted, self._clock())
        return _authenticated(user), tuple(a for a in wanted if a in claims.audiences)

    def _by_certificate(self, certificate: PeerCertificate) -> User:
        # A connection outlives the certificate that opened it, hence the look at the clock.
        if not certificate.common_name or certificate.not_after < self._clock():
            raise errors.unauthorized()
        key = (certificate.common_name, certificate.organizations)
        user = self._certified.get(key)
        if user is None:
            if len(self._certified) >= _REMEMBERED:
                self._certified.clear()
            user = _authenticated(User(certificate.common_name, "", certificate.organizations))
            self._certified[key] = user
        return user


def bearer_token(request: Request) -> str:
    """The bearer token that a request carries, or ""."""
    scheme, _, token = request.headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    for protocol in request.headers.get("sec-websocket-protocol", "").split(","):
        encoded = protocol.strip()
        if encoded.startswith(_SOCKET_PREFIX):
            text = encoded.removeprefix(_SOCKET_PREFIX)
            try:
                return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
            except ValueError as e:
                raise errors.unauthorized() from e
    return ""


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _authenticated(user: User) -> User:
    """`user` as a member of `system:authenticated`, which every known user is and no credential may leave out."""
    if AUTHENTICATED in user.groups or user.name == ANONYMOUS:
        return user
    return User(user.name, user.uid, (*user.groups, AUTHENTICATED), user.extra)
