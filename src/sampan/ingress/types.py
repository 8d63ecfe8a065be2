"""The routing of the whole cluster as plain values: what listens, which request matches what, where it goes.

Pure functions compute it from API objects (`ingresses` from Ingresses; whatever else describes routes yields the same values),
`table` keeps it and settles who has what, and `haproxy/` makes a proxy do it. A value says what was asked for, in the words of
the field; how a proxy is told is nobody's business here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from sampan.ingress.route_options import NO_OPTIONS, Options

# ---- where a rule came from


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """The object, and the place in it, that asked for something. `field` is a path such as `spec.rules[0].http.paths[1]`."""

    kind: str
    namespace: str
    name: str
    field: str = ""

    @property
    def owner(self) -> Owner:
        return self.kind, self.namespace, self.name

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


Owner = tuple[str, str, str]
"""Kind, namespace and name of an object that asks for routes."""


# ---- what listens

INGRESS_SCOPE = "ingress"
"""The scope of all Ingresses: they share the listeners for ports 80 and 443."""


@dataclass(frozen=True, slots=True, order=True)
class Listener:
    """A port of the nodes that requests come in at. A request is held against the routes of the listener's scope alone; where there
    are `hosts`, instead against those of the scope that stands beside the host that is most like its own, and of no other. What
    certificates are shown is `scope`'s to say in either case."""

    name: str
    port: int
    scope: str
    tls: bool = False
    proxy_protocol: bool = False
    """Whether each connection begins with a PROXY header, which then says where it came from."""
    public_port: int = 0
    """The port that clients see, where it is another one; 0 for the same."""
    hosts: tuple[tuple[Host, str], ...] = ()


# ---- which requests


class PathKind(Enum):
    """How a path is compared. A prefix is compared path element by path element."""

    EXACT = "Exact"
    PREFIX = "Prefix"
    REGEX = "Regex"


@dataclass(frozen=True, slots=True)
class Path:
    """A path to compare with. A PREFIX has no slash at its end: "" is the prefix of all paths."""

    kind: PathKind
    value: str

    def __str__(self) -> str:
        return self.value or "/"


EVERY_PATH = Path(PathKind.PREFIX, "")


class HostKind(Enum):
    """What a host is. Order is precedence."""

    EXACT = "exact"
    WILDCARD = "wildcard"
    """`*.example.com`: one label more than what follows the star."""
    SUFFIX = "suffix"
    """`*.example.com`: one label more, or several; the longest wins."""
    ANY = "any"


@dataclass(frozen=True, slots=True)
class Host:
    """A host to compare with, in lower case and without port; a WILDCARD or SUFFIX begins with `*.`, ANY is ""."""

    kind: HostKind
    name: str = ""

    @classmethod
    def of_ingress(cls, host: str) -> Host:
        if not host:
            return ANY_HOST
        return cls(HostKind.WILDCARD if host.startswith("*.") else HostKind.EXACT, host.lower())

    def __str__(self) -> str:
        return self.name or "*"


ANY_HOST = Host(HostKind.ANY)


@dataclass(frozen=True, slots=True)
class Condition:
    """Something more that a request must have: a header or a query parameter with a value (the whole of it), or a path of some kind
    (whose name is "path")."""

    where: Literal["header", "query", "path"]
    name: str
    value: str
    regex: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """The host and path that a route is for, in one scope. What has the same place is in competition.

    `default` is the place below all rules of a host: where a request goes that none of the rules for its host matches
    (`defaultBackend` of an Ingress). Its path is EVERY_PATH.
    """

    scope: str
    host: Host
    path: Path
    default: bool = False


# ---- where to

Protocol = Literal["http", "h2c", "https", "h2"]
"""What is spoken with a backend; h2 is HTTP/2 over TLS."""


@dataclass(frozen=True, slots=True)
class BackendTls:
    """How the certificate of a backend is looked at. Without `ca` (PEM) it is not verified."""

    ca: str = ""
    server_name: str = ""
    """For SNI and for the check of the certificate's name."""


@dataclass(frozen=True, slots=True)
class StickyCookie:
    """A cookie by which a client keeps the endpoint that it had."""

    name: str
    max_age: int = 0
    """Seconds, 0 for as long as the browser runs."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How a backend is talked to. Routes that want different things of one Service port have a backend each."""

    protocol: Protocol = "http"
    tls: BackendTls | None = None
    sticky: StickyCookie | None = None
    balance: Literal["roundrobin", "leastconn", "random", "source"] = "roundrobin"


DEFAULT_POLICY = Policy()


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A port of a Service, by number."""

    namespace: str
    service: str
    port: int

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service}:{self.port}"


@dataclass(frozen=True, slots=True)
class Backend:
    """A Service port and how to talk to what is behind it."""

    port: ServicePort
    policy: Policy = DEFAULT_POLICY


@dataclass(frozen=True, slots=True)
class Target:
    """A backend with its weight among a route's. Weight 0 gets nothing."""

    backend: Backend
    weight: int = 1
    options: Options | None = None
    """What is asked for on the way to this one, in place of the route's; None for just these."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """A backend that gets copies of requests, `part` of every `whole` of them; what it answers is dropped."""

    backend: Backend
    part: int = 1
    whole: int = 1


class EndpointState(Enum):
    """READY gets requests. DRAINING gets none that is new: what is under way ends in its own time."""

    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a Service port. `pod` is the name of the pod in the Service's namespace, "" where there is none."""

    address: str
    port: int
    state: EndpointState = EndpointState.READY
    pod: str = ""


# ---- a route


@dataclass(frozen=True, slots=True)
class Canary:
    """This route takes a share of what another one of the same place gets: `weight` of `total`, and all with the header."""

    weight: int = 0
    total: int = 100
    header: str = ""
    header_value: str = ""
    inherits: bool = False
    """Whether what it does not ask for itself is as the other one has it."""


@dataclass(frozen=True, slots=True)
class Route:
    """What happens to the requests of one place that meet the conditions.

    `status` answers by itself where there is nothing to send to: 503 for a Service that is missing, 500 for a reference that
    is refused. `precedence` settles between routes of one place: the smaller goes first.
    """

    place: Place
    targets: tuple[Target, ...]
    source: Source
    precedence: tuple[int | str, ...]
    method: str = ""
    conditions: tuple[Condition, ...] = ()
    options: Options = NO_OPTIONS
    canary: Canary | None = None
    status: int = 0
    lost: int = 0
    """The weight, beside that of `targets`, of what cannot be had: that share is answered with `status`."""
    mirrors: tuple[Mirror, ...] = ()
    closed: bool = False
    """Whether nobody is let in, since what was to guard it cannot be had."""
    said: Policy | None = None
    """How it asks itself that its backends be talked to; None where that is left to their Services."""

    @property
    def backends(self) -> Iterator[Backend]:
        """All that requests go to, copies too."""
        yield from (t.backend for t in self.targets)
        yield from (m.backend for m in self.mirrors)

    @property
    def conditional(self) -> bool:
        """Whether a request of this place may yet be another route's."""
        return bool(self.method or self.conditions or self.canary)


# ---- certificates


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate chain with its key (PEM), for the hosts that are asked for with it. `host` is a name, `*.name`, or "" for
    the default. The key is no part of any text made of this value."""

    scope: str
    host: Host
    chain: str
    key: str = field(repr=False)
    source: Source = field(compare=False)
    created: str = field(default="", compare=False)
    """Age of what asked for it: the elder has the host."""
    local: bool = field(default=False, compare=False)
    """Of the cluster's own authority: it is as good as another of these for the host."""


# ---- all of it


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in an object that cannot be done, for an event about it: a reason in upstream's manner and a message."""

    source: Source
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one object asks for, as if it were alone in the cluster."""

    routes: tuple[Route, ...] = ()
    listeners: tuple[Listener, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    problems: tuple[Problem, ...] = ()


NOTHING = Contribution()


@dataclass(frozen=True, slots=True)
class Routing:
    """The whole. `routes` holds for each place the routes that can be reached, the first to be tried first: all but the last
    are conditional. Maps of a table that goes on: read them, keep what you need."""

    listeners: Mapping[str, Listener]
    routes: Mapping[Place, tuple[Route, ...]]
    endpoints: Mapping[ServicePort, tuple[Endpoint, ...]]
    certificates: Mapping[tuple[str, Host], Certificate]


@dataclass(frozen=True, slots=True)
class Change:
    """What differs between two states of a Routing, by key: what was changed, has come or has gone."""

    listeners: frozenset[str] = frozenset()
    routes: frozenset[Place] = frozenset()
    endpoints: frozenset[ServicePort] = frozenset()
    certificates: frozenset[tuple[str, Host]] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.listeners or self.routes or self.endpoints or self.certificates)
