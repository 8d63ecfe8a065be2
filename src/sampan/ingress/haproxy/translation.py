"""From the routing to HAProxy's words: which name a route has, which backend serves which Service port, which operations
take the proxy from one state to the next.

A route's name is never given again: a request that found it finds what belongs to it, or nothing. So what is new is added
first, then hosts and paths are switched over one by one, each atomically, and what nobody can find any more is
removed later. HAProxy 2.6 cannot add a backend while it runs: there are spare ones, and when they run out (`structure`)
there are twice as many after the next reload.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote

from sampan.ingress.haproxy.content import (
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
from sampan.ingress.types import (
    Backend,
    Change,
    Endpoint,
    EndpointState,
    PathKind,
    Place,
    Policy,
    Route,
    Routing,
    ServicePort,
)

SPARE = 64
"""Backends of the usual section to begin with."""


@dataclass(slots=True)
class Step:
    """What one change takes: `now` at once and in this order, `later` when requests under way have found what they look for.
    With `structure` it takes a reload, which brings all of it."""

    now: list[Operation] = field(default_factory=list)
    later: list[Operation] = field(default_factory=list)
    structure: bool = False


def section_of(policy: Policy) -> Section:
    return Section(policy.balance)


def server_words(policy: Policy) -> str:
    """What a server line needs for the protocol."""
    match policy.protocol:
        case "h2c":
            return "proto h2"
        case "https":
            return "ssl verify none"
        case "h2":
            return "ssl verify none alpn h2"
        case _:
            return ""


def plain(text: str) -> str:
    """Text as it may stand in a map, a command and a line of the log: what could end a word there is percent-encoded. What is
    written so already stays as it is."""
    return quote(text.encode(errors="surrogatepass"), safe="/:@!$&'()*+,;=-._~%|[]")


def key_of(place: Place) -> tuple[str, str]:
    """The map that a place is in, and its key there."""
    host = plain(f"{place.scope}|{place.host}")
    if place.default:
        return "default", host
    if place.path.kind is PathKind.EXACT:
        return "exact", host + plain(place.path.value)
    return "prefix", f"{host}{plain(place.path.value)}/"


class Translation:
    """Keeps what has been translated. `content` is what the proxy shall hold once all operations are done."""

    def __init__(self, spare: int = SPARE) -> None:
        self.content = Content()
        self._spare = spare
        self._number = 0
        self._shown: dict[Place, tuple[str, Route]] = {}
        """The name under which a place's route goes, and the route."""
        self._backends: dict[Backend, str] = {}
        self._users: dict[Backend, int] = {}
        self._of_port: dict[ServicePort, set[Backend]] = {}
        self._free: dict[Section, deque[str]] = {}
        self._cooling: dict[Section, list[str]] = {}
        self._servers: dict[str, dict[tuple[str, int], str]] = {}
        """Backend name -> endpoint -> server name, of those that get requests."""
        self._grow(Section())

    def step(self, routing: Routing, change: Change) -> Step:
        """The operations for a change. Costs what the change is large."""
        step = Step()
        if change.listeners:
            self.content.listeners = dict(routing.listeners)
            step.structure = True
        gone: list[Backend] = []
        switch: list[Operation] = []
        for place in change.routes:
            self._place(place, routing, step, switch, gone)
        for port in change.endpoints:
            for backend in self._of_port.get(port, ()):
                self._endpoints(backend, routing.endpoints.get(port, ()), step)
        step.now += switch
        for backend in gone:
            self._release(backend, step)
        self.content.apply(step.now)
        return step

    def settle(self, operations: Iterable[Operation]) -> None:
        """Operations of `later` are done, or need not be any more."""
        for op in operations:
            if isinstance(op, SetServer | RemoveServer) and op.name not in self.content.servers.get(
                op.backend, ()
            ):
                continue
            self.content.apply((op,))

    def reloaded(self) -> None:
        """The proxy begins anew with `content`: backends that nobody uses can be given again."""
        self.content.forget_drained()
        for section, names in self._cooling.items():
            self._free.setdefault(section, deque()).extend(names)
        self._cooling.clear()

    # -- routes

    def _place(
        self, place: Place, routing: Routing, step: Step, switch: list[Operation], gone: list[Backend]
    ) -> None:
        routes = routing.routes.get(place, ())
        route = routes[-1] if routes else None
        before = self._shown.get(place)
        if before is not None and before[1] == route:
            return
        where, key = key_of(place)
        if route is not None:
            self._number += 1
            name = f"r{self._number}"
            step.now.append(SetEntry("targets", name, self._targets(route, routing, step), True))
            source = route.source
            step.now.append(
                SetEntry("sources", name, plain(f"{source.kind}/{source.namespace}/{source.name}"), True)
            )
            switch.append(SetEntry(where, key, name, before is None))
            self._shown[place] = (name, route)
        else:
            switch.append(DeleteEntry(where, key))
            self._shown.pop(place, None)
        if before is not None:
            step.later += [DeleteEntry("targets", before[0]), DeleteEntry("sources", before[0])]
            for target in before[1].targets:
                self._users[target.backend] -= 1
                if not self._users[target.backend]:
                    gone.append(target.backend)

    def _targets(self, route: Route, routing: Routing, step: Step) -> str:
        """`b1`, `b1:90,b2:10`, or `=503`: backends by weight, or the status to answer with."""
        names = []
        for target in route.targets:
            self._users[target.backend] = self._users.get(target.backend, 0) + 1
            names.append((self._backend(target.backend, routing, step), target.weight))
        weighed = [(name, weight) for name, weight in names if weight > 0]
        if not weighed:
            return f"={route.status or 503}"
        if len(weighed) == 1:
            return weighed[0][0]
        return ",".join(f"{name}:{weight}" for name, weight in weighed)

    # -- backends

    def _backend(self, backend: Backend, routing: Routing, step: Step) -> str:
        name = self._backends.get(backend)
        if name is not None:
            return name
        section = section_of(backend.policy)
        free = self._free.setdefault(section, deque())
        if not free:
            step.structure = True
            free.extend(self._cooling.pop(section, ()))
            if len(free) < max(1, sum(s == section for s in self.content.backends.values()) // 4):
                self._grow(section)
        name = free.popleft()
        self._backends[backend] = name
        self._of_port.setdefault(backend.port, set()).add(backend)
        step.now.append(
            SetEntry("services", name, plain(str(backend.port)), name not in self.content.maps["services"])
        )
        self._endpoints(backend, routing.endpoints.get(backend.port, ()), step)
        return name

    def _grow(self, section: Section) -> None:
        there = sum(s == section for s in self.content.backends.values())
        usual = section == Section()
        first = len(self.content.backends) + 1
        for number in range(first, first + (there or (self._spare if usual else 4))):
            name = f"b{number}"
            self.content.backends[name] = section
            self._free.setdefault(section, deque()).append(name)

    def _release(self, backend: Backend, step: Step) -> None:
        if self._users.get(backend):
            return  # another route of this change leads to it
        self._users.pop(backend, None)
        name = self._backends.pop(backend, None)
        if name is None:
            return
        users = self._of_port[backend.port]
        users.discard(backend)
        if not users:
            del self._of_port[backend.port]
        for server in self._servers.pop(name, {}).values():
            step.later += [SetServer(name, server, "maint"), RemoveServer(name, server)]
            step.later.append(DeleteEntry("pods", f"{name}/{server}"))
        self._cooling.setdefault(section_of(backend.policy), []).append(name)

    # -- endpoints

    def _endpoints(self, backend: Backend, endpoints: tuple[Endpoint, ...], step: Step) -> None:
        name, words = self._backends[backend], server_words(backend.policy)
        have = self._servers.setdefault(name, {})
        want = {(e.address, e.port): e for e in endpoints if e.state is EndpointState.READY}
        draining = {(e.address, e.port) for e in endpoints if e.state is EndpointState.DRAINING}
        for address, endpoint in want.items():
            if address in have:
                continue
            self._number += 1
            server = f"s{self._number}"
            have[address] = server
            pod = plain(f"{backend.port.namespace}/{endpoint.pod}") if endpoint.pod else "-"
            step.now.append(SetEntry("pods", f"{name}/{server}", pod, True))
            step.now.append(AddServer(name, server, Server(endpoint.address, endpoint.port, words)))
            step.now.append(SetServer(name, server, "ready"))
        for address in [a for a in have if a not in want]:
            server = have.pop(address)
            step.now.append(SetServer(name, server, "drain" if address in draining else "maint"))
            step.later += [SetServer(name, server, "maint"), RemoveServer(name, server)]
            step.later.append(DeleteEntry("pods", f"{name}/{server}"))
