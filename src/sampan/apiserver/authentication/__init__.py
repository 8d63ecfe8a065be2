"""Who is asking: client certificate, else bearer token, else nobody.

Upstream: `pkg/kubeapiserver/authenticator` and the request authenticators below `k8s.io/apiserver`.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Sequence

from sampan.api import errors
from sampan.apiserver.authentication.bootstrap_tokens import BootstrapTokens
from sampan.apiserver.authentication.certificates import Certificates
from sampan.apiserver.authentication.configuration import AuthenticationConfiguration, load
from sampan.apiserver.authentication.legacy_use import LegacyTokenUse
from sampan.apiserver.authentication.oidc import OpenIDTokens
from sampan.apiserver.authentication.service_accounts import ServiceAccountTokens
from sampan.apiserver.authentication.static_tokens import StaticTokens, read_token_file
from sampan.apiserver.authentication.verdicts import (
    KeysWanted,
    TokenAuthenticator,
    Verdict,
    Verdicts,
    digest,
)
from sampan.apiserver.config import Config
from sampan.apiserver.tokens import InvalidToken
from sampan.apiserver.types import ANONYMOUS, UNAUTHENTICATED, ReadCache, User
from sampan.transport.types import Request

__all__ = ["InvalidToken", "KeysWanted", "RequestAuthenticator", "bearer_token", "build"]

NOBODY = User(ANONYMOUS, "", (UNAUTHENTICATED,))
_SOCKET_PREFIX = "base64url.bearer.authorization.k8s.io."
"""A WebSocket client in a browser cannot set Authorization; it offers its token as a subprotocol."""


def build(config: Config, cache: ReadCache) -> RequestAuthenticator:
    """The authenticator of a server. Raises OSError and ConfigurationError for files that cannot be used."""
    return RequestAuthenticator(config, cache)


class RequestAuthenticator:
    """The one `Authenticator` of a server.

    What a token proved to be is remembered, and looked at anew when its time is over or an object it rests on has
    changed (`verdicts`).
    """

    def __init__(self, config: Config, cache: ReadCache, clock: Callable[[], float] = time.time) -> None:
        self.legacy_use = LegacyTokenUse()
        """What is to be noted on Secrets; somebody must `run` it."""
        self._clock = clock
        self._audiences = (config.issuer,)
        self._certificates = Certificates()
        self._verdicts = Verdicts()
        static = dict(config.static_tokens)
        if config.token_auth_file is not None:
            static |= read_token_file(config.token_auth_file)
        self._inside: tuple[TokenAuthenticator, ...] = (
            StaticTokens(static),
            ServiceAccountTokens(config, cache, self.legacy_use),
            BootstrapTokens(cache),
        )
        self._outside = OpenIDTokens((), self._verdicts)
        self._authenticators: tuple[TokenAuthenticator, ...] = self._inside
        file = config.authentication_config
        self.configure(load(file) if file is not None else AuthenticationConfiguration())

    def configure(self, settings: AuthenticationConfiguration) -> None:
        """Believe these outside issuers, and no others, from now on."""
        self.close()
        self._anonymous = settings.anonymous
        self._outside = OpenIDTokens(settings.issuers, self._verdicts)
        self._authenticators = (*self._inside, self._outside) if settings.issuers else self._inside
        self._verdicts.clear()

    def close(self) -> None:
        """Stop asking outside issuers for their keys."""
        self._outside.close()

    def authenticate(self, request: Request) -> User:
        """Who sent a request. Raises StatusError 401 for a bad credential, KeysWanted where only `authenticate_later`
        can tell."""
        if request.certificate is not None:
            user = self._certificates.user(request.certificate, self._clock())
            if user is not None:
                return user
        token = bearer_token(request)
        if token:
            try:
                verdict = self._verdict(token)
            except InvalidToken as e:
                raise errors.unauthorized() from e
            if not verdict.meant_for(self._audiences):
                raise errors.unauthorized()
            return verdict.user
        if request.certificate is not None or not self._anonymous.allows(request):
            raise errors.unauthorized()
        return NOBODY

    async def authenticate_later(self, request: Request, wanted: KeysWanted) -> User:
        """The same, once the keys are there. Raises StatusError 401."""
        try:
            await wanted.fetch()
            return self.authenticate(request)
        except (InvalidToken, KeysWanted) as e:
            raise errors.unauthorized() from e

    def authenticate_token(self, token: str, audiences: Sequence[str] = ()) -> tuple[User, tuple[str, ...]]:
        """Whom a bearer token stands for, and which of `audiences` (default: this API server) it is meant for.
        Raises InvalidToken, KeysWanted."""
        verdict = self._verdict(token)
        wanted = tuple(audiences) or self._audiences
        meant = verdict.meant_for(wanted, self._audiences)
        if not meant:
            ours = " ".join(map(json.dumps, verdict.audiences or self._audiences))
            asked = " ".join(map(json.dumps, wanted))
            raise InvalidToken(f"token audiences [{ours}] is invalid for the target audiences [{asked}]")
        return verdict.user, meant

    def _verdict(self, token: str) -> Verdict:
        key = digest(token)
        now = self._clock()
        verdict = self._verdicts.get(key, now)
        if verdict is None:
            for authenticator in self._authenticators:
                verdict = authenticator.authenticate(token, key, now)
                if verdict is not None:
                    break
            else:
                raise InvalidToken
            self._verdicts.put(key, verdict)
        return verdict


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
