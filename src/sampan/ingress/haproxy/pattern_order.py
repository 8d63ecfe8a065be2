"""Regular expressions of a host in the map `regex`: HAProxy tries them in the order in which they were added, and the longest goes first.

Those of a host stand under a number of their own, which the map `hosts` leads to: where a new one does not come last, all of the host are
added anew under another number, and the host is switched over, atomically.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sampan.ingress.haproxy.content import DeleteEntry, Operation, SetEntry
from sampan.ingress.patterns import grouped


@dataclass(slots=True)
class _Host:
    generation: str
    routes: dict[str, str] = field(default_factory=dict)
    """Pattern -> name of a route, in order."""


class Patterns:
    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}
        self._number = 0

    def switch(
        self,
        key: str,
        pattern: str,
        name: str,
        now: list[Operation],
        switch: list[Operation],
        later: list[Operation],
    ) -> None:
        """Have a pattern of a host lead to `name`; "" takes it away."""
        host = self._hosts.get(key)
        if host is not None and pattern in host.routes:
            entry = pattern_key(host.generation, pattern)
            if name:
                host.routes[pattern] = name
                switch.append(SetEntry("regex", entry, name, False))
                return
            del host.routes[pattern]
            if host.routes:
                switch.append(DeleteEntry("regex", entry))
            else:
                del self._hosts[key]
                switch.append(DeleteEntry("hosts", key))
                later.append(DeleteEntry("regex", entry))
            return
        if host is not None and _order(pattern) > max(map(_order, host.routes)):
            host.routes[pattern] = name
            switch.append(SetEntry("regex", pattern_key(host.generation, pattern), name, True))
            return
        self._number += 1
        routes = {**(host.routes if host else {}), pattern: name}
        new = _Host(f"g{self._number}", {p: routes[p] for p in sorted(routes, key=_order)})
        # In one go with the switch: between the two nothing else may change what was copied.
        switch += [
            SetEntry("regex", pattern_key(new.generation, p), route, True) for p, route in new.routes.items()
        ]
        switch.append(SetEntry("hosts", key, new.generation, host is None))
        if host is not None:
            later += [DeleteEntry("regex", pattern_key(host.generation, p)) for p in host.routes]
        self._hosts[key] = new


def _order(pattern: str) -> tuple[int, str]:
    return -len(pattern), pattern


def pattern_key(generation: str, pattern: str) -> str:
    """The key of a pattern in the map `regex`."""
    return f"^{generation}\\|{grouped(pattern)}"
