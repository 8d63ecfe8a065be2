"""HTTPRoutes and GRPCRoutes: which listeners they attach to, and what they contribute to the routing there.

Nothing that a route asks for is left out without a word: a rule that cannot be had as it is written is answered with 500, and the
condition PartiallyInvalid (or Accepted, if it is all of them) says why. So is the share of backends that cannot be had. A match that
cannot be had is for no request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sampan.api import selectors
from sampan.api.errors import Object
from sampan.api.gateway_duration import milliseconds
from sampan.ingress import patterns
from sampan.ingress.endpoints import port_of
from sampan.ingress.gateway_filters import Unsupported, options, share
from sampan.ingress.gateway_references import GROUP, Granted
from sampan.ingress.gateways import (
    ACCEPTED,
    RESOLVED,
    GatewayState,
    ListenerState,
    Verdict,
    generation,
    hosts,
)
from sampan.ingress.ingresses import ServiceLookup, canonical_path
from sampan.ingress.route_options import Options, Timeouts
from sampan.ingress.types import (
    EVERY_PATH,
    NOTHING,
    Backend,
    Condition,
    Contribution,
    Host,
    Mirror,
    Path,
    PathKind,
    Place,
    Policy,
    Protocol,
    Route,
    ServicePort,
    Source,
    Target,
)

NamespaceLabels = Callable[[str], Mapping[str, str] | None]
"""The labels of a namespace, None if there is no such."""
GatewayLookup = Callable[[str, str], GatewayState | None]
"""The state of a Gateway of ours."""

_EVER = 2_000_000_000
"""Milliseconds, 23 days: about the longest that a proxy can wait. It takes longer times modulo 2^32."""
_PROTOCOLS: dict[str, Protocol] = {
    "": "http",
    "http": "http",
    "grpc": "h2c",  # no name of the standard's, but what many charts call it
    "kubernetes.io/h2c": "h2c",
    "kubernetes.io/ws": "http",
}


@dataclass(frozen=True, slots=True)
class Parent:
    """What one parentRef of a route comes to: None as `accepted` where it is of no Gateway of ours."""

    reference: Object
    accepted: Verdict
    listeners: tuple[tuple[str, ListenerState, tuple[Host, ...]], ...] = ()
    """Gateway (`namespace/name`), listener, and the hosts in common."""


@dataclass(slots=True)
class RouteState:
    """A route, read: its parents that are Gateways of ours, and its verdicts."""

    parents: list[Parent] = field(default_factory=list)
    resolved: Verdict = RESOLVED
    invalid: Verdict | None = None
    """Rules that cannot be had as they are written."""
    contribution: Contribution = NOTHING
    generation: int = 0
    """Of the route that was read: there may be a newer one."""


@dataclass(frozen=True, slots=True)
class World:
    """What a route is looked at beside."""

    gateway: GatewayLookup
    service: ServiceLookup
    granted: Granted
    labels: NamespaceLabels


def gateways_of(route: Object) -> Iterable[str]:
    """`namespace/name` of the Gateways that a route refers to; for an index."""
    own = route["metadata"].get("namespace", "")
    refs = (route.get("spec") or {}).get("parentRefs") or ()
    return sorted({f"{r.get('namespace') or own}/{r['name']}" for r in refs if _is_gateway(r)})


def _is_gateway(ref: Object) -> bool:
    return bool(ref.get("group", GROUP) == GROUP and ref.get("kind", "Gateway") == "Gateway")


def read(route: Object, world: World) -> RouteState:
    """What a route comes to."""
    state = RouteState(generation=generation(route))
    namespace = route["metadata"]["namespace"]
    for ref in route["spec"].get("parentRefs") or ():
        found = world.gateway(ref.get("namespace") or namespace, ref["name"]) if _is_gateway(ref) else None
        if found is not None:
            state.parents.append(_attach(route, ref, found, world.labels))
    if not state.parents:
        return state
    rules = _Rules(route, world)
    state.resolved, state.invalid = rules.resolved, rules.invalid
    attached = [p for p in state.parents if p.accepted.status]
    if rules.invalid is not None and len(rules.broken) == len(rules.rules):
        # Its requests are answered with an error all the same: else they would go, without the filter that was asked for, wherever a
        # more general route leads.
        refused = replace(rules.invalid, status=False)
        state.parents = [replace(p, accepted=refused) if p.accepted.status else p for p in state.parents]
        state.invalid = None
    listeners = {
        (one.scope, host): one
        for parent in attached
        for _, one, found in parent.listeners
        if one.works
        for host in found
    }
    routes = [r for (scope, host), one in listeners.items() for r in rules.at(scope, host, one)]
    state.contribution = Contribution(routes=tuple(routes))
    return state


# ---- attachment


def _attach(route: Object, ref: Object, gateway: GatewayState, labels: NamespaceLabels) -> Parent:
    namespace = route["metadata"]["namespace"]
    named = [
        one
        for one in gateway.listeners
        if ref.get("sectionName") in (None, one.name) and ref.get("port") in (None, one.port)
    ]
    if not named:
        where = f"section {ref['sectionName']}" if ref.get("sectionName") else f"port {ref.get('port')}"
        message = f"Gateway {gateway.namespace}/{gateway.name} has no listener of {where}"
        return Parent(ref, Verdict(False, "NoMatchingParent", message))
    allowing = [
        one
        for one in named
        if route["kind"] in one.kinds and _allows(one.allowed, gateway.namespace, namespace, labels)
    ]
    if not allowing:
        message = f"no listener allows {route['kind']}s of namespace {namespace}"
        return Parent(ref, Verdict(False, "NotAllowedByListeners", message))
    wanted = route["spec"].get("hostnames") or ()
    key = f"{gateway.namespace}/{gateway.name}"
    found = tuple((key, one, common) for one in allowing if (common := hosts(one.hostname, wanted)))
    if not found:
        has = ", ".join(one.hostname for one in allowing)
        message = f"no listener is for any of {', '.join(wanted)}; they are for {has}"
        return Parent(ref, Verdict(False, "NoMatchingListenerHostname", message))
    return Parent(ref, ACCEPTED, found)


def _allows(allowed: Object, own: str, namespace: str, labels: NamespaceLabels) -> bool:
    match allowed.get("from", "Same"):
        case "All":
            return True
        case "Selector":
            found = labels(namespace)
            return found is not None and selectors.from_object(allowed.get("selector") or {}).matches(found)
        case _:
            return own == namespace


# ---- rules


@dataclass(frozen=True, slots=True)
class _Match:
    """A match without its host: what is asked of path, method, headers and query."""

    path: Path
    method: str = ""
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule, read. `lost` is the weight of backends that cannot be had."""

    matches: dict[int, _Match]
    """By index."""
    targets: tuple[Target, ...]
    mirrors: tuple[Mirror, ...]
    lost: int
    options: Options


class _Rules:
    """The rules of one route, read once for all its listeners."""

    def __init__(self, route: Object, world: World) -> None:
        self._route = route
        self._world = world
        self._namespace: str = route["metadata"]["namespace"]
        self.rules: list[Object] = route["spec"].get("rules") or []
        self.broken: dict[int, str] = {}
        """By index of the rule: what in it cannot be had."""
        self.resolved = RESOLVED
        self._read = [self._rule(i, rule) for i, rule in enumerate(self.rules)]

    @property
    def invalid(self) -> Verdict | None:
        if not self.broken:
            return None
        what = "; ".join(f"Dropped Rule {i}: {why}" for i, why in self.broken.items())
        return Verdict(True, "UnsupportedValue", what)

    def at(self, scope: str, host: Host, listener: ListenerState) -> Iterator[Route]:
        """The routes for one host of a listener."""
        meta = self._route["metadata"]
        grpc = self._route["kind"] == "GRPCRoute"
        for i, rule in enumerate(self._read):
            for j, match in rule.matches.items():
                source = Source(
                    self._route["kind"], self._namespace, meta["name"], f"spec.rules[{i}].matches[{j}]"
                )
                place = Place(scope, host, match.path)
                own, mirrors = _of_listener(rule.options, listener), rule.mirrors
                targets = tuple(
                    replace(t, options=_of_listener(t.options, listener)) if t.options else t
                    for t in rule.targets
                )
                if i in self.broken:
                    targets, mirrors, own = (), (), Options()
                yield Route(
                    place,
                    targets,
                    source,
                    self._precedence(match, i, j),
                    match.method,
                    match.conditions,
                    own,
                    # A redirect is an answer. gRPC's clients take 503 for UNAVAILABLE, which it has to be for them.
                    status=0 if own.redirect is not None else 503 if grpc else 500,
                    lost=rule.lost,
                    mirrors=mirrors,
                )

    def _precedence(self, match: _Match, i: int, j: int) -> tuple[int | str, ...]:
        """Method (a longer one of gRPC first, of HTTP only one is met), then the most headers, then the most query parameters; then age, then `namespace/name`, and the order in the route."""
        meta = self._route["metadata"]
        headers, queries = (sum(c.where == w for c in match.conditions) for w in ("header", "query"))
        method = sum(len(c.value) for c in match.conditions if c.where == "path") or len(match.method)
        created = meta.get("creationTimestamp") or ""
        return (-method, -headers, -queries, created, f"{self._namespace}/{meta['name']}", i, j)

    def _rule(self, i: int, rule: Object) -> _Rule:
        grpc = self._route["kind"] == "GRPCRoute"
        matches: dict[int, _Match] = {}
        found = Options()
        targets: list[Target] = []
        lost = 0
        filters = list(rule.get("filters") or ())
        backends = rule.get("backendRefs") or []
        if len(backends) == 1:
            filters += backends[0].get("filters") or ()
        ways: dict[int, Options] = {}
        given: Object
        for j, given in enumerate(rule.get("matches") or ({},)):
            try:
                matches[j] = _grpc_match(given) if grpc else _http_match(given)
            except (
                Unsupported
            ) as e:  # nobody knows which requests it is for: none, rather than all of the host
                self.broken.setdefault(i, str(e))
        try:
            if grpc and any(f.get("requestMirror") for f in filters):
                raise Unsupported("filters: RequestMirror is not supported for gRPC")
            limit = _timeout(rule.get("timeouts") or {})
            timeouts = Timeouts(response=limit) if limit else None
            path = matches[0].path if 0 in matches else EVERY_PATH
            found = replace(options(filters, path), timeouts=timeouts)
            for j, backend in enumerate(backends if len(backends) > 1 else ()):
                own = backend.get("filters") or ()
                if any(f.get("requestMirror") for f in own):
                    raise Unsupported(
                        "backendRefs[].filters: RequestMirror is supported for a single backend only"
                    )
                if own:
                    ways[j] = replace(options([*filters, *own], path), timeouts=timeouts)
        except Unsupported as e:
            self.broken.setdefault(i, str(e))
        for j, backend in enumerate(backends):
            weight = backend.get("weight", 1)
            target = self._target(backend, f"rules[{i}].backendRefs[{j}]", grpc)
            if target is None:
                lost += weight
            else:
                targets.append(Target(target, weight, ways.get(j)))
        mirrors = []
        for j, one in enumerate(filters):
            if mirror := one.get("requestMirror"):
                target = self._target(mirror["backendRef"], f"rules[{i}].filters[{j}].requestMirror", grpc)
                if target is not None:
                    mirrors.append(Mirror(target, *share(mirror)))
        return _Rule(matches, tuple(targets), tuple(mirrors), lost, found)

    def _unresolved(self, reason: str, message: str) -> None:
        if self.resolved.status:
            self.resolved = Verdict(False, reason, message)
        else:  # all of them are told; the reason is the first one's
            self.resolved = replace(self.resolved, message=f"{self.resolved.message}; {message}")

    def _target(self, ref: Object, at: str, grpc: bool) -> Backend | None:
        kind, where = self._route["kind"], ref.get("namespace") or self._namespace
        if ref.get("group") or ref.get("kind", "Service") != "Service":
            what = f"{ref.get('group') or 'core'}/{ref.get('kind')}"
            self._unresolved("InvalidKind", f"{at}: {what} is not supported: only Services are")
            return None
        name = ref["name"]
        if where != self._namespace and not self._world.granted(
            kind, self._namespace, "Service", where, name
        ):
            message = f"{at}: no ReferenceGrant in {where} allows {kind}s of {self._namespace} to refer to Service {name}"
            self._unresolved("RefNotPermitted", message)
            return None
        service = self._world.service(where, name)
        if service is None:
            self._unresolved("BackendNotFound", f"{at}: there is no Service {where}/{name}")
            return None
        if (service.get("spec") or {}).get("type") == "ExternalName":
            message = f"{at}: Service {where}/{name} is of type ExternalName, which is not supported here"
            self._unresolved("UnsupportedProtocol", message)
            return None
        number: int = ref.get("port") or 0
        port = port_of(service, number)
        if port is None:
            self._unresolved("BackendNotFound", f"{at}: Service {where}/{name} has no port {ref.get('port')}")
            return None
        protocol = _PROTOCOLS.get(port.get("appProtocol") or "")
        if protocol is None or (port.get("protocol") or "TCP") != "TCP":
            message = (
                f"{at}: Service {where}/{name}, port {number}: {port.get('appProtocol') or port['protocol']}"
            )
            self._unresolved("UnsupportedProtocol", message)
            return None
        return Backend(ServicePort(where, name, number), Policy("h2c" if grpc else protocol))


def _of_listener(found: Options, listener: ListenerState) -> Options:
    """A redirect that says neither scheme nor port stays at the listener's."""
    redirect = found.redirect
    if redirect is None or redirect.scheme or redirect.port:
        return found
    return replace(found, redirect=replace(redirect, port=listener.port))


def _timeout(given: Object) -> int:
    """Milliseconds; 0 where nothing is asked for, so that what is usual holds. No time at all stands for no limit, as far as can be."""
    limits = [milliseconds(given[k]) for k in ("request", "backendRequest") if given.get(k)]
    return min((min(one or _EVER, _EVER) for one in limits), default=0)


# ---- matches


def _regex(text: str) -> str:
    if problem := patterns.problem(text):
        raise Unsupported(f"regular expression {text!r}: {problem}")
    return text


def _http_match(match: Object) -> _Match:
    given = match.get("path") or {}
    kind, value = given.get("type") or "PathPrefix", given.get("value") or "/"
    if kind == "Exact":
        path = Path(PathKind.EXACT, canonical_path(value))
    elif kind == "PathPrefix":
        path = Path(PathKind.PREFIX, canonical_path(value).rstrip("/"))
    else:
        path = Path(PathKind.REGEX, f"^(?:{_regex(value)})$")
    query = _conditions("query", match.get("queryParams") or ())
    return _Match(path, match.get("method") or "", _conditions("header", match.get("headers") or ()) + query)


def _grpc_match(match: Object) -> _Match:
    method = match.get("method") or {}
    service, name = method.get("service") or "", method.get("method") or ""
    if method.get("type") == "RegularExpression":
        path = Path(PathKind.REGEX, f"^/(?:{_regex(service or '[^/]+')})/(?:{_regex(name or '[^/]+')})$")
    elif service and name:
        path = Path(PathKind.EXACT, f"/{service}/{name}")
    elif service:
        path = Path(PathKind.PREFIX, f"/{service}")
    else:
        path = EVERY_PATH
    conditions = _conditions("header", match.get("headers") or ())
    if name and path is EVERY_PATH:
        # A method of any service: behind all rules for services, of however long a name.
        conditions = (Condition("path", "path", f"/[^/]+/{name}", regex=True), *conditions)
    return _Match(path, "", conditions)


def _conditions(where: str, given: Sequence[Object]) -> tuple[Condition, ...]:
    """One a name: of several headers whose names differ in case only the first counts."""
    found: dict[str, Condition] = {}
    for one in given:
        name = one["name"].lower() if where == "header" else one["name"]
        regex = one.get("type") == "RegularExpression"
        value = _regex(one["value"]) if regex else one["value"]
        found.setdefault(name, Condition("header" if where == "header" else "query", name, value, regex))
    return tuple(found.values())
