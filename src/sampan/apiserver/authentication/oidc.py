"""Tokens of outside issuers that speak OpenID Connect: their keys are fetched, and fetched anew for an unknown key.

Upstream: `k8s.io/apiserver/plugin/pkg/authenticator/token/oidc`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Sequence
from typing import Any

from sampan.api.errors import Object
from sampan.apiserver.authentication.configuration import Claim, Issuer
from sampan.apiserver.authentication.verdicts import KeysWanted, Verdict, Verdicts
from sampan.apiserver.tokens import EXTRA, InvalidToken
from sampan.apiserver.tokens.keys import ALGORITHMS, SignedToken, VerifyingKey
from sampan.apiserver.types import User

log = logging.getLogger(__name__)
_NOT_BEFORE_LEEWAY = 300.0
_TIMEOUT = 30.0
_MOST_BYTES = 1 << 20
_PAUSE = 1.0
"""Seconds between two fetches of one issuer's keys: tokens with made-up key ids must not become load on it."""


class OpenIDTokens:
    """Every outside issuer, by its URL."""

    def __init__(self, issuers: Sequence[Issuer], verdicts: Verdicts) -> None:
        self._issuers = {issuer.url: _KeySet(issuer, verdicts) for issuer in issuers}

    def authenticate(self, token: str, key: bytes, now: float) -> Verdict | None:
        if token.count(".") != 2:
            return None
        signed = SignedToken.parse(token)
        issuer = signed.claims.get("iss")
        keys = self._issuers.get(issuer) if isinstance(issuer, str) else None
        return None if keys is None else keys.judge(signed, now)

    def close(self) -> None:
        """End what is being fetched."""
        for keys in self._issuers.values():
            keys.close()


class _KeySet:
    """An issuer and its keys."""

    def __init__(self, issuer: Issuer, verdicts: Verdicts) -> None:
        self._issuer = issuer
        self._verdicts = verdicts
        self._keys: list[VerifyingKey] | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._fetched = float("-inf")

    def judge(self, token: SignedToken, now: float) -> Verdict:
        claims = token.claims
        algorithm = token.header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            raise InvalidToken(f"oidc: id token signed with unsupported algorithm {algorithm!r}")
        audiences = claims.get("aud")
        meant = (
            [audiences] if isinstance(audiences, str) else audiences if isinstance(audiences, list) else []
        )
        if not any(a in self._issuer.audiences for a in meant):
            raise InvalidToken(f"oidc: expected audience in {list(self._issuer.audiences)} got {meant}")
        expires, begins = _seconds(claims.get("exp")), _seconds(claims.get("nbf", 0))
        if now >= expires:
            raise InvalidToken("oidc: token is expired")
        if now + _NOT_BEFORE_LEEWAY < begins:
            raise InvalidToken("oidc: current time is before the nbf (not before) time")
        self._verify(token)
        return Verdict(self._user(claims), expires, None, None, self)

    def _verify(self, token: SignedToken) -> None:
        key_id = token.header.get("kid")
        candidates = [k for k in self._keys or () if key_id is None or k.id == key_id]
        failure = InvalidToken("oidc: failed to verify signature")
        for key in candidates:
            try:
                key.verify(token)
                return
            except InvalidToken as e:
                failure = e
        if self._keys is None or not candidates:
            raise KeysWanted(self._fetch_once)
        raise failure

    # -- claims

    def _user(self, claims: Object) -> User:
        issuer = self._issuer
        for rule in issuer.required:
            if rule.name not in claims:
                raise InvalidToken(f"oidc: required claim {rule.name} not present in ID token")
            if claims[rule.name] != rule.value:
                raise InvalidToken(
                    f"oidc: required claim {rule.name} value does not match. Got = {claims[rule.name]}, want = {rule.value}"
                )
        name = self._text(claims, issuer.username, "username")
        # An address that anybody can claim is no identity.
        if issuer.username.name == "email" and claims.get("email_verified", True) is not True:
            raise InvalidToken("oidc: email not verified")
        groups: list[str] = []
        if issuer.groups is not None:
            found = claims.get(issuer.groups.name)
            texts = [found] if isinstance(found, str) else [] if found is None else found
            if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
                raise InvalidToken(
                    f"oidc: parse groups claim {json.dumps(issuer.groups.name)}: not a list of strings"
                )
            groups = [issuer.groups.prefix + t for t in texts if t]
        uid = self._text(claims, issuer.uid, "uid") if issuer.uid is not None else ""
        extra = {EXTRA + "credential-id": (f"JTI={claims['jti']}",)} if isinstance(claims.get("jti"), str) and claims["jti"] else {}  # fmt: skip
        return User(name, uid, tuple(groups), extra)

    @staticmethod
    def _text(claims: Object, claim: Claim, what: str) -> str:
        value = claims.get(claim.name)
        if value is None:
            raise InvalidToken(f"oidc: parse {what} claims {json.dumps(claim.name)}: claim not present")
        if not isinstance(value, str) or not value:
            raise InvalidToken(f"oidc: parse {what} claims {json.dumps(claim.name)}: not a string")
        return claim.prefix + value

    # -- keys

    async def _fetch_once(self) -> None:
        """However many requests wait for the keys, they are fetched once."""
        if self._fetching is None:
            self._fetching = asyncio.get_running_loop().create_task(
                self._fetch(), name=f"keys of {self._issuer.url}"
            )
            self._fetching.add_done_callback(self._done)
        fetching = self._fetching
        try:
            # Shielded: a client that goes away must not take the keys from those who wait with it.
            await asyncio.shield(fetching)
        except asyncio.CancelledError:
            if not fetching.cancelled():
                raise
            raise InvalidToken(f"oidc: the issuer {self._issuer.url} is no longer configured") from None

    def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._fetching = None
        if not task.cancelled() and (failure := task.exception()) is not None:
            log.warning("no keys from the issuer %s: %s", self._issuer.url, failure)

    async def _fetch(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._fetched + _PAUSE - loop.time())
        try:
            keys = await self._download()
        finally:
            self._fetched = loop.time()
        gone = {k.id for k in self._keys or ()} - {k.id for k in keys}
        self._keys = keys
        if gone:
            # What a key signed that the issuer no longer stands by is to be looked at anew.
            self._verdicts.forget(self)

    async def _download(self) -> list[VerifyingKey]:
        import ssl

        import aiohttp

        from sampan.transport.tls import client_context

        authority = self._issuer.certificate_authority
        context = client_context(authority.encode() if authority else None)
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT)
        where = (
            self._issuer.discovery_url or f"{self._issuer.url.rstrip('/')}/.well-known/openid-configuration"
        )
        try:
            async with aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context), timeout=timeout
            ) as session:
                about = await _json(session, where)
                if about.get("issuer") != self._issuer.url:
                    raise InvalidToken(
                        f"oidc: issuer did not match the issuer returned by provider, expected {json.dumps(self._issuer.url)} got {json.dumps(about.get('issuer'))}"
                    )
                found = await _json(session, str(about.get("jwks_uri")))
        except (aiohttp.ClientError, OSError, ssl.SSLError, TimeoutError, ValueError) as e:
            raise InvalidToken(f"oidc: authenticator for issuer {json.dumps(self._issuer.url)} is not initialized: {e}") from e  # fmt: skip
        keys = []
        for jwk in found.get("keys") or ():
            try:
                if jwk.get("use", "sig") == "sig":
                    keys.append(VerifyingKey.from_jwk(jwk))
            except (ValueError, AttributeError) as e:
                log.info("a key of the issuer %s is left out: %s", self._issuer.url, e)
        return keys


def _seconds(value: Any) -> float:
    """A moment of a token. Raises InvalidToken."""
    try:
        seconds = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise InvalidToken("oidc: exp and nbf must be numbers")
    return seconds


async def _json(session: Any, url: str) -> Object:
    """A document of the issuer's. Raises ValueError for what is none."""
    async with session.get(url, allow_redirects=True) as answer:
        if answer.status != 200:
            raise ValueError(f"{url} answers {answer.status}")
        body = await answer.content.read(_MOST_BYTES)
        value = json.loads(body)
    if not isinstance(value, dict):
        raise ValueError(f"{url} answers no JSON object")
    return value
