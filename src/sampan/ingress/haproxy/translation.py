"""From the routing to HAProxy's words: which name a route has, which backend serves which Service port, which operations
take the proxy from one state to the next.

A route's name is never given again: a request that found it finds what belongs to it, or nothing. So what is new is added
first, then hosts and paths are switched over one by one, each atomically, and what nobody can find any more is
removed later. Where spare backends run out (`structure`) there are twice as many after the next reload.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import quote

from sampan.ingress.haproxy import candidates, certificates, options
from sampan.ingress.haproxy.content import (
    LONGEST,
    AddServer,
    Content,
    DeleteEntry,
    Operation,
    RemoveServer,
    Section,
    Server,
    SetEntry,
    SetServer,
)
from sampan.ingress.haproxy.pattern_order import Patterns
from sampan.ingress.haproxy.spare_backends import SPARE, SpareBackends
from sampan.ingress.types import (
    Backend,
    Change,
    Endpoint,
    EndpointState,
    Host,
    PathKind,
    Place,
    Route,
    Routing,
    ServicePort,
)


@dataclass(slots=True)
class Step:
    """What one change takes: `now` at once and in this order, `later` when requests under way have found what they look for.
    With `structure` it takes a reload, which brings all of it."""

    now: list[Operation] = field(default_factory=list)
    later: list[Operation] = field(default_factory=list)
    structure: bool = False


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a proxy that begins anew shall have: `content` without what is superfluous."""

    content: Content
    superfluous: tuple[Operation, ...]
    drained: frozenset[tuple[str, str]]


def plain(text: str) -> str:
    """Text as it may stand in a map, a command and a line of the log: what could end a word there is percent-encoded. What is
    written so already stays as it is."""
    return quote(text.encode(errors="surrogatepass"), safe="/:@!$&'()*+,;=-._~%|[]")


def key_of(place: Place) -> tuple[str, str]:
    """The map that a place is in, and its key there. Of a regular expression: the key of its host in the map of hosts."""
    host = plain(f"{place.scope}|{place.host}")
    if place.default:
        return "default", host
    if place.path.kind is PathKind.EXACT:
        return "exact", host + plain(place.path.value)
    if place.path.kind is PathKind.REGEX:
        return "hosts", host
    return "prefix", f"{host}{plain(place.path.value)}/"


@dataclass(frozen=True, slots=True)
class Upstream:
    """A backend, reached in one manner: one section of HAProxy."""

    backend: Backend
    section: Section


NOWHERE = Backend(ServicePort("", "", 0))
"""For routes with options that lead to no Service."""


@dataclass(slots=True)
class _Shown:
    """What a place leads to: the name that stands in the map, its routes, and all that goes with them."""

    name: str
    routes: tuple[Route, ...]
    entries: list[tuple[str, str]] = field(default_factory=list)
    upstreams: list[Upstream] = field(default_factory=list)


class Translation:
    """Keeps what has been translated. `content` is what the proxy shall hold once all operations are done."""

    def __init__(self, spare: int = SPARE) -> None:
        self.content = Content()
        self._number = 0
        self._shown: dict[Place, _Shown] = {}
        self._patterns = Patterns()
        self._backends: dict[Upstream, str] = {}
        self._users: dict[Upstream, int] = {}
        self._lists: dict[str, int] = {}
        """How many routes use a list of users."""
        self._of_port: dict[ServicePort, set[Upstream]] = {}
        self._spare = SpareBackends(self.content, spare)
        self._servers: dict[str, dict[tuple[str, int], str]] = {}
        """Backend name -> endpoint -> server name, of those that get requests."""
        self._certificates = certificates.Certificates(self.content.certificates)

    def step(self, routing: Routing, change: Change) -> Step:
        """The operations for a change. Costs what the change is large."""
        step = Step()
        if change.listeners:
            self.content.listeners = dict(routing.listeners)
            self.content.maps["scopes"] = {
                plain(f"{one.scope}|{host}"): plain(scope)
                for one in routing.listeners.values()
                for host, scope in one.hosts
            }
            step.structure = True
        lists = certificates.lists(self.content.listeners.values())
        for scope, host in change.certificates:
            self._certificate(scope, host, routing, lists, step)
        gone: list[Upstream] = []
        switch: list[Operation] = []
        for place in change.routes:
            self._place(place, routing, step, switch, gone)
        for port in change.endpoints:
            for backend in self._of_port.get(port, ()):
                self._endpoints(backend, routing.endpoints.get(port, ()), step)
        step.now += switch
        for upstream in gone:
            self._release(upstream, step)
        self.content.apply(step.now)
        return step

    def settle(self, operations: Iterable[Operation]) -> None:
        """Operations of `later` are done, or need not be any more."""
        _settle(self.content, operations := list(operations))
        for op in operations:
            if isinstance(op, RemoveServer):
                self._spare.removed(op.backend)
            elif isinstance(op, DeleteEntry) and op.map == "services":
                self._spare.removed(op.key)

    def renew(self, superfluous: Iterable[Operation]) -> Renewal:
        """For a proxy that begins anew. `superfluous`: the operations of `later` that are not done."""
        renewal = Renewal(self.content.copy(), tuple(superfluous), frozenset(self.content.drained))
        _settle(renewal.content, renewal.superfluous)
        renewal.content.forget(renewal.drained)
        return renewal

    def renewed(self, renewal: Renewal) -> None:
        """The proxy has begun so. What has been translated meanwhile comes on top."""
        self.settle(renewal.superfluous)
        self.content.forget(renewal.drained)
        for backend, _ in renewal.drained:
            self._spare.removed(backend)
        self._spare.forget_rare()

    # -- certificates

    def drop_certificates(self, complaint: str) -> bool:
        """Leave out those that HAProxy complains of. Returns whether there are any."""
        dropped = self._certificates.drop(complaint)
        for scope, host in dropped:
            self.content.maps["certificates"].pop(plain(f"{scope}|{host or '*'}"), None)
        return bool(dropped)

    def _certificate(self, scope: str, host: Host, routing: Routing, lists: set[str], step: Step) -> None:
        wanted = routing.certificates.get((scope, host))
        op = self._certificates.set(scope, host, wanted)
        if op is None:
            return
        if op.list not in lists:  # nobody is shown it: the listener will bring it
            self.content.apply((op,))
        else:
            step.now.append(op)
            step.structure |= isinstance(op, certificates.SetCertificate) and len(op.pem) > certificates.MOST
        key = plain(f"{scope}|{host}")
        if wanted is None:
            step.now.append(DeleteEntry("certificates", key))
        else:
            there = key in self.content.maps["certificates"]
            step.now.append(SetEntry("certificates", key, certificates.chain_of(wanted), not there))

    # -- routes

    def _place(
        self, place: Place, routing: Routing, step: Step, switch: list[Operation], gone: list[Upstream]
    ) -> None:
        if len(key_of(place)[1]) + len(place.path.value) > LONGEST:
            return  # refused where it was read
        routes = routing.routes.get(place, ())
        before = self._shown.get(place)
        if (before.routes if before else ()) == routes:
            return
        if routes:
            shown = self._shown[place] = self._show(routes, routing, step)
            self._switch(place, shown.name, before is None, step, switch)
        else:
            del self._shown[place]
            self._switch(place, "", False, step, switch)
        if before is not None:
            step.later += [DeleteEntry(*entry) for entry in before.entries]
            self._count_users(before.routes, -1)
            self._count_mirrored(before.routes, -1)
            for upstream in before.upstreams:
                self._users[upstream] -= 1
                if not self._users[upstream]:
                    gone.append(upstream)

    def _switch(self, place: Place, name: str, new: bool, step: Step, switch: list[Operation]) -> None:
        where, key = key_of(place)
        if where == "hosts":
            self._patterns.switch(key, place.path.value, name, step.now, switch, step.later)
        elif name:
            switch.append(SetEntry(where, key, name, new))
        else:
            switch.append(DeleteEntry(where, key))

    def _show(self, routes: tuple[Route, ...], routing: Routing, step: Step) -> _Shown:
        named: list[tuple[str, Route]] = []
        shown = _Shown("", routes)
        entries: list[options.Entry] = []
        for route in routes:
            self._number += 1
            name = f"r{self._number}"
            named.append((name, route))
            source = route.source
            # What is counted of a canary's clients is counted of its base's.
            counted = replace(route, source=routes[-1].source) if route.canary else route
            ways = [(name, counted), *options.ways(name, counted)]
            entries.append(("targets", name, self._targets(dict(ways), name, route, routing, step, shown)))
            entries.append(("sources", name, plain(f"{source.kind}/{source.namespace}/{source.name}")))
            entries += (entry for way, wanted in ways for entry in options.entries(way, wanted))
            if route.mirrors:
                mirrors = self._mirrors(route, routing, step, shown)
                entries += (("settings", f"{way}.mirror", mirrors) for way, _ in ways)
        shown.name = named[0][0]
        if len(named) > 1 or routes[0].conditional:
            self._number += 1
            shown.name = f"c{self._number}"
            entries += candidates.entries(shown.name, named)
        entries = [e for e in entries if len(e[1]) + len(e[2]) <= LONGEST]
        step.now += [SetEntry(where, key, value, True) for where, key, value in entries]
        shown.entries = [(where, key) for where, key, _ in entries]
        step.structure |= self._count_users(routes, 1)
        step.structure |= self._count_mirrored(routes, 1)
        return shown

    def _count_users(self, routes: tuple[Route, ...], by: int) -> bool:
        """Whether a list of users is there that was not."""
        new = False
        for auth in (r.options.auth for r in routes if r.options.auth):
            name = options.name_of("u", auth.users)
            count = self._lists.get(name, 0) + by
            if count:
                new |= name not in self._lists
                self._lists[name] = count
                self.content.users[name] = auth.users
            else:
                del self._lists[name], self.content.users[name]
        return new

    def _targets(
        self, ways: Mapping[str, Route], own: str, route: Route, routing: Routing, step: Step, shown: _Shown
    ) -> str:
        """`b1`, `b1:90,b2@r3t1:10`, or `=503`: backends by weight, or the status to answer with. Behind an @ is under which name the
        options of a way of its own stand."""
        weighed = []
        for i, target in enumerate(route.targets):
            way = options.way(own, i) if target.options is not None else own
            section = options.section_of(ways[way], target.backend.policy)
            upstream = self._use(Upstream(target.backend, section), shown)
            name = self._backend(upstream, route, routing, step)
            if target.weight > 0:
                weighed.append((name if way == own else f"{name}@{way}", target.weight))
        if not weighed:
            section = options.section_of(route, NOWHERE.policy)
            if section.options and route.status != 500:
                return self._backend(self._use(Upstream(NOWHERE, section), shown), route, routing, step)
            return f"={route.status or (503 if route.targets else 500)}"
        if route.lost:
            weighed.append((f"={route.status or 500}", route.lost))
        if len(weighed) == 1:
            return weighed[0][0]
        return ",".join(f"{name}:{weight}" for name, weight in weighed)

    def _mirrors(self, route: Route, routing: Routing, step: Step, shown: _Shown) -> str:
        """`b1=1=1,b2=10=100`: backends, and how many of how many requests each gets."""
        found = []
        for mirror in route.mirrors:
            upstream = Upstream(mirror.backend, Section(copies=True))
            name = self._backend(self._use(upstream, shown), route, routing, step)
            found.append(f"{name}={mirror.part}={mirror.whole}")
        return ",".join(found)

    def _count_mirrored(self, routes: tuple[Route, ...], by: int) -> bool:
        """Whether there are copies of requests for the first time."""
        if not any(r.mirrors for r in routes):
            return False
        self.content.mirrored += by
        return self.content.mirrored == by == 1

    def _use(self, upstream: Upstream, shown: _Shown) -> Upstream:
        self._users[upstream] = self._users.get(upstream, 0) + 1
        shown.upstreams.append(upstream)
        return upstream

    # -- backends

    def _backend(self, upstream: Upstream, route: Route, routing: Routing, step: Step) -> str:
        name = self._backends.get(upstream)
        if name is not None:
            return name
        backend, section = upstream.backend, upstream.section
        if section.pages:
            self.content.pages[section.pages] = route.options.error_pages
        if section.authority and backend.policy.tls:
            self.content.authorities[section.authority] = backend.policy.tls.ca
        name, new = self._spare.take(section)
        step.structure |= new
        self._backends[upstream] = name
        self._of_port.setdefault(backend.port, set()).add(upstream)
        called = plain(str(backend.port)) if backend != NOWHERE else "-"
        step.now.append(SetEntry("services", name, called, True))
        self._endpoints(upstream, routing.endpoints.get(backend.port, ()), step)
        return name

    def _release(self, upstream: Upstream, step: Step) -> None:
        if self._users.get(upstream):
            return  # another route of this change leads to it
        self._users.pop(upstream, None)
        name = self._backends.pop(upstream, None)
        if name is None:
            return
        port = upstream.backend.port
        self._of_port[port].discard(upstream)
        if not self._of_port[port]:
            del self._of_port[port]
        have = self._servers.pop(name, {})
        for address, server in have.items():
            self._leave(upstream, name, server, address, "maint", step)
        self._spare.leave(name)
        step.later.append(DeleteEntry("services", name))

    # -- endpoints

    def _endpoints(self, upstream: Upstream, endpoints: tuple[Endpoint, ...], step: Step) -> None:
        name, words = self._backends[upstream], options.server_words(upstream.backend)
        have = self._servers.setdefault(name, {})
        want = {(e.address, e.port): e for e in endpoints if e.state is EndpointState.READY}
        draining = {(e.address, e.port) for e in endpoints if e.state is EndpointState.DRAINING}
        for address, endpoint in want.items():
            pod = plain(f"{upstream.backend.port.namespace}/{endpoint.pod}") if endpoint.pod else "-"
            if address in have:
                key = f"{name}/{have[address]}"
                # On the host's network one pod follows another at the same address.
                if self.content.maps["pods"].get(key, pod) != pod:
                    step.now.append(SetEntry("pods", key, pod, False))
                continue
            self._number += 1
            server = f"s{self._number}"
            have[address] = server
            step.now.append(SetEntry("pods", f"{name}/{server}", pod, True))
            step.now.append(AddServer(name, server, Server(endpoint.address, endpoint.port, words)))
            step.now.append(SetServer(name, server, "ready"))
            if upstream.section.sticky:
                token = _token(address)
                step.now.append(SetEntry("cookies", f"{name}/{server}", token, True))
                step.now.append(SetEntry("cookies", f"{name}/{token}", server, True))
        for address in [a for a in have if a not in want]:
            state: Literal["drain", "maint"] = "drain" if address in draining else "maint"
            self._leave(upstream, name, have.pop(address), address, state, step)

    def _leave(
        self,
        upstream: Upstream,
        name: str,
        server: str,
        address: tuple[str, int],
        state: Literal["drain", "maint"],
        step: Step,
    ) -> None:
        """A server gets nothing more, and goes later."""
        if upstream.section.sticky:
            # From here on its cookie means nothing.
            step.now.append(DeleteEntry("cookies", f"{name}/{_token(address)}"))
            step.later.append(DeleteEntry("cookies", f"{name}/{server}"))
        if state == "drain" or upstream in self._backends:
            step.now.append(SetServer(name, server, state))
        step.later += [SetServer(name, server, "maint"), RemoveServer(name, server)]
        step.later.append(DeleteEntry("pods", f"{name}/{server}"))


def _settle(content: Content, operations: Iterable[Operation]) -> None:
    for op in operations:
        if isinstance(op, SetServer | RemoveServer) and op.name not in content.servers.get(op.backend, ()):
            continue
        content.apply((op,))


def _token(address: tuple[str, int]) -> str:
    """What a cookie says of an endpoint: the same on every node, and no address."""
    return hashlib.sha256(f"{address[0]} {address[1]}".encode()).hexdigest()[:20]
