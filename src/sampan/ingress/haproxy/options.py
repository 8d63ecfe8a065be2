"""What a route wants besides its targets, as entries of maps: the fixed rules (`option_rules`) and `routes.lua` read them.

Every text is percent-encoded; no entry has anything in it that could end a word, a line or a string.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import replace
from urllib.parse import quote

from sampan.ingress.haproxy.content import Section
from sampan.ingress.patterns import escaped, grouped
from sampan.ingress.route_options import Cors, HeaderChange, Options, Redirect, Rewrite
from sampan.ingress.types import Backend, PathKind, Policy, Route

Entry = tuple[str, str, str]
"""Map, key and value."""
ACME = "/.well-known/acme-challenge/"
"""Where an ACME server asks for the answer to its challenge (RFC 8555, 8.3): by HTTP, wherever else is sent to HTTPS."""
_REPLACEMENT = "/:@!$&()*+,=-._~%\\?"
_METHODS = ("GET", "PUT", "POST", "DELETE", "PATCH", "OPTIONS")
_HEADERS = (
    *("DNT", "Keep-Alive", "User-Agent", "X-Requested-With", "If-Modified-Since"),
    *("Cache-Control", "Content-Type", "Range", "Authorization"),
)


def encoded(text: str) -> str:
    """A text of any kind as one word of letters, digits and `-._~%`. Control characters are left out: no header may have them."""
    return quote("".join(c for c in text if c >= " " and c != "\x7f").encode(errors="replace"), safe="")


def name_of(letter: str, content: object) -> str:
    """The name of a section or file that holds this content."""
    return letter + hashlib.sha256(repr(content).encode(errors="replace")).hexdigest()[:24]


def section_of(route: Route, policy: Policy) -> Section:
    """What the backend of a route must be like."""
    options = route.options
    own = bool(settings(route))
    return Section(
        balance=policy.balance,
        options=own or bool(options.error_pages) or bool(route.mirrors),
        sticky=policy.sticky is not None,
        counted=bool(options.max_body),
        connect=options.timeouts.connect if options.timeouts else 0,
        pages=name_of("p", options.error_pages) if options.error_pages else "",
        authority=name_of("a", policy.tls.ca) if policy.tls and policy.tls.ca else "",
    )


def ways(name: str, route: Route) -> Iterator[tuple[str, Route]]:
    """The ways to targets of a route that ask for something else than the route does: as routes, by name."""
    for i, target in enumerate(route.targets):
        if target.options is not None:
            yield way(name, i), replace(route, options=target.options)


def way(route: str, target: int) -> str:
    """What the way to a target of a route is called."""
    return f"{route}t{target}"


def server_words(backend: Backend) -> str:
    """What a server line needs for the protocol."""
    policy = backend.policy
    if policy.protocol == "h2c":
        return "proto h2"
    if policy.protocol == "http":
        return ""
    words = ["ssl"]
    tls = policy.tls
    name = tls.server_name.lower() if tls else ""
    # A name is one of DNS, or it is nothing that a line may hold.
    if name and not all(c.isascii() and (c.isalnum() or c in "-._") for c in name):
        name = ""
    if tls and tls.ca:
        words += ["verify", "required", "ca-file", f"{name_of('a', tls.ca)}.pem"]
        if name:
            words += ["verifyhost", name]
    else:
        words += ["verify", "none"]
    if name:
        words += ["sni", f"str({name})"]
    if policy.protocol == "h2":
        words += ["alpn", "h2"]
    return " ".join(words)


def entries(name: str, route: Route) -> Iterator[Entry]:
    """All entries for a route under its name."""
    for key, value in settings(route).items():
        if value:  # nothing is left of what no header may have
            yield "settings", f"{name}.{key}", value
    for verb, networks in (("allow", route.options.allow), ("deny", route.options.deny)):
        for bits in dict.fromkeys(_bits(n) for n in networks):
            yield "networks", f"{name}.{verb}|{bits}", verb
    rewrite = route.options.rewrite
    if rewrite and rewrite.regex:
        yield (
            "rewrites",
            f"^{escaped(name)}\\|{grouped(rewrite.regex)}",
            _replacement(rewrite.replacement),
        )


def settings(route: Route) -> dict[str, str]:
    """What the rules look up for a route."""
    options = route.options
    found: dict[str, str] = {}
    if route.status and not route.targets:
        return found  # it is answered, whatever else was asked for
    cut = str(len(route.place.path.value)) if route.place.path.kind is not PathKind.REGEX else "0"
    if options.redirect:
        found |= _redirect(options.redirect, cut)
    if options.rewrite:
        found |= _rewrite(options.rewrite, cut)
    for which, changes in (("request", options.request_headers), ("response", options.response_headers)):
        found |= _changes(which, changes)
    if options.https_only and not route.place.path.value.startswith(ACME):
        found["https-only"] = "1"
    if options.hsts:
        found["hsts"] = str(options.hsts)
    found |= _limits(options)
    if options.rate_limit:
        found["rate"] = encoded(str(route.source))  # what is counted together
    if options.cors:
        found |= _cors(options.cors)
    sticky = next((t.backend.policy.sticky for t in route.targets), None)
    if sticky:
        found["cookie"] = encoded(sticky.name)
        if sticky.max_age:
            found["cookie-max-age"] = str(sticky.max_age)
    return found


def _limits(options: Options) -> dict[str, str]:
    found: dict[str, str] = {}
    if options.timeouts:
        for name, value in (
            ("timeout-response", options.timeouts.response),
            ("timeout-tunnel", options.timeouts.tunnel),
        ):
            if value:
                found[name] = str(value)
    if options.max_body:
        found["max-body"] = str(options.max_body)
    if options.auth:
        found |= {"users": name_of("u", options.auth.users), "realm": encoded(options.auth.realm)}
    if options.rate_limit:
        found[f"rate-{options.rate_limit.seconds}"] = str(options.rate_limit.requests)
    if lists := [w for w, n in (("allow", options.allow), ("deny", options.deny)) if n]:
        found["networks"] = "-".join(lists)
    return found


def _redirect(redirect: Redirect, cut: str) -> dict[str, str]:
    found = {"redirect": str(redirect.status)}
    port = str(redirect.port) if redirect.port else ""
    named = {"scheme": redirect.scheme, "host": redirect.hostname, "port": port, "path": redirect.path or ""}
    found |= {f"redirect-{key}": encoded(value) for key, value in named.items() if value}
    if redirect.prefix is not None:
        found["redirect-cut"] = cut
        if prefix := redirect.prefix.rstrip("/"):
            found["redirect-prefix"] = encoded(prefix)
    return found


def _rewrite(rewrite: Rewrite, cut: str) -> dict[str, str]:
    found: dict[str, str] = {}
    if rewrite.hostname:
        found["host"] = encoded(rewrite.hostname)
    if rewrite.path is not None:
        found["path"] = encoded(rewrite.path or "/")
    elif rewrite.prefix is not None:
        prefix = rewrite.prefix.rstrip("/")
        found |= {"cut": cut, "prefix": encoded(prefix)} if prefix else {"cut": f"{cut}/"}
    elif rewrite.regex:
        found["pattern"] = "1"
    return found


def _changes(which: str, changes: Sequence[HeaderChange]) -> dict[str, str]:
    parts = ((c.verb, encoded(c.name), *((encoded(c.value),) if c.value else ())) for c in changes)
    return {f"{which}.{i}": "=".join(one) for i, one in enumerate(parts, 1)}


def _cors(cors: Cors) -> dict[str, str]:
    if cors.origins == ("*",):
        # With credentials no star is allowed: the origin that asks is named.
        found = {"cors": "any" if cors.credentials else "*"}
    else:
        spans = [o for o in cors.origins if cors.spanning and "*" in o]
        found = {"cors": "listed"} | {f"origin|{_origin(o)}": "1" for o in cors.origins if o not in spans}
        found |= {f"origin.{i}": _span(o) for i, o in enumerate(spans, 1)}
    found["cors-methods"] = encoded(", ".join(cors.methods or _METHODS))
    found["cors-headers"] = encoded(", ".join(cors.headers or _HEADERS))
    if cors.exposed and not (cors.credentials and "*" in cors.exposed):
        found["cors-exposed"] = encoded(", ".join(cors.exposed))
    if cors.credentials:
        found["cors-credentials"] = "true"
    if cors.max_age:
        found["cors-max-age"] = str(cors.max_age)
    return found


def _origin(text: str) -> str:
    scheme, host, port = _parts(text)
    return quote(f"{scheme}://{host}{port and ':'}{port}".encode(errors="replace"), safe="/:*@")


def _span(text: str) -> str:
    """Scheme, port and host of an origin, for `routes.lua`; the stars in its host stand as they are."""
    scheme, host, port = _parts(text)
    return "&".join((encoded(scheme), encoded(port) or "-", "*".join(map(encoded, host.split("*")))))


def _parts(origin: str) -> tuple[str, str, str]:
    """Scheme, host and port ("" for the usual one), as browsers write them."""
    scheme, _, rest = origin.lower().partition("://")
    host, _, port = rest.partition(":")
    return scheme, host, "" if port == {"http": "80", "https": "443"}.get(scheme) else port


def _replacement(text: str) -> str:
    return quote(text.encode(errors="replace"), safe=_REPLACEMENT) or "/"


def _bits(network: str) -> str:
    """`4:00001010` for 10.0.0.0/8: the digits that an address of it begins with."""
    parsed = ipaddress.ip_network(network, strict=False)
    digits = f"{int(parsed.network_address):0{parsed.max_prefixlen}b}"
    return f"{parsed.version}:{digits[: parsed.prefixlen]}"
