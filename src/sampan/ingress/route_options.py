"""What may be done to the requests of a route on their way, besides sending them somewhere: plain values, as `types` has them.

Annotations of Ingresses and filters of Gateway API's routes are read into these; `haproxy/options.py` has a proxy do them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Redirect:
    """Answer with the way to somewhere else. "" and 0 keep what the request has. Of `path` and `prefix` one is given at most:
    the whole new path, or what the matched prefix becomes."""

    scheme: str = ""
    hostname: str = ""
    port: int = 0
    path: str | None = None
    prefix: str | None = None
    status: int = 302


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Change what the backend sees. `path` is the whole new path, `prefix` what the matched prefix becomes, and `regex` with
    `replacement` (`\\1` ... are its groups) changes the path by pattern; one of the three at most."""

    hostname: str = ""
    path: str | None = None
    prefix: str | None = None
    regex: str = ""
    replacement: str = ""


@dataclass(frozen=True, slots=True)
class HeaderChange:
    """One header changed. `set` replaces, `add` adds another one, `remove` takes all away."""

    verb: Literal["set", "add", "remove"]
    name: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Milliseconds; 0 leaves what is usual. `tunnel` holds for WebSockets and the like."""

    connect: int = 0
    response: int = 0
    tunnel: int = 0


@dataclass(frozen=True, slots=True)
class BasicAuth:
    """Users by name with crypt(3) hashes, as in an htpasswd file."""

    realm: str
    users: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How many requests a client's address may make within a period (seconds). More are answered with 429."""

    requests: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Cors:
    """What other sites' pages may do. `("*",)` allows all: origins, methods, headers. Another star in an origin stands for one label,
    with `spanning` for any part of a host."""

    origins: tuple[str, ...]
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    credentials: bool = False
    max_age: int = 0
    spanning: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """All that may be done to the requests of a route besides sending them somewhere. Every field's default does nothing."""

    redirect: Redirect | None = None
    https_only: bool = False
    """Redirect to HTTPS what came without."""
    hsts: int = 0
    """Seconds for which a browser is told to come by HTTPS only."""
    rewrite: Rewrite | None = None
    request_headers: tuple[HeaderChange, ...] = ()
    response_headers: tuple[HeaderChange, ...] = ()
    timeouts: Timeouts | None = None
    max_body: int = 0
    """Bytes of a request's body, 0 for no limit."""
    auth: BasicAuth | None = None
    rate_limit: RateLimit | None = None
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    """Networks in CIDR form that may come, or may not; `()` for no list."""
    cors: Cors | None = None
    error_pages: tuple[tuple[int, str], ...] = ()
    """Bodies (HTML) by status code, for answers that the proxy makes by itself."""


NO_OPTIONS = Options()
