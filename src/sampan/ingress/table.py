"""The routing table: what each object contributes, who has a place that several ask for, and what changed.

The cost of a change is that of the object that changed: nothing here walks over the others.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace

from sampan.ingress.route_options import NO_OPTIONS, Options, Timeouts
from sampan.ingress.types import (
    NOTHING,
    Certificate,
    Change,
    Contribution,
    Endpoint,
    Host,
    Listener,
    Owner,
    Place,
    Policy,
    Problem,
    Route,
    Routing,
    ServicePort,
    Source,
)

CONFLICT = "Conflict"
"""Reason of the event for a rule whose place another object has."""
NO_BASE = "CanaryWithoutBase"
"""Reason of the event for a canary that is beside no rule of its namespace."""

_CertificateKey = tuple[str, Host]


class RoutingTable:
    """Holds contributions by owner and the Routing that follows from them. Not thread-safe."""

    def __init__(self) -> None:
        self._contributions: dict[Owner, Contribution] = {}
        self._claims: dict[Place, list[Route]] = {}
        self._certificate_claims: dict[_CertificateKey, list[Certificate]] = {}
        self._listener_claims: dict[str, dict[Owner, Listener]] = {}
        self._fixed: dict[str, Listener] = {}
        self._listeners: dict[str, Listener] = {}
        self._routes: dict[Place, tuple[Route, ...]] = {}
        self._endpoints: dict[ServicePort, tuple[Endpoint, ...]] = {}
        self._certificates: dict[_CertificateKey, Certificate] = {}
        self._uses: dict[ServicePort, int] = {}
        self._changed_places: set[Place] = set()
        self._changed_endpoints: set[ServicePort] = set()
        self._changed_certificates: set[_CertificateKey] = set()
        self._changed_listeners: set[str] = set()
        self.routing = Routing(self._listeners, self._routes, self._endpoints, self._certificates)

    def __contains__(self, owner: Owner) -> bool:
        return owner in self._contributions

    def contribution(self, owner: Owner) -> Contribution:
        """What an object asked for last; NOTHING where it asked for nothing."""
        return self._contributions.get(owner, NOTHING)

    def set_listeners(self, listeners: Iterable[Listener]) -> None:
        """The listeners that are there whatever objects say."""
        before, self._fixed = self._fixed, {one.name: one for one in listeners}
        for name in before.keys() | self._fixed.keys():
            self._settle_listener(name)

    def update(self, owner: Owner, contribution: Contribution) -> frozenset[Owner]:
        """Have `contribution` in place of what this owner gave before; NOTHING takes it away. Returns the owners whose
        conflicts may be others now, itself not among them."""
        old = self._contributions.get(owner, NOTHING)
        if old == contribution:
            return frozenset()
        if contribution == NOTHING:
            self._contributions.pop(owner, None)
        else:
            self._contributions[owner] = contribution
        touched = self._update_routes(owner, old.routes, contribution.routes)
        touched |= self._update_certificates(old.certificates, contribution.certificates)
        for name in {one.name for one in (*old.listeners, *contribution.listeners)}:
            claims = self._listener_claims.setdefault(name, {})
            claims.pop(owner, None)
            for one in contribution.listeners:
                if one.name == name:
                    claims[owner] = one
            if not claims:
                del self._listener_claims[name]
            self._settle_listener(name)
        return frozenset(touched - {owner})

    def set_endpoints(self, port: ServicePort, endpoints: Sequence[Endpoint]) -> None:
        """What is behind a Service port. Those of ports that no route leads to need not be told."""
        new = tuple(endpoints)
        if self._endpoints.get(port, ()) == new:
            return
        if new:
            self._endpoints[port] = new
        else:
            self._endpoints.pop(port, None)
        self._changed_endpoints.add(port)

    def in_use(self, port: ServicePort) -> bool:
        """Whether some contribution leads to this port."""
        return port in self._uses

    def take_change(self) -> Change:
        """What changed since this was asked last."""
        change = Change(
            frozenset(self._changed_listeners),
            frozenset(self._changed_places),
            frozenset(self._changed_endpoints),
            frozenset(self._changed_certificates),
        )
        for one in (
            self._changed_listeners,
            self._changed_places,
            self._changed_endpoints,
            self._changed_certificates,
        ):
            one.clear()
        return change

    def conflicts(self, owner: Owner) -> list[Problem]:
        """For each rule of an object that has no effect since another one has the place, and each certificate that is not shown since
        another one is: who has it."""
        found = self._certificate_conflicts(owner)
        for route in self._contributions.get(owner, NOTHING).routes:
            winners = self._routes.get(route.place, ())
            if any(route is w for w in winners):
                continue
            if route.canary is not None and _has_base(route, winners):
                continue  # it is there, guarded as its base
            if route.canary is not None:
                what = f"host {route.place.host} and path {route.place.path}"
                message = (
                    f"no Ingress of this namespace has {what} without being a canary: this one gets nothing"
                )
                found.append(Problem(route.source, NO_BASE, f"{route.source.field}: {message}"))
                continue
            winner = winners[-1]
            if route.place.default and not route.place.host.name and winner.source.owner != owner:
                what = "the default backend"
            else:
                what = f"host {route.place.host} and path {route.place.path}"
            by = "a rule before it" if winner.source.owner == owner else str(winner.source)
            found.append(
                Problem(route.source, CONFLICT, f"{route.source.field}: {what}: {by} has it and goes first")
            )
        return found

    def _certificate_conflicts(self, owner: Owner) -> list[Problem]:
        found = []
        for one in self._contributions.get(owner, NOTHING).certificates:
            first = self._certificate_claims[one.scope, one.host][0]
            if first.chain == one.chain or (first.local and one.local):
                continue
            by = "that of an entry before it" if first.source.owner == owner else f"that of {first.source}"
            why = f"{one.source.field}: the certificate for host {one.host}: {by} is shown, for it goes first"
            found.append(Problem(one.source, CONFLICT, why))
        return found

    def _update_routes(self, owner: Owner, old: Sequence[Route], new: Sequence[Route]) -> set[Owner]:
        places = {r.place for r in (*old, *new)}
        gone = {id(r) for r in old}
        for place in {r.place for r in old}:
            self._claims[place] = [r for r in self._claims[place] if id(r) not in gone]
        for route in new:
            insort(self._claims.setdefault(route.place, []), route, key=_order)
        self._count(old, -1)
        self._count(new, 1)
        touched: set[Owner] = set()
        for place in places:
            before = self._routes.get(place, ())
            self._settle(place)
            if _who(before) != _who(self._routes.get(place, ())):
                touched.update(r.source.owner for r in self._claims.get(place, ()))
        return touched

    def _settle(self, place: Place) -> None:
        claims = self._claims[place]
        if not claims:
            del self._claims[place]
            if self._routes.pop(place, None) is not None:
                self._changed_places.add(place)
            return
        first = next((i for i, route in enumerate(claims) if not route.conditional), len(claims) - 1)
        reached = claims[: first + 1]
        # A canary takes of what is its own namespace's, never of another one's.
        settled = tuple(
            r if r.canary is None else _guarded(r, reached[-1])
            for r in reached
            if r.canary is None or _has_base(r, reached)
        )
        if self._routes.get(place, ()) != settled:
            self._changed_places.add(place)
        if settled:
            self._routes[place] = settled
        else:
            self._routes.pop(place, None)

    def _count(self, routes: Sequence[Route], by: int) -> None:
        for route in routes:
            for backend in route.backends:
                port = backend.port
                left = self._uses.get(port, 0) + by
                if left:
                    self._uses[port] = left
                else:
                    del self._uses[port]

    def _update_certificates(self, old: Sequence[Certificate], new: Sequence[Certificate]) -> set[Owner]:
        gone = {id(c) for c in old}
        keys = {(c.scope, c.host) for c in (*old, *new)}
        touched: set[Owner] = set()
        before = {key: _shown(self._certificate_claims.get(key)) for key in keys}
        for key in {(c.scope, c.host) for c in old}:
            self._certificate_claims[key] = [c for c in self._certificate_claims[key] if id(c) not in gone]
        for one in new:
            claims = self._certificate_claims.setdefault((one.scope, one.host), [])
            insort(claims, one, key=lambda c: (c.created, c.source))
        for key in keys:
            claims = self._certificate_claims[key]
            if _shown(claims) != before[key]:
                touched.update(c.source.owner for c in claims)
            if not claims:
                del self._certificate_claims[key]
                if self._certificates.pop(key, None) is not None:
                    self._changed_certificates.add(key)
            elif self._certificates.get(key) != claims[0]:
                self._certificates[key] = claims[0]
                self._changed_certificates.add(key)
        return touched

    def _settle_listener(self, name: str) -> None:
        claims = self._listener_claims.get(name, {})
        wanted = self._fixed.get(name) or (claims[min(claims)] if claims else None)
        if self._listeners.get(name) == wanted:
            return
        if wanted is None:
            del self._listeners[name]
        else:
            self._listeners[name] = wanted
        self._changed_listeners.add(name)


def _shown(claims: Sequence[Certificate] | None) -> tuple[str, Source, bool] | None:
    """What conflicts say of the certificate that is shown of several."""
    return (claims[0].chain, claims[0].source, claims[0].local) if claims else None


def _has_base(canary: Route, beside: Sequence[Route]) -> bool:
    """Whether what a canary shall take a share of is there: the route of the place that all others go to, of its namespace."""
    if not beside or beside[-1].conditional:
        return False
    return beside[-1].source.namespace == canary.source.namespace


def _who(winners: Sequence[Route]) -> list[tuple[Source, bool]]:
    """What `conflicts` says of the routes that have a place."""
    return [(route.source, route.conditional) for route in winners]


def _guarded(canary: Route, base: Route) -> Route:
    """A canary with what keeps people out of its base, where it has none of its own: it would be a way around."""
    if base.closed:
        return replace(canary, targets=(), status=503, closed=True)
    if canary.canary is not None and canary.canary.inherits:
        return _inherited(canary, base)
    own, its = canary.options, base.options
    options = replace(
        own,
        https_only=own.https_only or its.https_only,
        max_body=own.max_body or its.max_body,
        auth=own.auth or its.auth,
        rate_limit=own.rate_limit or its.rate_limit,
        allow=own.allow or its.allow,
        deny=own.deny or its.deny,
    )
    return replace(canary, options=options)


def _inherited(canary: Route, base: Route) -> Route:
    """A canary with all that its base has, but for what it has of its own."""
    own = {f.name: getattr(canary.options, f.name) for f in fields(Options)}
    asked = {name: value for name, value in own.items() if value != getattr(NO_OPTIONS, name)}
    if canary.options.timeouts and base.options.timeouts:
        asked["timeouts"] = _either(canary.options.timeouts, base.options.timeouts)
    targets = canary.targets
    if canary.said is None and base.said is not None:
        targets = tuple(
            replace(t, backend=replace(t.backend, policy=_spoken(t.backend.policy, base.said)))
            for t in targets
        )
    return replace(canary, options=replace(base.options, **asked), targets=targets)


def _either(own: Timeouts, others: Timeouts) -> Timeouts:
    return Timeouts(
        own.connect or others.connect, own.response or others.response, own.tunnel or others.tunnel
    )


def _spoken(policy: Policy, like: Policy) -> Policy:
    """A policy with what is spoken by another one."""
    return replace(policy, protocol=like.protocol, tls=like.tls)


def _order(route: Route) -> tuple[bool, tuple[int | str, ...]]:
    return not route.conditional, route.precedence
