"""What the annotations of an Ingress ask for: `sampan.io/*`, and those of `nginx.ingress.kubernetes.io/` that are used most.

Every annotation under these prefixes is either read here or told of in an event; none is ignored without a word. Where both prefixes
say something about one thing, ours counts. docs/ingress.md has the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from sampan.api import ingress_tls
from sampan.api.errors import Object
from sampan.api.ingress_references import SECRET_ANNOTATIONS, own_name
from sampan.ingress import annotation_values as values
from sampan.ingress.annotation_guards import GUARDS, NGINX, PREFIX, asks_nothing, refused
from sampan.ingress.ingresses import Wishes
from sampan.ingress.route_options import BasicAuth, Cors, Options, RateLimit, Redirect, Rewrite, Timeouts
from sampan.ingress.types import BackendTls, Canary, Policy, Problem, Protocol, Source, StickyCookie

INVALID = "InvalidAnnotation"
NOT_SUPPORTED = "UnsupportedAnnotation"

Lookup = Callable[[str, str], Object | None]
"""The object of that namespace and name, if there is one."""

LONGEST = 1024
"""Characters that a value has at most, where it is no list of networks and no name whose lack closes the Ingress."""
LISTS = frozenset(
    (
        *SECRET_ANNOTATIONS,
        f"{PREFIX}allow",
        f"{PREFIX}deny",
        f"{NGINX}allowlist-source-range",
        f"{NGINX}whitelist-source-range",
        f"{NGINX}denylist-source-range",
    )
)


@dataclass(slots=True)
class _Reading:
    ingress: Object
    secret: Lookup
    configmap: Lookup
    given: Mapping[str, str]
    options: dict[str, Any] = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Fields of values that several annotations make: timeouts, cors, canary, rewrite, ..."""
    problems: list[Problem] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)
    """What was asked for its safety and cannot be had (see GUARDS): the Ingress stays closed."""

    @property
    def namespace(self) -> str:
        return str(self.ingress["metadata"].get("namespace", ""))

    def problem(self, key: str, reason: str, message: str) -> None:
        meta = self.ingress["metadata"]
        source = Source("Ingress", self.namespace, meta["name"], f"metadata.annotations[{key}]")
        self.problems.append(Problem(source, reason, f"{source.field}: {message}"))


_USERS = (f"{PREFIX}basic-auth-secret", f"{NGINX}auth-secret")
_CORS = (f"{PREFIX}cors-origins", f"{NGINX}enable-cors")
_STICKY = (f"{PREFIX}sticky-cookie", f"{NGINX}affinity")
_CANARY = (f"{PREFIX}canary-weight", f"{PREFIX}canary-header", f"{NGINX}canary")
_CANARY_HEADER = (f"{PREFIX}canary-header", f"{NGINX}canary-by-header")
_NEEDS = {
    f"{PREFIX}basic-auth-realm": _USERS,
    f"{PREFIX}canary-header-value": _CANARY_HEADER,
    f"{PREFIX}cors-credentials": _CORS,
    f"{PREFIX}cors-exposed": _CORS,
    f"{PREFIX}cors-headers": _CORS,
    f"{PREFIX}cors-max-age": _CORS,
    f"{PREFIX}cors-methods": _CORS,
    f"{PREFIX}sticky-cookie-max-age": _STICKY,
    f"{NGINX}auth-realm": _USERS,
    f"{NGINX}canary-by-header": _CANARY,
    f"{NGINX}canary-by-header-value": _CANARY_HEADER,
    f"{NGINX}canary-weight": _CANARY,
    f"{NGINX}canary-weight-total": _CANARY,
    f"{NGINX}cors-allow-credentials": _CORS,
    f"{NGINX}cors-allow-headers": _CORS,
    f"{NGINX}cors-allow-methods": _CORS,
    f"{NGINX}cors-allow-origin": _CORS,
    f"{NGINX}cors-expose-headers": _CORS,
    f"{NGINX}cors-max-age": _CORS,
    f"{NGINX}session-cookie-max-age": _STICKY,
    f"{NGINX}session-cookie-name": _STICKY,
}
"""What has no effect alone, and of what one has to be there. Those of nginx with these names switch nothing on there either."""
_SHUT = "nobody is let in"
_Reader = Callable[[_Reading, str], None]
"""Takes an annotation's value in. Raises ValueError with what is wrong and what is allowed."""


def read(ingress: Object, secret: Lookup, configmap: Lookup) -> Wishes:
    """All that the annotations of an Ingress ask for."""
    given = ingress["metadata"].get("annotations") or {}
    reading = _Reading(ingress, secret, configmap, given)
    # Ours come last, and so replace what those of nginx have said.
    for key in sorted(given, key=lambda k: (k.startswith(PREFIX), k)):
        if key.startswith(NGINX):
            reader = _NGINX.get(key.removeprefix(NGINX))
        elif key.startswith(PREFIX):
            reader = _OWN.get(key.removeprefix(PREFIX))
        else:
            continue
        if reader is None:
            if not asks_nothing(key, given[key]):
                _unsupported(reading, key)
            continue
        guarded = GUARDS.get(key)
        try:
            if len(given[key]) > LONGEST and key not in LISTS:
                raise ValueError(f"it has more than {LONGEST} characters")
            if (needs := _NEEDS.get(key)) and not any(k in given for k in needs):
                reader(replace(reading, options={}, policy={}, parts={}), given[key])
                raise ValueError(f"it has no effect without {_same_prefix(key, needs)}")
            reader(reading, given[key])
        except ValueError as e:
            if guarded is not None:
                reading.missing.add(guarded)
            reading.problem(
                key, INVALID, f"{given[key][:LONGEST]!r}: {e}" + (f"; {_SHUT}" if guarded is not None else "")
            )
        else:
            if guarded is not None and key.startswith(PREFIX):
                reading.missing.discard(guarded)
    return _made(reading)


def _same_prefix(key: str, needs: Sequence[str]) -> str:
    """What to name of several that would do: those with the prefix of the one that needs them."""
    return " or ".join(n for n in needs if n.startswith(PREFIX) == key.startswith(PREFIX))


def _unsupported(reading: _Reading, key: str) -> None:
    if key.endswith("-snippet"):
        why = "snippets of configuration are refused: whoever may write an Ingress could read every Secret by them"
        reading.problem(key, NOT_SUPPORTED, why)
        return
    prefix, known = (PREFIX, _OWN) if key.startswith(PREFIX) else (NGINX, _NGINX)
    near = values.near(key.removeprefix(prefix), known)
    meant = f"{prefix}{near}" if near else ""
    why = "it is not supported here"
    if refused(key, meant):
        reading.missing.add(key)
        why += f"; {_SHUT}"
    else:
        why += " and has no effect"
    reading.problem(key, NOT_SUPPORTED, why + (f" (did you mean {meant}?)" if meant else ""))


def _made(reading: _Reading) -> Wishes:
    parts = reading.parts
    options, policy = reading.options, reading.policy
    if "timeouts" in parts:
        options["timeouts"] = Timeouts(**parts["timeouts"])
    if (cors := _cors(reading)) is not None:
        options["cors"] = cors
    if (auth := parts.get("auth")) and "users" in auth:
        options["auth"] = BasicAuth(auth.get("realm", "Authentication Required"), auth["users"])
    if (tls := parts.get("tls")) is not None:
        policy["tls"] = BackendTls(**tls)
        policy.setdefault("protocol", "https")
    if (sticky := parts.get("sticky")) and (sticky.pop("on", False) or "name" in sticky):
        policy["sticky"] = StickyCookie(**{"name": "sampan-endpoint", **sticky})
    rewrite = parts.get("rewrite", {})
    regex, target = bool(rewrite.get("regex")), rewrite.get("target", "")
    if target and "\\" not in target and not regex:
        options["rewrite"], target = Rewrite(path=target), ""
    if target:
        regex = True
    if hostname := rewrite.get("hostname"):
        options["rewrite"] = replace(options.get("rewrite") or Rewrite(), hostname=hostname)
    return Wishes(
        options=Options(**options),
        policy=Policy(**policy),
        protocol_said="protocol" in policy,
        regex=regex,
        rewrite=target,
        canary=_canary(reading),
        closed=bool(reading.missing),
        problems=tuple(reading.problems),
    )


def _cors(reading: _Reading) -> Cors | None:
    """Nobody's pages may ask where it was mistyped whose may."""
    given, asked = reading.given, dict(reading.parts.get("cors", {}))
    on, ours = asked.pop("on", False), f"{PREFIX}cors-origins" in given
    if on and not ours and f"{NGINX}cors-allow-origin" not in given:
        asked["origins"] = ("*",)
    return Cors(**asked) if (on or ours) and "origins" in asked else None


def _canary(reading: _Reading) -> Canary | None:
    """One with nothing that could be understood gets nothing, and is no rule like others."""
    asked = dict(reading.parts.get("canary", {}))
    on = asked.pop("on", f"{NGINX}canary" in reading.given)
    ours = any(f"{PREFIX}{name}" in reading.given for name in _OWN if name.startswith("canary-"))
    if asked.get("weight", 0) > (total := asked.get("total", 100)):
        key = next(k for k in (f"{PREFIX}canary-weight", f"{NGINX}canary-weight") if k in reading.given)
        why = f"{reading.given[key]!r}: expected a whole number from 0 to {total}"
        reading.problem(key, INVALID, why)
        del asked["weight"]
    return Canary(**asked, inherits=on and not ours) if on or ours else None


# ---- readers


def _option(name: str, value: Callable[[str], Any]) -> _Reader:
    def reader(reading: _Reading, text: str) -> None:
        reading.options[name] = value(text)

    return reader


def _policy(name: str, value: Callable[[str], Any]) -> _Reader:
    def reader(reading: _Reading, text: str) -> None:
        reading.policy[name] = value(text)

    return reader


def _part(part: str, name: str, value: Callable[[str], Any]) -> _Reader:
    def reader(reading: _Reading, text: str) -> None:
        reading.parts.setdefault(part, {})[name] = value(text)

    return reader


def _protocol(text: str) -> Protocol:
    known = {"http": "http", "h2c": "h2c", "grpc": "h2c", "https": "https", "h2": "h2", "grpcs": "h2"}
    return cast(Protocol, known[values.one_of(text.lower(), known)])


def _nginx_protocol(text: str) -> Protocol:
    known = ("HTTP", "HTTPS", "GRPC", "GRPCS")
    return _protocol(values.one_of(text.upper(), known))


def _balance(text: str) -> str:
    return values.one_of(text, ("roundrobin", "leastconn", "random", "source"))


def _nginx_balance(text: str) -> str:
    known = {"round_robin": "roundrobin", "ewma": "leastconn"}
    return known[values.one_of(text, known)]


def _redirect_to(status: int) -> _Reader:
    def reader(reading: _Reading, text: str) -> None:
        scheme, hostname, port, path = values.url(text)
        reading.options["redirect"] = Redirect(scheme, hostname, port, path, status=status)

    return reader


def _https_only(reading: _Reading, text: str) -> None:
    """Of the two of nginx that redirect to HTTPS one is enough, whatever the other one says."""
    wanted = values.boolean(text)
    reading.options["https_only"] = wanted or reading.options.get("https_only", False)


def _rate(seconds: int) -> _Reader:
    def reader(reading: _Reading, text: str) -> None:
        wanted = RateLimit(values.positive(text), seconds)
        if "rate_limit" in reading.options:
            raise ValueError(
                "there is another limit besides, and only one of limit-rpm and limit-rps can be had"
            )
        reading.options["rate_limit"] = wanted

    return reader


def _whitelist(reading: _Reading, text: str) -> None:
    """The elder name of `allowlist-source-range`, which is read before it."""
    wanted = values.networks(text)
    if reading.options.setdefault("allow", wanted) != wanted:
        raise ValueError("allowlist-source-range is there besides, and only one of them can be had")


def _own_rate(reading: _Reading, text: str) -> None:
    reading.options["rate_limit"] = RateLimit(*values.rate(text))


def _name(reading: _Reading, text: str, kind: str) -> str:
    """The name of an object of the Ingress's namespace, as `name` or `namespace/name`."""
    name = own_name(text, reading.namespace)
    if name:
        return name
    if text.strip().partition("/")[2]:
        raise ValueError(f"a {kind} of another namespace cannot be used, only of {reading.namespace}")
    raise ValueError(f"expected the name of a {kind}")


def _users(reading: _Reading, text: str) -> None:
    name = _name(reading, text, "Secret")
    secret = reading.secret(reading.namespace, name)
    if secret is None:
        raise ValueError(f"there is no Secret {reading.namespace}/{name}")
    reading.parts.setdefault("auth", {})["users"] = values.htpasswd(secret)


def _auth_type(reading: _Reading, text: str) -> None:
    if not any(reading.given.get(key) for key in _USERS):
        raise ValueError("no annotation names a Secret with users")
    values.one_of(text.lower(), ("basic",))


def _authority(reading: _Reading, text: str) -> None:
    name = _name(reading, text, "Secret")
    secret = reading.secret(reading.namespace, name)
    if secret is None:
        raise ValueError(f"there is no Secret {reading.namespace}/{name}")
    reading.parts.setdefault("tls", {})["ca"] = values.authority(secret)


def _verify(reading: _Reading, text: str) -> None:
    if values.one_of(text.lower(), ("on", "off")) == "on":
        raise ValueError(f"name the authority by {PREFIX}backend-ca-secret")


def _error_pages(reading: _Reading, text: str) -> None:
    name = _name(reading, text, "ConfigMap")
    configmap = reading.configmap(reading.namespace, name)
    if configmap is None:
        raise ValueError(f"there is no ConfigMap {reading.namespace}/{name}")
    reading.options["error_pages"] = values.pages(configmap)


def _affinity(reading: _Reading, text: str) -> None:
    values.one_of(text, ("cookie",))
    reading.parts.setdefault("sticky", {})["on"] = True


def _tls(reading: _Reading, text: str) -> None:
    """What it asks for is made by somebody else."""
    values.one_of(text, (ingress_tls.LOCAL,))
    if not any(hosts for hosts, _ in ingress_tls.entries(reading.ingress)):
        raise ValueError("no rule and no entry of spec.tls names a host that a certificate could be for")


_OWN: dict[str, _Reader] = {
    "tls": _tls,
    "https-redirect": _option("https_only", values.boolean),
    "hsts": _option("hsts", values.seconds),
    "backend-protocol": _policy("protocol", _protocol),
    "backend-ca-secret": _authority,
    "backend-server-name": _part("tls", "server_name", values.hostname),
    "balance": _policy("balance", _balance),
    "sticky-cookie": _part("sticky", "name", values.token),
    "sticky-cookie-max-age": _part("sticky", "max_age", values.seconds),
    "timeout-connect": _part("timeouts", "connect", values.milliseconds),
    "timeout-response": _part("timeouts", "response", values.milliseconds),
    "timeout-tunnel": _part("timeouts", "tunnel", values.milliseconds),
    "max-body": _option("max_body", values.size),
    "rewrite": _part("rewrite", "target", values.replacement),
    "path-regex": _part("rewrite", "regex", values.boolean),
    "basic-auth-secret": _users,
    "basic-auth-realm": _part("auth", "realm", values.words),
    "rate-limit": _own_rate,
    "allow": _option("allow", values.networks),
    "deny": _option("deny", values.networks),
    "cors-origins": _part("cors", "origins", values.origins),
    "cors-methods": _part("cors", "methods", values.tokens),
    "cors-headers": _part("cors", "headers", values.tokens),
    "cors-exposed": _part("cors", "exposed", values.tokens),
    "cors-credentials": _part("cors", "credentials", values.boolean),
    "cors-max-age": _part("cors", "max_age", values.seconds),
    "error-pages": _error_pages,
    "canary-weight": _part("canary", "weight", values.share),
    "canary-header": _part("canary", "header", values.token),
    "canary-header-value": _part("canary", "header_value", values.words),
}
_NGINX: dict[str, _Reader] = {
    "affinity": _affinity,
    "allowlist-source-range": _option("allow", values.networks),
    "auth-realm": _part("auth", "realm", values.words),
    "auth-secret": _users,
    "auth-type": _auth_type,
    "backend-protocol": _policy("protocol", _nginx_protocol),
    "canary": _part("canary", "on", values.boolean),
    "canary-by-header": _part("canary", "header", values.token),
    "canary-by-header-value": _part("canary", "header_value", values.words),
    "canary-weight": _part("canary", "weight", values.share),
    "canary-weight-total": _part("canary", "total", values.positive),
    "cors-allow-credentials": _part("cors", "credentials", values.boolean),
    "cors-allow-headers": _part("cors", "headers", values.tokens),
    "cors-allow-methods": _part("cors", "methods", values.tokens),
    "cors-allow-origin": _part("cors", "origins", values.origins),
    "cors-expose-headers": _part("cors", "exposed", values.tokens),
    "cors-max-age": _part("cors", "max_age", values.seconds),
    "denylist-source-range": _option("deny", values.networks),
    "enable-cors": _part("cors", "on", values.boolean),
    "force-ssl-redirect": _https_only,
    "limit-rpm": _rate(60),
    "limit-rps": _rate(1),
    "load-balance": _policy("balance", _nginx_balance),
    "permanent-redirect": _redirect_to(301),
    "proxy-body-size": _option("max_body", values.nginx_size),
    "proxy-connect-timeout": _part("timeouts", "connect", values.milliseconds),
    "proxy-read-timeout": _part("timeouts", "response", values.milliseconds),
    "proxy-ssl-verify": _verify,
    "rewrite-target": _part("rewrite", "target", values.nginx_replacement),
    "session-cookie-max-age": _part("sticky", "max_age", values.seconds),
    "session-cookie-name": _part("sticky", "name", values.token),
    "ssl-redirect": _https_only,
    "temporal-redirect": _redirect_to(302),
    "upstream-vhost": _part("rewrite", "hostname", values.hostname),
    "use-regex": _part("rewrite", "regex", values.boolean),
    "whitelist-source-range": _whitelist,
}
