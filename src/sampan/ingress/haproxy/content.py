"""What a running HAProxy holds of us besides its fixed sections: map entries and servers; and the operations that change it.

Objects' names, hosts and paths stand in maps alone. The configuration has numbers and addresses of ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from sampan.ingress.haproxy import certificates
from sampan.ingress.haproxy.certificates import CertificateOperation, RemoveCertificate, SetCertificate, Shown
from sampan.ingress.types import Listener

MAPS = (
    *("exact", "prefix", "default", "hosts", "regex"),
    *("targets", "sources", "services", "pods"),
    *("candidates", "patterns", "settings", "networks", "rewrites", "cookies"),
    *("certificates", "scopes"),
)
"""`exact`, `prefix` and `default`: scope, host and path to the name of a route. `targets`: route to backends. `sources`,
`services` and `pods`: what routes, backends and servers are called outside, for the log. `hosts`: scope and host to the name
of its regular expressions, which are in `regex`, the first to be tried first. `candidates` and `patterns`: what is asked of a
request besides. `settings`, `networks`, `rewrites`: what routes want (see `options`). `cookies`: which server a cookie means.
`certificates`: scope and host to what names the chain that is shown. `scopes`: a listener's scope and a host to the scope of the routes."""


PLACES = ("exact", "prefix", "default", "hosts")
"""Those that a request is led by to its routes."""

LONGEST = 15_000
"""Characters of a map's key and value together at most. HAProxy reads 16 kB of a line and takes the rest for another entry."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server line: address, port and further words of ours (`proto h2`)."""

    address: str
    port: int
    words: str = ""

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}" + (f" {self.words}" if self.words else "")


@dataclass(frozen=True, slots=True)
class SetEntry:
    map: str
    key: str
    value: str
    new: bool
    """Whether the key is not there yet."""


@dataclass(frozen=True, slots=True)
class DeleteEntry:
    map: str
    key: str


@dataclass(frozen=True, slots=True)
class AddServer:
    backend: str
    name: str
    server: Server


@dataclass(frozen=True, slots=True)
class SetServer:
    """`drain` gets no new request, `maint` loses its idle connections as well; what is under way ends in either."""

    backend: str
    name: str
    state: Literal["drain", "maint", "ready"]


@dataclass(frozen=True, slots=True)
class RemoveServer:
    """Refused by HAProxy as long as somebody is connected: to be tried again."""

    backend: str
    name: str


Operation = SetEntry | DeleteEntry | AddServer | SetServer | RemoveServer | CertificateOperation


@dataclass(frozen=True, slots=True)
class Section:
    """What a backend section has to say that cannot be changed while the proxy runs. `connect` is in milliseconds; `pages` and
    `authority` are names of what `Content` has."""

    balance: str = "roundrobin"
    options: bool = False
    sticky: bool = False
    counted: bool = False
    """Whether the bodies of requests are counted."""
    connect: int = 0
    pages: str = ""
    authority: str = ""
    copies: bool = False
    """Whether it gets copies of requests only: nobody waits for these."""

    def lines(self) -> list[str]:
        found = [f"balance {self.balance}"]
        if self.copies:
            # Less than `mirror.lua` waits: its client would send the copy once more.
            found += ["timeout server 5s", "timeout queue 1s", "retries 0", "option abortonclose"]
        if self.balance == "source":
            found.append("hash-type consistent")
        if self.connect:
            found.append(f"timeout connect {self.connect}ms")
        if self.sticky:
            found.append("use-server %[var(txn.keep)] if { var(txn.keep) -m found }")
        if self.counted:
            found.append("filter lua.limit")
        if self.pages:
            found.append(f"errorfiles {self.pages}")
        if self.authority:
            # Never used: what its line names is loaded, and servers that come later may name it.
            found.append(
                f"server trust 127.0.0.1:1 disabled ssl verify required ca-file {self.authority}.pem"
            )
        return found


@dataclass(slots=True)
class Content:
    """All of it, as it should be. The name of a backend is `b1`, `b2` ..."""

    listeners: dict[str, Listener] = field(default_factory=dict)
    maps: dict[str, dict[str, str]] = field(default_factory=lambda: {name: {} for name in MAPS})
    backends: dict[str, Section] = field(default_factory=dict)
    servers: dict[str, dict[str, Server]] = field(default_factory=dict)
    drained: set[tuple[str, str]] = field(default_factory=set)
    """Servers that get nothing new."""
    mirrored: int = 0
    """How many places have routes whose requests are copied."""
    users: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    pages: dict[str, tuple[tuple[int, str], ...]] = field(default_factory=dict)
    authorities: dict[str, str] = field(default_factory=dict)
    """Lists of users, sets of pages and authorities (PEM), each under a name made from it."""
    certificates: dict[str, Shown] = field(default_factory=dict)

    def apply(self, operations: Iterable[Operation]) -> None:
        """Have the operations' effect. Raises KeyError for what cannot be: this is also what the fake proxy is made of."""
        for op in operations:
            match op:
                case SetEntry(name, key, value, new):
                    if new == (key in self.maps[name]):
                        raise KeyError(f"{key} in map {name}")
                    self.maps[name][key] = value
                case DeleteEntry(name, key):
                    del self.maps[name][key]
                case AddServer(backend, server, what):
                    if backend not in self.backends or server in self.servers.get(backend, {}):
                        raise KeyError(f"{backend}/{server}")
                    self.servers.setdefault(backend, {})[server] = what
                case SetServer(backend, server, state):
                    if server not in self.servers.get(backend, {}):
                        raise KeyError(f"{backend}/{server}")
                    if state == "ready":
                        self.drained.discard((backend, server))
                    else:
                        self.drained.add((backend, server))
                case RemoveServer(backend, server):
                    del self.servers[backend][server]
                    if not self.servers[backend]:
                        del self.servers[backend]
                    self.drained.discard((backend, server))
                case SetCertificate() | RemoveCertificate():
                    certificates.apply(op, self.certificates)

    def forget(self, servers: Iterable[tuple[str, str]]) -> None:
        """Servers, by backend and name, that the proxy does not have any more; those that are not known are left out."""
        for backend, server in servers:
            left = self.servers.get(backend, {})
            if left.pop(server, None) is not None and not left:
                del self.servers[backend]
            self.drained.discard((backend, server))

    def copy(self) -> Content:
        return replace(
            self,
            listeners=dict(self.listeners),
            maps={name: dict(entries) for name, entries in self.maps.items()},
            backends=dict(self.backends),
            servers={name: dict(servers) for name, servers in self.servers.items()},
            drained=set(self.drained),
            users=dict(self.users),
            pages=dict(self.pages),
            authorities=dict(self.authorities),
            certificates=dict(self.certificates),
        )

    def dump(self) -> str:
        """As text, sorted: what tests read."""
        lines = [f"listen {one.port} {one.scope}" for one in sorted(self.listeners.values())]
        for name in MAPS:
            lines += [f"{name}: {key} -> {value}" for key, value in sorted(self.maps[name].items())]
        for backend, servers in sorted(self.servers.items()):
            for name, server in sorted(servers.items()):
                more = " (drained)" if (backend, name) in self.drained else ""
                lines.append(f"{backend}/{name}: {server}{more}")
        lines += sorted(f"certificate: {one.filter}" for one in self.certificates.values())
        return "\n".join(lines)
