"""The routes that a running HAProxy has, read from it: not what should be, but what is."""

from __future__ import annotations

from dataclasses import dataclass

from sampan.ingress.haproxy.files import Files
from sampan.ingress.haproxy.runtime import ask

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
    maps = {name: await _map(files, name) for name in (*_RANK, "targets", "sources", "services")}
    servers = await _servers(files)
    found = []
    for name, match in _RANK.items():
        for key, route in maps[name].items():
            scope, _, place = key.partition("|")
            host, slash, path = place.partition("/")
            if name == "prefix":
                path = path.removesuffix("/")
            backends = [b.partition(":") for b in maps["targets"].get(route, "").split(",")]
            names = [
                maps["services"].get(b, f"answers {b.removeprefix('=')}") + (f" ({weight})" if weight else "")
                for b, _, weight in backends
            ]
            addresses = [a for b, _, _ in backends for a in servers.get(b, ())]
            found.append(
                Row(
                    scope,
                    host,
                    slash + path if name != "default" else "",
                    match,
                    ", ".join(names),
                    ", ".join(addresses) or "<none>",
                    maps["sources"].get(route, ""),
                )
            )
    return sorted(found)


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
