"""What a Corefile says, as plain values. The names and defaults are CoreDNS' (https://coredns.io/plugins/)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sampan.dns import wire
from sampan.dns.rewriting import NameRule


@dataclass(frozen=True, slots=True)
class Fallthrough:
    """For names of which zones the next plugin is asked when there is no such name. None: for no name."""

    zones: tuple[bytes, ...] | None = None

    def allows(self, key: bytes) -> bool:
        return self.zones is not None and any(wire.is_below(key, zone) for zone in self.zones)


@dataclass(frozen=True, slots=True)
class Kubernetes:
    zones: tuple[bytes, ...]
    ttl: int = 5
    pods: bool = False
    """Whether `1-2-3-4.NAMESPACE.pod` has the address that it says."""
    endpoint_pod_names: bool = False
    ignore_empty_service: bool = False
    namespaces: frozenset[str] = frozenset()
    """Those that are seen; empty for all."""
    fallthrough: Fallthrough = Fallthrough()

    @property
    def primary(self) -> bytes:
        """The zone that the names in answers are in."""
        forward = [z for z in self.zones if not z.endswith(b"\4arpa\0")]
        return forward[0] if forward else wire.encode_name("cluster.local")


@dataclass(frozen=True, slots=True)
class Hosts:
    zones: tuple[bytes, ...]
    addresses: Mapping[bytes, tuple[str, ...]]
    names: Mapping[bytes, tuple[bytes, ...]]
    """Of an address' reverse name."""
    ttl: int = 3600
    fallthrough: Fallthrough = Fallthrough()


@dataclass(frozen=True, slots=True)
class Forward:
    zone: bytes
    targets: tuple[str, ...]
    """`address:port`, `[address]:port`, or the path of a resolv.conf."""
    exceptions: tuple[bytes, ...] = ()
    max_concurrent: int = 0
    """0 for no limit of its own."""
    max_fails: int = 2
    policy: Literal["random", "round_robin", "sequential"] = "random"
    force_tcp: bool = False


@dataclass(frozen=True, slots=True)
class Cache:
    zones: tuple[bytes, ...]
    success_capacity: int = 9984
    denial_capacity: int = 9984
    success_ttl: int = 3600
    denial_ttl: int = 1800
    minimum_ttl: int = 5
    denial_minimum_ttl: int = 5
    servfail: int = 5
    no_success: tuple[bytes, ...] = ()
    no_denial: tuple[bytes, ...] = ()


@dataclass(slots=True)
class Server:
    """One server block."""

    zones: tuple[bytes, ...]
    kubernetes: Kubernetes | None = None
    hosts: Hosts | None = None
    forwards: list[Forward] = field(default_factory=list)
    cache: Cache | None = None
    rewrites: list[NameRule] = field(default_factory=list)
    autopath: bool = False
    loadbalance: bool = False
    log: bool = False
    errors: bool = False


@dataclass(slots=True)
class Settings:
    """A whole Corefile. The addresses are `host:port`, "" where the directive is not there."""

    servers: list[Server]
    prometheus: str = ""
    health: str = ""
    ready: str = ""
    notes: list[str] = field(default_factory=list)
    """What was understood and does nothing here."""
