"""Routes of one place that depend on more than host and path, as `routes.lua` reads them: for each its name and its conditions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sampan.ingress.haproxy.options import Entry, encoded
from sampan.ingress.patterns import escaped, grouped
from sampan.ingress.types import PathKind, Route


def entries(name: str, routes: Sequence[tuple[str, Route]]) -> Iterator[Entry]:
    """The entries for a place: `name` leads to its routes, which have names of their own, the first to be tried first. Number 0 is how
    long the place's prefix is, for who has to go on to a shorter one."""
    place = routes[0][1].place
    if place.path.kind is PathKind.PREFIX:
        yield "candidates", f"{name}.0", str(len(place.path.value))
    for i, (own, route) in enumerate(routes, 1):
        parts = [own]
        if route.method:
            parts.append(f"method={encoded(route.method)}")
        for n, condition in enumerate(route.conditions, 1):
            where, wanted = condition.where, encoded(condition.name)
            if condition.regex:
                pattern = f"{name}.{i}.{n}"
                yield "patterns", f"^{escaped(pattern)}\\|{grouped(condition.value)}$", "1"
                parts.append(f"like={where}={wanted}={pattern}")
            else:
                parts.append(f"is={where}={wanted}={encoded(condition.value)}".rstrip("="))
        if (canary := route.canary) is not None:
            header = [encoded(canary.header)] if canary.header else []
            header += [encoded(canary.header_value)] if canary.header and canary.header_value else []
            parts.append("=".join(["canary", str(canary.weight), str(canary.total), *header]))
        yield "candidates", f"{name}.{i}", "&".join(parts)
