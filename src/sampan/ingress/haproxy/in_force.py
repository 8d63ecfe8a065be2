"""The routes that a running HAProxy has, read from it: not what should be, but what is."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from sampan.ingress.haproxy.files import Files
from sampan.ingress.haproxy.pattern_order import pattern_key
from sampan.ingress.haproxy.runtime import ask

_WAY = re.compile(r"@\w+")
"""After a backend in `targets`."""
_RANK = {"exact": "Exact", "prefix": "Prefix", "default": "default"}


@dataclass(frozen=True, slots=True, order=True)
class Row:
    """One route. `target` is the Service port, several with their weights, or the status that is answered instead."""

    scope: str
    host: str
    path: str
    match: str
    target: str
    endpoints: str
    source: str


async def rows(files: Files) -> list[Row]:
    """All routes, sorted by host and path. Raises NoAnswer."""
    names = (*_RANK, "hosts", "regex", "targets", "sources", "services", "candidates")
    maps = {name: await _map(files, name) for name in names}
    servers = await _servers(files)
    found = []
    for scope, host, path, match, name in _places(maps):
        for route, conditions in _routes(name, maps["candidates"]):
            backends = [b.partition(":") for b in _WAY.sub("", maps["targets"].get(route, "")).split(",")]
            called = [
                maps["services"].get(b, f"answers {b.removeprefix('=')}") + (f" ({weight})" if weight else "")
                for b, _, weight in backends
            ]
            addresses = [a for b, _, _ in backends for a in servers.get(b, ())]
            found.append(
                Row(
                    scope,
                    host,
                    path,
                    match + (f" if {conditions}" if conditions else ""),
                    ", ".join(called),
                    ", ".join(addresses) or "<none>",
                    maps["sources"].get(route, ""),
                )
            )
    return sorted(found)


def _places(maps: dict[str, dict[str, str]]) -> Iterator[tuple[str, str, str, str, str]]:
    """Scope, host, path, kind and the name of what is there."""
    for name, match in _RANK.items():
        for key, route in maps[name].items():
            scope, _, place = key.partition("|")
            host, slash, path = place.partition("/")
            if name == "prefix":
                path = path.removesuffix("/")
            yield scope, host, slash + path if name != "default" else "", match, route
    for key, generation in maps["hosts"].items():
        scope, _, host = key.partition("|")
        start = pattern_key(generation, "")[:-1]
        for pattern, route in maps["regex"].items():
            if pattern.startswith(start):
                yield scope, host, pattern[len(start) : -1], "Regex", route


def _routes(name: str, candidates: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The routes that a name leads to, with what is asked of a request."""
    if f"{name}.1" not in candidates:
        yield name, ""
        return
    for i in itertools.count(1):
        text = candidates.get(f"{name}.{i}")
        if text is None:
            return
        route, _, conditions = text.partition("&")
        yield route, conditions


async def _map(files: Files, name: str) -> dict[str, str]:
    answer = await ask(f"show map {files.map(name)}", files.admin_socket)
    found = {}
    for line in answer.splitlines():
        parts = line.split(" ", 2)
        if len(parts) == 3:
            found[parts[1]] = parts[2]
    return found


async def _servers(files: Files) -> dict[str, list[str]]:
    """The addresses of the servers of each backend that get requests."""
    found: dict[str, list[str]] = {}
    for line in (await ask("show servers state", files.admin_socket)).splitlines():
        parts = line.split()
        # Fields as the management guide lists them; admin state 0 is neither maint nor drain.
        if len(parts) > 18 and parts[0].isdigit() and parts[6] == "0":
            found.setdefault(parts[1], []).append(f"{parts[4]}:{parts[18]}")
    return found
