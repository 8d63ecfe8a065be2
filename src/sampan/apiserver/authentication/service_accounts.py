"""Tokens of ServiceAccounts, from the TokenRequest API or kept in Secrets."""

from __future__ import annotations

import logging
from collections import OrderedDict

from sampan.apiserver.authentication.legacy_use import LegacyTokenUse, day_of, end_of_day
from sampan.apiserver.authentication.verdicts import Verdict
from sampan.apiserver.config import Config
from sampan.apiserver.tokens import InvalidToken, claims, legacy
from sampan.apiserver.tokens.claims import LEEWAY_SECONDS, Claims, Looked
from sampan.apiserver.tokens.keys import SignedToken, signing_key
from sampan.apiserver.tokens.legacy import LegacyClaims
from sampan.apiserver.types import ReadCache

log = logging.getLogger(__name__)
_MOST = 4096


class ServiceAccountTokens:
    def __init__(self, config: Config, cache: ReadCache, use: LegacyTokenUse) -> None:
        self._config = config
        self._cache = cache
        self._use = use
        self._read: OrderedDict[bytes, Claims | LegacyClaims] = OrderedDict()
        """Claims of the tokens whose signature was good, which can never become untrue."""
        self._stale: OrderedDict[bytes, None] = OrderedDict()
        """Tokens that should have been replaced, and were told of."""

    def authenticate(self, token: str, key: bytes, now: float) -> Verdict | None:
        said = self._read.get(key)
        if said is None:
            said = self._believed(token)
            if said is None:
                return None
            self._read[key] = said
            if len(self._read) > _MOST:
                self._read.popitem(last=False)
        if isinstance(said, LegacyClaims):
            return self._legacy(said, token, now)
        looked = Looked(self._cache)
        user = claims.check(looked, said, now)
        if 0 < said.warn_after < now and key not in self._stale:
            self._stale[key] = None
            if len(self._stale) > _MOST:
                self._stale.popitem(last=False)
            log.info(
                "%s uses a token that should have been replaced %d seconds ago: its program reads the file only once",
                user.name,
                now - said.warn_after,
            )
        until = min(said.expires + LEEWAY_SECONDS, *map(claims.gone_by, looked.found()))
        return Verdict(user, until, said.audiences, looked)

    def _believed(self, token: str) -> Claims | LegacyClaims | None:
        if token.count(".") != 2:
            return None
        signed = SignedToken.parse(token)
        issuer = signed.claims.get("iss")
        if issuer not in (self._config.issuer, legacy.ISSUER):
            return None
        signing = signing_key(self._config.service_account_key)
        if signed.header.get("kid", signing.id) != signing.id:
            raise InvalidToken("signed by an unknown key")
        signing.verify(signed)
        return legacy.read(signed) if issuer == legacy.ISSUER else claims.read(signed)

    def _legacy(self, said: LegacyClaims, token: str, now: float) -> Verdict:
        looked = Looked(self._cache)
        user, secret = legacy.check(looked, said, token, now)
        today = day_of(now)
        if (secret["metadata"].get("labels") or {}).get(legacy.LAST_USED) != today:
            self._use.note(said.namespace, said.secret, today)
        # Until midnight: the first use of another day is to be noted again.
        until = min(end_of_day(now), *map(claims.gone_by, looked.found()))
        return Verdict(user, until, None, looked)
