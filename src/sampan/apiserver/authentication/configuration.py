"""The AuthenticationConfiguration file: which outside issuers are believed, how their claims become a user, and who
may come without a credential.

apiserver.config.k8s.io/v1 and v1beta1. What is written in CEL is refused by name until there is CEL here.

Upstream: `k8s.io/apiserver/pkg/apis/apiserver` (types and validation).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sampan.apiserver.configuration_file import Reader, document
from sampan.transport.types import Request

_VERSIONS = ("apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1")
_MOST_ISSUERS = 64


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim taken as it is, with something before it."""

    name: str
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class RequiredClaim:
    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """One outside issuer of tokens."""

    url: str
    discovery_url: str = ""
    """Where its configuration is, if not below `url`."""
    certificate_authority: str = ""
    """PEM; the system's authorities if empty."""
    audiences: tuple[str, ...]
    username: Claim
    groups: Claim | None = None
    uid: Claim | None = None
    required: tuple[RequiredClaim, ...] = ()


@dataclass(frozen=True, slots=True)
class Anonymous:
    """Who may come without a credential. What they may do is up to authorization."""

    enabled: bool = True
    paths: frozenset[str] | None = None
    """Only to these paths; None: to all."""

    def allows(self, request: Request) -> bool:
        return self.enabled and (self.paths is None or request.path in self.paths)


@dataclass(frozen=True, slots=True)
class AuthenticationConfiguration:
    issuers: tuple[Issuer, ...] = ()
    anonymous: Anonymous = Anonymous()


def load(path: Path) -> AuthenticationConfiguration:
    """Read a configuration file. Raises OSError, ConfigurationError."""
    reader = _Reader()
    read = reader.configuration(document(path, reader))
    reader.finish(path)
    return read


class _Reader(Reader):
    def configuration(self, found: Any) -> AuthenticationConfiguration:
        top = self.object("", found, ("apiVersion", "kind", "jwt", "anonymous"))
        self.identity(top, "AuthenticationConfiguration", _VERSIONS)
        issuers: list[Issuer] = []
        given = self.list("jwt", top.get("jwt"))
        if len(given) > _MOST_ISSUERS:
            self.wrong("jwt", f"Too many: {len(given)}: must have at most {_MOST_ISSUERS} items")
        for i, jwt in enumerate(given):
            issuer = self._issuer(f"jwt[{i}]", jwt)
            for field in ("url", "discovery_url"):
                value = getattr(issuer, field)
                if value and value in [getattr(other, field) for other in issuers]:
                    shown = "url" if field == "url" else "discoveryURL"
                    self.wrong(f"jwt[{i}].issuer.{shown}", f'Duplicate value: "{value}"')
            issuers.append(issuer)
        return AuthenticationConfiguration(tuple(issuers), self._anonymous(top.get("anonymous")))

    # -- jwt

    def _issuer(self, path: str, value: Any) -> Issuer:
        jwt = self.object(
            path, value, ("issuer", "claimValidationRules", "claimMappings", "userValidationRules")
        )
        at = f"{path}.issuer"
        issuer = self.object(
            at,
            jwt.get("issuer"),
            (
                "url",
                "discoveryURL",
                "certificateAuthority",
                "audiences",
                "audienceMatchPolicy",
                "egressSelectorType",
            ),
        )
        url = self._url(f"{at}.url", issuer.get("url"), required=True)
        discovery = self._url(f"{at}.discoveryURL", issuer.get("discoveryURL"), required=False)
        if discovery and discovery == url:
            self.wrong(
                f"{at}.discoveryURL", f'Invalid value: "{discovery}": discoveryURL must be different from URL'
            )
        if issuer.get("egressSelectorType"):
            self.wrong(f"{at}.egressSelectorType", "is not supported here: there is no egress selector")
        if jwt.get("userValidationRules"):
            self._cel(f"{path}.userValidationRules")
        audiences = self._audiences(at, issuer)
        required = self._required(f"{path}.claimValidationRules", jwt.get("claimValidationRules"))
        username, groups, uid = self._mappings(f"{path}.claimMappings", jwt.get("claimMappings"))
        return Issuer(
            url=url,
            discovery_url=discovery,
            certificate_authority=self._authority(f"{at}.certificateAuthority", issuer.get("certificateAuthority")),
            audiences=audiences,
            username=username,
            groups=groups,
            uid=uid,
            required=required,
        )  # fmt: skip

    def _url(self, path: str, value: Any, *, required: bool) -> str:
        text = self.text(path, value)
        if not text:
            if required:
                self.wrong(path, "Required value: URL is required")
            return ""
        parts = urlsplit(text)
        for wrong, why in (
            (parts.scheme != "https", "URL scheme must be https"),
            (not parts.netloc, "URL must have a host"),
            (parts.username is not None, "URL must not contain a username or password"),
            (bool(parts.query), "URL must not contain a query"),
            (bool(parts.fragment), "URL must not contain a fragment"),
        ):
            if wrong:
                self.wrong(path, f'Invalid value: "{text}": {why}')
        return text

    def _audiences(self, at: str, issuer: Mapping[str, Any]) -> tuple[str, ...]:
        found = [self.text(f"{at}.audiences[{i}]", a) for i, a in enumerate(self.list(f"{at}.audiences", issuer.get("audiences")))]  # fmt: skip
        if not found:
            self.wrong(f"{at}.audiences", f"Required value: at least one {at}.audiences is required")
        for i, audience in enumerate(found):
            if not audience:
                self.wrong(f"{at}.audiences[{i}]", "Required value: audience can't be empty")
            if audience in found[:i]:
                self.wrong(f"{at}.audiences[{i}]", f'Duplicate value: "{audience}"')
        policy = self.text(f"{at}.audienceMatchPolicy", issuer.get("audienceMatchPolicy"))
        if policy not in ("", "MatchAny") or (len(found) > 1 and not policy):
            why = (
                "audienceMatchPolicy must be MatchAny for multiple audiences"
                if len(found) > 1
                else "audienceMatchPolicy must be empty or MatchAny for single audience"
            )
            self.wrong(f"{at}.audienceMatchPolicy", f'Invalid value: "{policy}": {why}')
        return tuple(found)

    def _authority(self, path: str, value: Any) -> str:
        import ssl

        text = self.text(path, value)
        if text:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
            except (ssl.SSLError, ValueError):
                self.wrong(path, "Invalid value: data does not contain any valid RSA or ECDSA certificates")
        return text

    def _required(self, path: str, value: Any) -> tuple[RequiredClaim, ...]:
        rules: list[RequiredClaim] = []
        for i, given in enumerate(self.list(path, value)):
            at = f"{path}[{i}]"
            rule = self.object(at, given, ("claim", "requiredValue", "expression", "message"))
            if rule.get("expression"):
                self._cel(f"{at}.expression")
                continue
            name = self.text(f"{at}.claim", rule.get("claim"))
            if not name:
                self.wrong(at, "Required value: claim or expression is required")
            if rule.get("message"):
                self.wrong(
                    f"{at}.message",
                    f'Invalid value: "{rule["message"]}": message can\'t be set when claim is set',
                )
            if name in [r.name for r in rules]:
                self.wrong(f"{at}.claim", f'Duplicate value: "{name}"')
            rules.append(RequiredClaim(name, self.text(f"{at}.requiredValue", rule.get("requiredValue"))))
        return tuple(rules)

    def _mappings(self, path: str, value: Any) -> tuple[Claim, Claim | None, Claim | None]:
        mappings = self.object(path, value, ("username", "groups", "uid", "extra"))
        username = self._claim(f"{path}.username", mappings.get("username"), prefixed=True)
        if username is None:
            self.wrong(f"{path}.username", "Required value: claim or expression is required")
        if mappings.get("extra"):
            self._cel(f"{path}.extra")
        return (
            username or Claim(""),
            self._claim(f"{path}.groups", mappings.get("groups"), prefixed=True),
            self._claim(f"{path}.uid", mappings.get("uid"), prefixed=False),
        )

    def _claim(self, path: str, value: Any, *, prefixed: bool) -> Claim | None:
        given = self.object(path, value, ("claim", "expression", *(("prefix",) if prefixed else ())))
        if given.get("expression"):
            self._cel(f"{path}.expression")
            return Claim("?")
        name = self.text(f"{path}.claim", given.get("claim"))
        prefix = given.get("prefix")
        if not name:
            if prefix is not None:
                self.wrong(
                    f"{path}.claim", "Required value: non-empty claim name is required when prefix is set"
                )
            return None
        if prefixed and prefix is None:
            why = (
                "prefix is required when claim is set. It can be set to an empty string to disable prefixing"
            )
            self.wrong(f"{path}.prefix", f"Required value: {why}")
        return Claim(name, self.text(f"{path}.prefix", prefix))

    # -- anonymous

    def _anonymous(self, value: Any) -> Anonymous:
        if value is None:
            return Anonymous()
        given = self.object("anonymous", value, ("enabled", "conditions"))
        enabled = self.flag("anonymous.enabled", given.get("enabled"))
        conditions = self.list("anonymous.conditions", given.get("conditions"))
        if not conditions:
            return Anonymous(enabled)
        if not enabled:
            self.wrong(
                "anonymous.conditions",
                "Invalid value: enabled should be set to true when conditions are defined",
            )
        paths = []
        for i, condition in enumerate(conditions):
            at = f"anonymous.conditions[{i}]"
            paths.append(self.text(f"{at}.path", self.object(at, condition, ("path",)).get("path")))
        return Anonymous(enabled, frozenset(paths))

    # -- values

    def _cel(self, path: str) -> None:
        self.wrong(path, "CEL expressions are not supported yet")
