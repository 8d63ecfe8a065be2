"""From what a proxy began with to what it should have: for one that had to begin with older files."""

from __future__ import annotations

from collections.abc import Iterator

from sampan.ingress.haproxy.certificates import RemoveCertificate, SetCertificate
from sampan.ingress.haproxy.content import (
    PLACES,
    AddServer,
    Content,
    DeleteEntry,
    Operation,
    RemoveServer,
    SetEntry,
    SetServer,
)


def difference(old: Content, new: Content) -> list[Operation]:
    """The operations that take the proxy there. What leads to routes goes first and comes last: in between nobody is led to
    what is half done. Sections and listeners take a reload: what is for those that are not there will be refused."""
    return [
        *_entries(old, new, PLACES, away=True),
        *_entries(old, new, _OTHERS, away=True),
        *_servers(old, new),
        *_certificates(old, new),
        *_entries(old, new, _OTHERS, away=False),
        *_entries(old, new, PLACES, away=False),
    ]


_OTHERS = tuple(name for name in Content().maps if name not in PLACES)


def _entries(old: Content, new: Content, maps: tuple[str, ...], *, away: bool) -> Iterator[Operation]:
    for name in maps:
        have, want = old.maps[name], new.maps[name]
        # Regular expressions are tried in the order in which they came.
        ordered = name == "regex" and list(have) != list(want)
        for key, value in (have if away else want).items():
            if ordered or (want if away else have).get(key) != value:
                yield DeleteEntry(name, key) if away else SetEntry(name, key, value, True)


def _servers(old: Content, new: Content) -> Iterator[Operation]:
    for backend, servers in old.servers.items():
        # Where all was translated anew the name may be another section's.
        same = new.backends.get(backend) == old.backends.get(backend)
        for name, server in servers.items():
            kept = same and new.servers.get(backend, {}).get(name) == server
            if not kept or (backend, name) in new.drained:
                yield SetServer(backend, name, "maint")
                yield RemoveServer(backend, name)
    for backend, servers in new.servers.items():
        for name, server in servers.items():
            if old.servers.get(backend, {}).get(name) != server and (backend, name) not in new.drained:
                yield AddServer(backend, name, server)
                yield SetServer(backend, name, "ready")


def _certificates(old: Content, new: Content) -> Iterator[Operation]:
    for name, shown in old.certificates.items():
        if shown.is_default:
            if name not in new.certificates:
                yield SetCertificate(name, shown.list, shown.filter, "", False)
        elif name not in new.certificates or new.certificates[name].filter != shown.filter:
            yield RemoveCertificate(name, shown.list)
    for name, shown in new.certificates.items():
        before = old.certificates.get(name)
        if before != shown:
            there = shown.is_default or (before is not None and before.filter == shown.filter)
            yield SetCertificate(name, shown.list, shown.filter, shown.pem, not there)
